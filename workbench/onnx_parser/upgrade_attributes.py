"""Upgrades where attributes became inputs, or got other names: one node gives one node."""

from __future__ import annotations

import numpy as np

from workbench.datatypes import DataType
from workbench.onnx_parser.problems import ErrorCode
from workbench.onnx_parser.site import Rule, Site, Step, Upgrade

Table = dict[tuple[str, int], Upgrade]


def _versions(operator: str, versions: tuple[int, ...], rule: Rule, *targets: str) -> Table:
    return {(operator, v): Upgrade(rule, targets) for v in versions}


def axes_to_input(site: Site) -> tuple[Step, ...]:
    """Attribute ``axes`` becomes input 1; none means the operator's own default."""
    axes = site.attribute("axes")
    inputs = (site.input(0), site.constant("axes", axes)) if axes else (site.input(0),)
    return (site.step(inputs=inputs, without=("axes",)),)


def _clip_limits(site: Site) -> tuple[Step, ...]:
    """Attributes ``min``, ``max`` become inputs of the element type."""
    dtype = site.type(0).dtype.numpy
    inputs = [site.input(0)]
    largest = float(np.finfo(np.float32).max)
    for key, default in (("min", -largest), ("max", largest)):
        with np.errstate(over="ignore", invalid="ignore"):
            limit = np.array(site.attribute(key, default)).astype(dtype)
        # The defaults are float32's largest numbers: infinite in a half, which is no limit.
        finite = bool(np.isfinite(limit.astype(np.float64)))
        inputs.append(site.constant(key, limit, dtype) if finite else "")
    return (site.step(inputs=tuple(inputs), without=("min", "max", "consumed_inputs")),)


def _pad_amounts(site: Site) -> tuple[Step, ...]:
    dtype = site.type(0).dtype.numpy
    pads = site.constant("pads", site.attribute("pads"))
    value = site.attribute("value", 0.0)
    fill = (site.constant("value", value, dtype),) if value else ()
    return (site.step(inputs=(site.input(0), pads, *fill), without=("pads", "value")),)


def _slice_bounds(site: Site) -> tuple[Step, ...]:
    starts, ends = site.attribute("starts"), site.attribute("ends")
    axes = site.attribute("axes")
    inputs = [site.input(0), site.constant("starts", starts), site.constant("ends", ends)]
    if axes is not None:
        inputs.append(site.constant("axes", axes))
    return (site.step(inputs=tuple(inputs), without=("starts", "ends", "axes")),)


def _split_sizes(site: Site) -> tuple[Step, ...]:
    """Attribute ``split`` becomes input 1; without it the parts are equal."""
    sizes = site.attribute("split")
    if sizes:
        inputs = (site.input(0), site.constant("split", sizes))
        return (site.step(inputs=inputs, without=("split",)),)
    return _equal_parts(site)


def _equal_parts(site: Site) -> tuple[Step, ...]:
    """Without sizes, the newest form says how many parts there are."""
    if site.input(1):
        return (site.step(),)
    count = len(site.node.outputs)
    size = site.type(0).shape[site.axis(0)]
    if isinstance(size, int) and size % count:
        site.refuse(
            ErrorCode.INVALID_NODE,
            f"size {size} does not split into {count} equal parts",
            "give the sizes of the parts",
        )
    return (site.step(inputs=(site.input(0),), without=("split",), num_outputs=count),)


def _topk_count(site: Site) -> tuple[Step, ...]:
    count = site.constant("k", [site.attribute("k")])
    return (site.step(inputs=(site.input(0), count), without=("k",)),)


def _dft_axis(site: Site) -> tuple[Step, ...]:
    axis = site.constant("axis", site.attribute("axis", 1))
    return (site.step(inputs=(site.input(0), site.input(1), axis), without=("axis",)),)


def _grid_mode(site: Site) -> tuple[Step, ...]:
    mode = site.attribute("mode", "bilinear")
    renamed = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    return (site.step(mode=renamed),)


def _roi_corner(site: Site) -> tuple[Step, ...]:
    return (site.step(coordinate_transformation_mode="output_half_pixel"),)


def _scatter(site: Site) -> tuple[Step, ...]:
    return (site.step(operator="ScatterElements"),)


def _dropout(site: Site) -> tuple[Step, ...]:
    """In inference the data passes; the mask, where it is read, is all true."""
    training = site.value(2) if site.input(2) else np.array(False)
    if training is None or bool(np.any(training)):
        return (site.step(),)
    if site.node.version < 7 and not site.attribute("is_test", 0):
        site.refuse(
            ErrorCode.UNSUPPORTED_NODE_INPUT,
            "it is in training mode, and versions before 7 do not say how it draws",
            "export the model for inference",
        )
    data = Step("Identity", (site.input(0),), site.node.outputs[:1])
    if not site.reads_output(1):
        return (data,)
    if site.node.version < 12:
        site.refuse(
            ErrorCode.UNSUPPORTED_NODE,
            f"its mask '{site.node.outputs[1]}' is read, and versions before 12 do not say what "
            "it holds in inference",
            "export the model without the mask",
        )
    shape = site.fresh("shape")
    return (
        data,
        Step("Shape", (site.input(0),), (shape,)),
        Step("ConstantOfShape", (shape,), site.node.outputs[1:2], {"value": np.ones(1, np.bool_)}),
    )


