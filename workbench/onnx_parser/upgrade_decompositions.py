"""Upgrades of what has no newest form: one node gives several."""

from __future__ import annotations

from workbench.onnx_parser.problems import ErrorCode
from workbench.onnx_parser.site import Site, Step, Upgrade


# -- Softmax, LogSoftmax, Hardmax before opset 13 -----------------------------------------
def _flattening(site: Site) -> tuple[Step, ...]:
    """Works on the matrix [product of the axes before ``axis``, product of the others]."""
    axis, rank = site.axis(1), site.rank()
    shape = site.type(0).shape
    own = site.node.operator
    if axis < rank and all(d == 1 for d in shape[axis + 1 :]):
        return (site.step(axis=axis),)
    flat, done, sizes = site.fresh("flat"), site.fresh("rows"), site.fresh("shape")
    return (
        Step("Shape", (site.input(0),), (sizes,)),
        Step("Flatten", (site.input(0),), (flat,), {"axis": axis}),
        Step(own, (flat,), (done,), {"axis": 1}),
        Step("Reshape", (done, sizes), site.node.outputs),
    )


# -- BatchNormalization -------------------------------------------------------------------
def _batch_normalization(site: Site) -> tuple[Step, ...]:
    """Inference only. ``spatial=0`` normalizes each element of a sample by itself."""
    if site.node.version < 7 and not site.attribute("is_test", 0):
        _refuse_training(site, "is_test is 0")
    if any(site.node.outputs[1:]):
        _refuse_training(site, f"{len(site.node.outputs)} outputs are asked for")
    outputs = site.node.outputs[:1]
    if site.attribute("spatial", 1):
        dropped = ("spatial", "is_test", "consumed_inputs")
        return (site.step(outputs=outputs, without=dropped),)
    x, scale, bias, mean, variance = site.node.inputs
    dtype = site.type(0).dtype.numpy
    epsilon = site.constant("epsilon", site.attribute("epsilon", 1e-5), dtype)
    centred, widened, deviation = (site.fresh(n) for n in ("centred", "widened", "deviation"))
    unit, scaled = site.fresh("unit"), site.fresh("scaled")
    return (
        Step("Sub", (x, mean), (centred,)),
        Step("Add", (variance, epsilon), (widened,)),
        Step("Sqrt", (widened,), (deviation,)),
        Step("Div", (centred, deviation), (unit,)),
        Step("Mul", (unit, scale), (scaled,)),
        Step("Add", (scaled, bias), outputs),
    )


def _refuse_training(site: Site, why: str) -> None:
    site.refuse(
        ErrorCode.UNSUPPORTED_NODE,
        f"{site.node.operator}-{site.node.version} is in training mode: {why}",
        "export the model for inference",
    )


# -- GroupNormalization-18 ----------------------------------------------------------------
def _group_normalization(site: Site) -> tuple[Step, ...]:
    """Scale and bias have a number a group; the newest form has one a channel."""
    groups, channels = site.attribute("num_groups"), (*site.type(0).shape, 0, 0)[1]
    if groups < 1 or not isinstance(channels, int) or channels % groups:
        site.refuse(
            ErrorCode.INVALID_NODE,
            f"{channels} channels do not divide into {groups} groups",
            "make the number of channels a multiple of num_groups",
        )
    if channels == groups:
        return (site.step(),)
    column = site.constant("column", [groups, 1])
    matrix = site.constant("matrix", [groups, channels // groups])
    row = site.constant("row", [channels])
    steps: list[Step] = []
    spread: list[str] = []
    for index, label in ((1, "scale"), (2, "bias")):
        tall, wide, flat = (site.fresh(f"{label}_{n}") for n in ("column", "matrix", "row"))
        steps += [
            Step("Reshape", (site.input(index), column), (tall,)),
            Step("Expand", (tall, matrix), (wide,)),
            Step("Reshape", (wide, row), (flat,)),
        ]
        spread.append(flat)
    return (*steps, site.step(inputs=(site.input(0), *spread)))


# -- PRelu before opset 7 -----------------------------------------------------------------
def _old_prelu(site: Site) -> tuple[Step, ...]:
    """The slope has one number, or one a channel (axis 1)."""
    plain = site.step(without=("consumed_inputs",))
    trailing = site.rank() - 2
    if site.type(1).shape in ((), (1,)) or trailing <= 0:
        return (plain,)
    axes, aligned = site.constant("axes", list(range(1, trailing + 1))), site.fresh("aligned")
    return (
        Step("Unsqueeze", (site.input(1), axes), (aligned,)),
        Step("PRelu", (site.input(0), aligned), plain.outputs),
    )


DECOMPOSITIONS: dict[tuple[str, int], Upgrade] = {
    **{
        (op, v): Upgrade(_flattening, (op, "Shape", "Flatten", "Reshape"))
        for op in ("Softmax", "LogSoftmax", "Hardmax")
        for v in (1, 11)
    },
    **{
        ("BatchNormalization", v): Upgrade(
            _batch_normalization, ("BatchNormalization", "Sub", "Add", "Sqrt", "Div", "Mul")
        )
        for v in (1, 6, 7, 9)
    },
    ("GroupNormalization", 18): Upgrade(
        _group_normalization, ("GroupNormalization", "Reshape", "Expand")
    ),
    **{("PRelu", v): Upgrade(_old_prelu, ("PRelu", "Unsqueeze")) for v in (1, 6)},
}
