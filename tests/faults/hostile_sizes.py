"""Models that ask for more memory or time than any machine has; and some that only look so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hostile_graphs import if_model, loop_in_loop
from hostile_parts import (
    HUGE,
    INT64,
    Case,
    model,
    node,
    untyped,
    value,
    weight,
)
from onnx import (
    ModelProto,
    helper,
)


def bomb(operator: str, sizes: Any, *more: Any, **attributes: Any) -> Callable[[Path], ModelProto]:
    """An operator whose second input decides the size."""

    def make(folder: Path) -> ModelProto:
        given = [weight("sizes", np.array(sizes))]
        given += [weight(f"more{k}", v) for k, v in enumerate(more)]
        names = " ".join(("x", *(w.name for w in given)))
        return model([node(operator, names, "y", "bomb", **attributes)], given)

    return make


def constant_of_shape(*sizes: int) -> Callable[[Path], ModelProto]:
    made = [node("ConstantOfShape", "sizes", "big", "bomb"), node("ReduceSum", "big", "y")]
    given = [weight("sizes", np.array(sizes, np.int64))]
    return lambda folder: model(made, given, inputs=[])


def constant_range(limit: int) -> ModelProto:
    given = [weight(n, np.int64(v)) for n, v in (("a", 0), ("b", limit), ("c", 1))]
    made = [node("Range", "a b c", "big", "bomb"), node("ReduceMax", "big", "y", keepdims=0)]
    return model(made, given, inputs=[])


def resize_bomb() -> ModelProto:
    image = [value("x", (1, 1, 4, 4))]
    given = [weight("sizes", np.array([1, 1, HUGE, HUGE], np.int64))]
    made = helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], name="bomb", mode="nearest")
    return model([made], given, inputs=image)


def one_hot_bomb() -> ModelProto:
    given = [weight("depth", np.int64(HUGE)), weight("values", np.array([0, 1], np.float32))]
    return model(
        [node("OneHot", "i depth values", "y", "bomb")], given, inputs=[value("i", (4,), INT64)]
    )


def doubling(operator: str, count: int, start: Any, **attributes: Any) -> ModelProto:
    """Each node doubles what the one before it gave."""
    given = [weight("v0", np.array(start))]
    made = [
        node(operator, f"v{k} v{k}", f"v{k + 1}", f"double{k}", **attributes) for k in range(count)
    ]
    return model(made, given, inputs=[], outputs=[untyped(f"v{count}")])


def squaring(count: int, *, plus: int = 0) -> ModelProto:
    """A size n becomes n², n⁴, n⁸...: as a polynomial it grows without end."""
    made = [node("Shape", "x", "s0", start=0, end=1), node("Add", "s0 one", "v0")]
    if not plus:
        made[1] = node("Identity", "s0", "v0")
    made += [node("Mul", f"v{k} v{k}", f"v{k + 1}", f"square{k}") for k in range(count)]
    made += [node("ConstantOfShape", f"v{count}", "y", "bomb")]
    return model(
        made, [weight("one", np.array([1], np.int64))], inputs=[value("x", ("n", "m", "k"))]
    )


def compute_bomb() -> ModelProto:
    """Products of constants, 10 TFLOP in all: importing and folding must not compute them."""
    made = [node("MatMul", f"v{k} v{k}", f"v{k + 1}", f"product{k}") for k in range(5000)]
    made.insert(0, node("ConstantOfShape", "sizes", "v0", "wide"))
    sizes = weight("sizes", np.array([1000, 1000], np.int64))
    return model(made, [sizes], inputs=[], outputs=[untyped("v5000")])


BOMBS = (
    Case("ConstantOfShape", constant_of_shape(HUGE), "ParserError", ("bomb", str(HUGE))),
    Case(
        "ConstantOfShape of many axes", constant_of_shape(*(2**31,) * 8), "ParserError", ("bomb",)
    ),
    Case("ConstantOfShape of 100 axes", constant_of_shape(*(1,) * 100), "ParserError", ("bomb",)),
    Case("ConstantOfShape, negative", constant_of_shape(-5), "ParserError", ("bomb", "-5")),
    Case("Expand", bomb("Expand", [HUGE, 2, 3]), "ParserError", ("bomb", str(HUGE))),
    Case("Tile", bomb("Tile", [HUGE, HUGE]), "ParserError", ("bomb",)),
    Case("Pad", bomb("Pad", [0, 0, HUGE, HUGE]), "ParserError", ("bomb",)),
    Case("Range", lambda f: constant_range(HUGE), "ParserError", ("bomb",)),
    Case("Resize", lambda f: resize_bomb(), "ParserError", ("bomb",)),
    Case("OneHot", lambda f: one_hot_bomb(), "ParserError", ("bomb",)),
    Case(
        "Concat that doubles",
        lambda f: doubling("Concat", 60, np.ones(4, np.float32), axis=0),
        "ParserError",
        ("double",),
    ),
)


# -- harmless, however it looks -----------------------------------------------------------
HARMLESS = (
    Case("nested ifs", lambda f: if_model(24), "", ()),
    Case("nested loops of open rank", lambda f: loop_in_loop(24), "", ()),
    Case("a size that squares itself", lambda f: squaring(40), "", ()),
    Case("a sum that squares itself", lambda f: squaring(40, plus=1), "", ()),
    Case("a product of days", lambda f: compute_bomb(), "", ()),
)
"""Cases that import in time, and are valid."""