def _quantize(site: Site) -> tuple[Step, ...]:
    """A zero point of fewer than 8 bits, or of a small float, says the output type out loud."""
    if site.input(2) and not site.attribute("output_dtype"):
        kind = site.type(2).dtype
        if kind.is_float or kind.info.bits < 8:
            return (site.step(output_dtype=kind),)
    return (site.step(),)


# -- operators of opset 6 and older -------------------------------------------------------
def _old_broadcast(site: Site) -> tuple[Step, ...]:
    """``broadcast=1`` puts the second input's first axis at ``axis`` of the first input's."""
    plain = site.step(without=("broadcast", "axis", "consumed_inputs"))
    axis = site.attribute("axis")
    if not site.attribute("broadcast", 0) or axis is None:
        return (plain,)
    trailing = site.rank() - site.axis(0) - len(site.type(1).shape)
    if trailing <= 0:
        return (plain,)
    first = len(site.type(1).shape)
    axes = site.constant("axes", list(range(first, first + trailing)))
    aligned = site.fresh("aligned")
    return (
        Step("Unsqueeze", (site.input(1), axes), (aligned,)),
        Step(plain.operator, (site.input(0), aligned), plain.outputs, plain.attributes),
    )


def _old_gemm(site: Site) -> tuple[Step, ...]:
    return (site.step(without=("broadcast",)),)


def _old_cast(site: Site) -> tuple[Step, ...]:
    """Version 1 names the type in letters."""
    name = site.attribute("to")
    return (site.step(to=DataType.of({"FLOAT16": "HALF"}.get(name.upper(), name))),)


def _reshape_shape(site: Site) -> tuple[Step, ...]:
    shape = site.constant("shape", site.attribute("shape"))
    return (site.step(inputs=(site.input(0), shape), without=("shape", "consumed_inputs")),)


def _old_concat(site: Site) -> tuple[Step, ...]:
    return (site.step(axis=site.attribute("axis", 1)),)


def _no_consumed_inputs(site: Site) -> tuple[Step, ...]:
    return (site.step(without=("consumed_inputs",)),)


_REDUCTIONS = (
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSumSquare",
)
_BROADCASTING_OLD = ("Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor")
_CONSUMING_OLD = (
    *("Abs", "Ceil", "Elu", "Exp", "Floor", "HardSigmoid", "InstanceNormalization"),
    *("LeakyRelu", "Log", "Neg", "Reciprocal", "Relu", "Selu", "Sigmoid", "Sqrt", "Tanh"),
    *("Max", "Min", "Mean", "Sum"),
)

ATTRIBUTE_UPGRADES: Table = {
    **_versions("Squeeze", (1, 11), axes_to_input),
    **_versions("Unsqueeze", (1, 11), axes_to_input),
    **_versions("ReduceSum", (1, 11), axes_to_input),
    **{
        k: v for op in _REDUCTIONS for k, v in _versions(op, (1, 11, 12, 13), axes_to_input).items()
    },
    **_versions("Clip", (1, 6), _clip_limits),
    **_versions("Pad", (2,), _pad_amounts),
    **_versions("Slice", (1,), _slice_bounds),
    **_versions("Split", (2, 11), _split_sizes),
    **_versions("Split", (13,), _equal_parts),
    **_versions("TopK", (1,), _topk_count),
    **_versions("DFT", (17,), _dft_axis),
    **_versions("GridSample", (16,), _grid_mode),
    **_versions("RoiAlign", (10,), _roi_corner),
    **_versions("Scatter", (9,), _scatter, "ScatterElements"),
    **_versions("Dropout", (1, 6, 7, 10, 12, 13, 22), _dropout, "Identity", "Dropout"),
    **_versions("QuantizeLinear", (10, 13, 19, 21, 23, 24, 25, 28), _quantize),
    **{k: v for op in _BROADCASTING_OLD for k, v in _versions(op, (1, 6), _old_broadcast).items()},
    **{
        k: v
        for op in ("Equal", "Greater", "Less")
        for k, v in _versions(op, (1,), _old_broadcast).items()
    },
    **_versions("Gemm", (1, 6), _old_gemm),
    **_versions("Cast", (1,), _old_cast),
    **_versions("Reshape", (1,), _reshape_shape),
    **_versions("Concat", (1,), _old_concat),
    **{k: v for op in _CONSUMING_OLD for k, v in _versions(op, (1,), _no_consumed_inputs).items()},
}
