"""What follows a product's sums: scales, bias, the Body's epilogue, stores."""

from __future__ import annotations

from collections.abc import Mapping

from workbench.formats import Format
from workbench.tactics.product import (
    Factor,
    Product,
    constant_values,
    scale_axis,
)
from workbench.tactics.scalar_text import Untranslatable
from workbench.tactics.triton.frame import Frame
from workbench.tactics.triton.kernel import Arguments, Pack, masked
from workbench.tactics.triton.values import Values

Packs = dict[str, Pack]


def finish(
    product: Product,
    arguments: Arguments,
    frame: Frame,
    layouts: Mapping[str, Format],
    channel: int,
    packs: Packs,
    *,
    early: list[str] | None = None,
) -> list[str]:
    """Scales, bias, epilogue and stores of a tile of sums, ``acc``.

    channel: the output's axis along which bias and scales lie. packs: grows by derived constants.
    early: if given, receives the loads of further tensors, such as a residual.
    """
    values = Values(
        product.body,
        arguments,
        frame,
        layouts,
        early=early,
        positive=product.positive,
        zeros=product.zeros,
    )
    sums = "acc.to(tl.float32)" if product.exact else "acc"
    scales = [
        _scale(product, values, f, channel, packs) for f in (product.left, product.right) if f.scale
    ]
    attributes = product.anchor.attributes
    if product.anchor.op == "Gemm" and attributes["alpha"] != 1.0:
        scales.append(repr(attributes["alpha"]))
    bias = [_bias(product, values, channel, packs)] if product.bias else []
    if bias and product.anchor.op == "Gemm" and attributes["beta"] != 1.0:
        bias.append(repr(attributes["beta"]))

    def total(factor: str) -> str:
        # The numbers first: the other factor's scales may be one a channel.
        by = [*scales[:1], factor, *scales[1:]] if factor else scales
        text = f"{sums} * ({' * '.join(by)})" if by else sums
        added = " * ".join([*bias, factor] if factor else bias)
        return f"{text} + {added}" if bias else text

    values.define_later(product.anchor.outputs[0], total)
    for name in product.body.outputs:
        values.store(name)
    return values.lines


def _scale(product: Product, values: Values, factor: Factor, channel: int, packs: Packs) -> str:
    """The scale of a factor, on the output's tile."""
    assert factor.scale is not None
    name = factor.scale.inputs[1]
    if scale_axis(product, factor) is None:
        inputs = {i.name for i in product.body.inputs}
        return values.read(name) if name in inputs else values.at(name)
    if factor is product.left:
        raise Untranslatable("the first factor has a scale for each of its rows")
    return along_channel(product, values, name, channel, packs)


def _bias(product: Product, values: Values, channel: int, packs: Packs) -> str:
    name = product.bias
    if product.anchor.op == "Gemm":
        return values.at(name)
    return along_channel(product, values, name, channel, packs)


def along_channel(product: Product, values: Values, name: str, channel: int, packs: Packs) -> str:
    """A value of one number an output channel: an input of the Body, or made at build time."""
    body = product.body
    if any(i.name == name for i in body.inputs):
        return values.read(name, axis=channel)
    if name not in constant_values(body):
        raise Untranslatable(f"'{name}' is computed for each channel as it runs")
    key = f"made {name}"
    packs[key] = Pack(name, "", lambda array: array)
    strides = [0] * len(values.frame.shape)
    strides[channel] = 1
    offset, mask = values.frame.offset(strides)
    dtype = body.types[name].dtype
    suffix = masked(mask, dtype)
    pointer = values.arguments.packed(key, dtype)
    values.define(name, f"tl.load({pointer} + ({offset}){suffix}).to(tl.float32)")
    return values.at(name)
