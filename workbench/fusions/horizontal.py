"""Horizontal fusion: sibling products of one input become a wider one and a Split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from workbench.fusions.siblings import (
    Siblings,
    dequantizer,
    differences,
    epilogues_refusal,
    members,
    weight_of,
    weights_refusal,
)
from workbench.network import Cause, Layer, NetworkDefinition, Tensor
from workbench.records import Refusal
from workbench.rewrite import Match, Replaced, RewriteRule, not_constant
from workbench.rewrite.derive import apply, derive

CONVOLUTIONS = frozenset({"Conv"})
PRODUCTS = frozenset({"MatMul", "Gemm"})


def joined(network: NetworkDefinition, tensors: list[Tensor], axis: int, name: str) -> Tensor:
    """Constants side by side, as one derived constant."""

    def concat(net: NetworkDefinition, *parts: Tensor) -> Tensor:
        return apply(net, "Concat", *parts, axis=axis)

    return derive(network, name, tensors, concat)


def _wide_weight(network: NetworkDefinition, group: list[Layer], axis: int) -> Tensor:
    """The weights side by side; quantized ones stay quantized, each channel by its own scale."""
    first = weight_of(group[0])
    makers = [d for x in group if (d := dequantizer(x)) is not None]
    if not makers:
        return joined(network, [weight_of(x) for x in group], axis, f"{first.name}_wide")
    inputs: list[Tensor | None] = []
    for index, at in enumerate((axis, 0, 0)[: len(makers[0].inputs)]):
        parts = [t for m in makers if (t := m.inputs[index]) is not None]
        name = parts[0].name if parts else ""
        inputs.append(joined(network, parts, at, f"{name}_wide") if parts else None)
    row = makers[0]
    assert row.operator is not None
    cause = row.cause or Cause("Fuse", "weights of siblings side by side")
    return network.add_layer(
        row.operator, inputs, row.attributes, name=f"{row.name}_wide", cause=cause
    ).outputs[0]


def _split(
    network: NetworkDefinition, wide: Tensor, group: list[Layer], axis: int
) -> dict[Tensor, Tensor]:
    sizes = np.array([x.outputs[0].shape[axis] for x in group], np.int64)
    names = ", ".join(x.name for x in group)
    layer = network.add_layer(
        "Split",
        [wide, network.constant(sizes, f"{group[0].name}_split_sizes")],
        {"axis": axis},
        name=f"{group[0].name}_split",
        outputs=len(group),
        cause=Cause("Fuse", f"hands out the results of {names}"),
    )
    return dict(zip((x.outputs[0] for x in group), layer.outputs, strict=True))


def _bias(network: NetworkDefinition, group: list[Layer]) -> list[Tensor | None]:
    """The third operands side by side, if there are any."""
    given = [x.inputs[2] for x in group if len(x.inputs) > 2]
    biases = [b for b in given if b is not None]
    if not biases:
        return []
    axis = len(biases[0].shape) - 1
    return [joined(network, biases, axis, f"{biases[0].name}_wide")]


def _has_bias(layer: Layer) -> bool:
    return len(layer.inputs) > 2 and layer.inputs[2] is not None


def _bias_refusal(group: list[Layer]) -> Refusal | None:
    for x in group:
        bias = x.inputs[2] if _has_bias(x) else None
        if bias is not None and not bias.is_constant:
            return not_constant(bias)
    return None


# -- convolutions -------------------------------------------------------------------------
def _convolution_traits(layer: Layer) -> Mapping[str, Any]:
    weight, given = weight_of(layer), layer.attributes
    axes = len(weight.shape) - 2
    return {
        "kernel": weight.shape[2:],
        "strides": given["strides"] or (1,) * axes,
        "pads": given["pads"] or (0,) * 2 * axes,
        "dilations": given["dilations"] or (1,) * axes,
        "auto_pad": given["auto_pad"],
        "group": given["group"],
        "type": weight.dtype.value,
        "bias": _has_bias(layer),
    }


def _convolutions_stay(match: Match) -> Refusal | None:
    group = members(match, CONVOLUTIONS)
    if group[0].attributes["group"] != 1:
        return Refusal("they are grouped convolutions", code="grouped")
    return (
        differences(group, _convolution_traits)
        or weights_refusal(group, 0)
        or _bias_refusal(group)
        or epilogues_refusal(group)
    )


def _wide_convolution(network: NetworkDefinition, match: Match) -> Replaced:
    group = members(match, CONVOLUTIONS)
    first = group[0]
    assert first.operator is not None
    inputs = [first.inputs[0], _wide_weight(network, group, 0), *_bias(network, group)]
    wide = network.add_layer(first.operator, inputs, first.attributes, name=f"{first.name}_wide")
    return _split(network, wide.outputs[0], group, 1)


SIBLING_CONVOLUTIONS = RewriteRule(
    "sibling_convolutions",
    Siblings(CONVOLUTIONS, _convolution_traits),
    _wide_convolution,
    _convolutions_stay,
    shares_inner=True,
    changes_weights=True,
    any_size=True,
    about="Convolutions of one input and one geometry are a wider one.",
)


# -- matrix products ----------------------------------------------------------------------
def _product_traits(layer: Layer) -> Mapping[str, Any]:
    names = ("alpha", "beta", "transA", "transB") if layer.op == "Gemm" else ()
    bias = layer.inputs[2] if _has_bias(layer) else None
    return {
        "operator": layer.op,
        "type": weight_of(layer).dtype.value,
        "rank of the weight": len(weight_of(layer).shape),
        **{n: layer.attributes[n] for n in names},
        "rank of the bias": len(bias.shape) if bias is not None else None,
    }


def _output_axis(layer: Layer) -> int:
    """The axis of the weight that runs over output columns."""
    if layer.op == "Gemm":
        return 0 if layer.attributes["transB"] else 1
    return len(weight_of(layer).shape) - 1


def _products_stay(match: Match) -> Refusal | None:
    group = members(match, PRODUCTS)
    refusal = differences(group, _product_traits) or weights_refusal(group, _output_axis(group[0]))
    if refusal is not None:
        return refusal
    if len(weight_of(group[0]).shape) != 2:
        return Refusal("their weights are not matrices", code="shape_mismatch")
    for x in group:
        bias = x.inputs[2] if _has_bias(x) else None
        if bias is not None and bias.shape[-1:] != x.outputs[0].shape[-1:]:
            return Refusal(f"'{bias.name}' is not one bias per column", code="shape_mismatch")
    return _bias_refusal(group) or epilogues_refusal(group)


def _wide_product(network: NetworkDefinition, match: Match) -> Replaced:
    group = members(match, PRODUCTS)
    first = group[0]
    assert first.operator is not None
    weight = _wide_weight(network, group, _output_axis(first))
    inputs = [first.inputs[0], weight, *_bias(network, group)]
    wide = network.add_layer(first.operator, inputs, first.attributes, name=f"{first.name}_wide")
    return _split(network, wide.outputs[0], group, len(first.outputs[0].shape) - 1)


SIBLING_PRODUCTS = RewriteRule(
    "sibling_products",
    Siblings(PRODUCTS, _product_traits),
    _wide_product,
    _products_stay,
    shares_inner=True,
    changes_weights=True,
    any_size=True,
    about="Matrix products of one input, such as queries, keys and values, are a wider one.",
)
