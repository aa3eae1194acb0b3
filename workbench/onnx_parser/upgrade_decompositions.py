"""Upgrades of what has no newest form: one node gives several."""

from __future__ import annotations

from workbench.datatypes import DataType
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


def _trained_batch_normalization(site: Site) -> tuple[Step, ...]:
    """In training mode: moments of the batch, and running moments of theirs and those given."""
    if not site.attribute("training_mode", 0):
        return (site.step(),)
    axes = [a for a in range(site.rank()) if a != 1]
    names = site.node.outputs
    x_kind, kind = site.type(0).dtype, _wide(site.type(0).dtype)
    steps: list[Step] = []

    def add(operator: str, inputs: tuple[str, ...], label: str, **attributes: object) -> str:
        name = site.fresh(label)
        steps.append(Step(operator, inputs, (name,), attributes))
        return name

    def wide(index: int, label: str) -> str:
        if site.type(index).dtype is kind:
            return site.input(index)
        return add("Cast", (site.input(index),), label, to=kind)

    def number(label: str, value: float) -> str:
        return site.constant(label, value, kind.numpy)

    all_but_channels = site.constant("axes", axes)
    x = wide(0, "x")
    mean = add("ReduceMean", (x, all_but_channels), "mean")
    centred = add("Sub", (x, mean), "centred")
    squared = add("Mul", (centred, centred), "squared")
    variance = add("ReduceMean", (squared, all_but_channels), "variance")
    widened = add("Add", (variance, number("epsilon", site.attribute("epsilon", 1e-5))), "widened")
    unit = add("Div", (centred, add("Sqrt", (widened,), "deviation")), "unit")
    scale, bias = (wide(i, n) for i, n in ((1, "scale"), (2, "bias")))
    if len(axes) > 1:  # the channels' axis is the first of a scale, and the second of the data
        after = site.constant("after", [a - 1 for a in axes[1:]])
        scale = add("Unsqueeze", (scale, after), "scales")
        bias = add("Unsqueeze", (bias, after), "biases")
    scaled = add("Mul", (unit, scale), "scaled")
    shifted = add("Add", (scaled, bias), "shifted")
    steps.append(Step("Cast", (shifted,), names[:1], {"to": x_kind}))
    momentum = site.attribute("momentum", 0.9)
    for index, moment, label in ((3, mean, "mean"), (4, variance, "variance")):
        output = names[index - 2] if len(names) > index - 2 else ""
        if not output:
            continue
        flat = add("Squeeze", (moment, all_but_channels), f"flat_{label}")
        old = add(
            "Mul",
            (wide(index, f"given_{label}"), number(f"{label}_kept", momentum)),
            f"old_{label}",
        )
        new = add("Mul", (flat, number(f"{label}_new", 1 - momentum)), f"new_{label}")
        running = add("Add", (old, new), f"running_{label}")
        steps.append(Step("Cast", (running,), (output,), {"to": site.type(index).dtype}))
    return tuple(steps)


def _wide(kind: DataType) -> DataType:
    return DataType.FLOAT if kind.itemsize < 4 else kind


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
    **{("BatchNormalization", v): Upgrade(_trained_batch_normalization) for v in (14, 15)},
    ("GroupNormalization", 18): Upgrade(
        _group_normalization, ("GroupNormalization", "Reshape", "Expand")
    ),
    **{("PRelu", v): Upgrade(_old_prelu, ("PRelu", "Unsqueeze")) for v in (1, 6)},
}
