"""Convolutions as cuDNN graphs: fprop, and dgrad for ConvTranspose, channels last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from workbench.body import Body, Node
from workbench.datatypes import DataType
from workbench.formats import HWC, Format
from workbench.operators.windows import window_of
from workbench.tactics.cudnn.epilogue import FLOATS, Epilogue, Undescribed
from workbench.tactics.cudnn.folding import residual_first
from workbench.tactics.cudnn.graph import Drawing, Graph, Input, channels_last
from workbench.tactics.terms import Constant, Constants, Term

ANCHORS = ("Conv", "ConvTranspose")


@dataclass(frozen=True)
class ChannelsLast:
    """(N, C, spatial...) with the channels innermost; one spatial axis gets a height of 1."""

    dims: tuple[int, ...]
    strides: tuple[int, ...]
    rank: int
    layout: Format = HWC

    @classmethod
    def of(cls, shape: Sequence[int]) -> ChannelsLast:
        dims = widened(shape)
        return cls(dims, channels_last(dims), len(shape))

    def dims_of(self, shape: Sequence[int]) -> tuple[int, ...]:
        if len(shape) > self.rank:
            raise Undescribed(f"an operand of shape {tuple(shape)} has more axes", "shape")
        return widened((*(1,) * (self.rank - len(shape)), *shape))

    def strides_of(self, dims: Sequence[int]) -> tuple[int, ...]:
        return channels_last(dims)


def widened(shape: Sequence[int]) -> tuple[int, ...]:
    """Two spatial axes at least."""
    sizes = tuple(int(d) for d in shape)
    return (*sizes[:2], 1, *sizes[2:]) if len(sizes) == 3 else sizes


def describe(body: Body, constants: Constants) -> tuple[Graph, ...]:
    """The graphs that compute the Body, the order that it spells first. Raises Undescribed."""
    anchor = body.anchor_node
    assert anchor is not None
    rank = len(body.types[anchor.outputs[0]].shape)
    if rank < 3 or rank > 5:
        raise Undescribed(f"a convolution of {rank - 2} spatial axes", "rank")
    if len(body.outputs) != 1:
        raise Undescribed(f"the layer has {len(body.outputs)} outputs", "outputs")
    view = ChannelsLast.of(body.types[anchor.outputs[0]].shape)
    e = Epilogue(body, constants, Drawing(), view)
    product, kind = _product(e, anchor)
    if len(anchor.inputs) > 2 and anchor.inputs[2]:
        product = e.binary("add", product, _bias(e, anchor.inputs[2], rank))
    e.known[anchor.outputs[0]] = product
    result = e.value(body.outputs[0])
    orders = [("as written", result)]
    other = residual_first(e.drawing, result)
    if other is not None:
        orders.append(("residual first", other))
    return tuple(_graph(e, name, r, kind) for name, r in orders)


def _graph(e: Epilogue, variant: str, result: str, io: DataType) -> Graph:
    body = e.body
    stored = body.output_types[0].dtype
    if stored not in FLOATS and stored is not io:
        raise Undescribed(f"its output is {stored.value}", "type")
    inputs = [e.layouts.get(i.name, HWC) for i in body.dynamic_inputs]
    return e.drawing.graph(result, stored, variant=variant, io=io, inputs=inputs, outputs=(HWC,))


def _bias(e: Epilogue, name: str, rank: int) -> str:
    if not e.constants.knows(name):
        raise Undescribed("its bias arrives at run time", "bias")
    return e.constant(Term.of(name), (e.body.types[name].shape[0], *(1,) * (rank - 2)))


def _product(e: Epilogue, anchor: Node) -> tuple[str, DataType]:
    """The convolution and its dequantization: a tensor in float32, and the type it multiplies."""
    f = e.factors(anchor)
    if f.left not in e.dynamic or not e.constants.knows(f.right):
        raise Undescribed("it convolves a tensor with constant weights only", "weights")
    made = _convolved(e, anchor, f.left, f.right, f.kind)
    if f.quantized is None:
        return made, f.kind
    return _dequantized(e, made, *f.quantized, anchor), f.kind


def _convolved(e: Epilogue, anchor: Node, source: str, weights: str, kind: DataType) -> str:
    types, view = e.body.types, e.view
    shape, filters = types[source].shape, types[weights].shape
    dims, taps = widened(shape), widened(filters)
    e.layouts[source] = HWC
    x = e.drawing.tensor("x", dims, channels_last(dims), kind, Input(e.dynamic[source]))
    order = (0, *range(2, len(taps)), 1)
    packed = Constant(Term.of(weights), kind, taps, order)
    w = e.drawing.tensor("w", taps, channels_last(taps), kind, packed)
    integers = kind is DataType.INT8
    summed = DataType.INT32 if integers else DataType.FLOAT
    transposed = anchor.op == "ConvTranspose"
    options = _geometry(anchor, shape, filters, types[anchor.outputs[0]].shape)
    names = ("loss", "filter") if transposed else ("image", "weight")
    return e.drawing.add(
        "conv_dgrad" if transposed else "conv_fprop",
        tuple(zip(names, (x, w), strict=True)),
        view.dims,
        view.strides,
        result=summed,
        compute=summed,
        **options,
    )


def _geometry(
    anchor: Node, source: Sequence[int], filters: Sequence[int], result: Sequence[int]
) -> dict[str, Any]:
    """Strides, dilations and both paddings, an entry an axis of the graph."""
    # A transposed convolution is the gradient of the one from its result to its source.
    transposed = anchor.op == "ConvTranspose"
    attributes = dict(anchor.attributes)
    seen, made = (result, source) if transposed else (source, result)
    if transposed:
        attributes = _gradient(attributes, source[2:], filters[2:], result[2:])
    window = window_of(attributes, tuple(seen[2:]), tuple(filters[2:]))
    if tuple(window.output) != tuple(made[2:]):
        raise Undescribed(f"windows at {window.output}, wanted {tuple(made[2:])}", "shape")
    begin, end = tuple(window.begin), tuple(window.end)
    if min(*begin, *end, 0) < 0:
        raise Undescribed("a padding is negative", "padding")
    lead = (0,) if len(source) == 3 else ()
    one = (1,) if len(source) == 3 else ()
    return {
        "pre_padding": (*lead, *begin),
        "post_padding": (*lead, *end),
        "stride": (*one, *window.strides),
        "dilation": (*one, *window.dilations),
    }


def _gradient(
    attributes: dict[str, Any], source: Sequence[int], kernel: Sequence[int], result: Sequence[int]
) -> dict[str, Any]:
    """The paddings of the convolution whose gradient a ConvTranspose is, from its sizes.

    The end padding follows from the sizes; what output_padding adds is within its last window.
    """
    rank = len(kernel)
    strides = attributes["strides"] or (1,) * rank
    dilations = attributes["dilations"] or (1,) * rank
    if attributes["auto_pad"] not in ("NOTSET", "VALID") or attributes["output_shape"]:
        raise Undescribed("ConvTranspose with auto_pad or output_shape", "attribute")
    begin = tuple((attributes["pads"] or (0,) * 2 * rank)[:rank])
    end = tuple(
        max((n - 1) * s + (k - 1) * d + 1 - b - m, 0)
        for n, s, k, d, b, m in zip(source, strides, kernel, dilations, begin, result, strict=True)
    )
    return {"strides": strides, "dilations": dilations, "pads": (*begin, *end)}


def _dequantized(e: Epilogue, made: str, x: Node, w: Node, anchor: Node) -> str:
    """The sums times the scales of both factors."""
    scale_x, shape_x = e.scale_of(x)
    scale_w, shape_w = e.scale_of(w)
    if any(d != 1 for d in shape_x):
        raise Undescribed("its input is quantized per channel", "per_channel")
    if not any(d != 1 for d in shape_w):
        return e.scaled(made, scale_x * scale_w, ())
    filters = e.body.types[w.inputs[0]].shape
    axis = w.attributes["axis"] % len(filters)
    wanted = 1 if anchor.op == "ConvTranspose" else 0
    if axis != wanted or (wanted and anchor.attributes["group"] != 1):
        raise Undescribed(f"its weights are quantized along axis {axis}", "per_channel")
    channels = (shape_w[0], *(1,) * (len(filters) - 2))
    return e.scaled(made, scale_x * scale_w, channels)
