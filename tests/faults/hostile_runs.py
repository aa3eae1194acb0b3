"""Models that import: what they do is only seen when they are built, or run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hostile_parts import (
    BOOL,
    FLOAT,
    INT64,
    STRING,
    Case,
    Feeds,
    model,
    node,
    value,
    weight,
)
from onnx import (
    GraphProto,
    ModelProto,
    TensorProto,
    helper,
)


def string_doubling(count: int, *, run_time: bool) -> ModelProto:
    made = [node("StringConcat", f"v{k} v{k}", f"v{k + 1}", f"double{k}") for k in range(count)]
    made += [node("Equal", f"v{count} v0", "y")]
    if run_time:
        return model(made, inputs=[value("v0", (1,), STRING)])
    return model(made, [helper.make_tensor("v0", STRING, [1], [b"boom"])], inputs=[])


def division(operator: str, kind: int, *, folded: bool = False, **attributes: Any) -> ModelProto:
    """Integers by zero: as data, or as constants that folding would divide."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    made = [node(operator, "a b", "y", "by_zero", **attributes)]
    if folded:
        given = [weight("a", np.array([1, 2], dtype)), weight("b", np.array([0, 1], dtype))]
        return model(made, given, inputs=[])
    return model(made, inputs=[value("a", (2,), kind), value("b", (2,), kind)])


def division_feeds(kind: int) -> Feeds:
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    return {"a": np.array([1, 2], dtype), "b": np.array([0, 1], dtype)}


def indexing(
    operator: str, indices: Any, *, folded: bool = False, updates: Any = None, **attributes: Any
) -> ModelProto:
    """Indices outside a table of 4 rows of 3."""
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    array = np.array(indices, np.int64)
    names = "table i" if updates is None else "table i u"
    nodes = [node(operator, names, "g", "lookup", **attributes), node("Relu", "g", "y", "after")]
    given = [weight("table", table)]
    if updates is not None:
        given.append(weight("u", np.array(updates, np.float32)))
    if folded:
        return model(nodes, [*given, weight("i", array)], inputs=[])
    return model(nodes, given, inputs=[value("i", array.shape, INT64)])


def endless_loop(*, folded: bool) -> ModelProto:
    """A Loop whose condition never turns false."""
    inputs = [value("k", (), INT64), value("going", (), BOOL), value("s", (3,))]
    outputs = [value("still", (), BOOL), value("t", (3,))]
    nodes = [node("Identity", "going", "still", "id"), node("Add", "s s", "t", "add")]
    body = helper.make_graph(nodes, "body", inputs, outputs)
    made = helper.make_node("Loop", ["", "yes", "x"], ["y"], name="endless", body=body)
    x = np.ones(3, np.float32)
    given = [weight("yes", np.array(True)), *([weight("x", x)] if folded else [])]
    return model([made], given, inputs=[] if folded else [value("x", (3,))])


def loops_within(depth: int, trips: int) -> ModelProto:
    """Loops within loops, none of them endless."""

    def body(level: int) -> GraphProto:
        inputs = [value(f"k{level}", (), INT64), value(f"g{level}", (), BOOL), value(f"s{level}")]
        inner = node("Neg", f"s{level}", f"t{level}", f"neg{level}")
        if level:
            inner = helper.make_node(
                "Loop",
                ["n", "", f"s{level}"],
                [f"t{level}"],
                name=f"loop{level}",
                body=body(level - 1),
            )
        nodes = [inner, node("Identity", f"g{level}", f"h{level}", f"id{level}")]
        outputs = [value(f"h{level}", (), BOOL), value(f"t{level}")]
        return helper.make_graph(nodes, f"body{level}", inputs, outputs)

    made = helper.make_node("Loop", ["n", "", "x"], ["y"], name="outermost", body=body(depth))
    return model([made], [weight("n", np.int64(trips))])


def growing_loop() -> ModelProto:
    """A Loop whose state doubles at each of a thousand trips."""
    inputs = [value("k", (), INT64), value("going", (), BOOL), value("s", ("m",))]
    outputs = [value("still", (), BOOL), value("t", ("o",))]
    nodes = [
        node("Identity", "going", "still", "id"),
        node("Concat", "s s", "t", "doubled", axis=0),
    ]
    body = helper.make_graph(nodes, "body", inputs, outputs)
    made = helper.make_node("Loop", ["n", "", "x"], ["y"], name="growing", body=body)
    return model([made], [weight("n", np.int64(1000))], inputs=[value("x", (3,))])


def stacking_loop() -> ModelProto:
    """A Loop that keeps 4 MB of each of 40,000 trips."""
    inputs = [value("k", (), INT64), value("going", (), BOOL)]
    outputs = [value("still", (), BOOL), value("t", (1 << 20,))]
    nodes = [
        node("Identity", "going", "still", "id"),
        node("Cast", "k", "f", "cast", to=FLOAT),
        node("Add", "f big", "t", "sum"),
    ]
    body = helper.make_graph(nodes, "body", inputs, outputs)
    made = helper.make_node("Loop", ["n", ""], ["y"], name="stacking", body=body)
    given = [weight("n", np.int64(40_000)), weight("big", np.ones(1 << 20, np.float32))]
    return model([made], given, inputs=[])


def late(operator: str, kind: int = INT64, **attributes: Any) -> ModelProto:
    """A size that only the data decides."""
    made = [node(operator, "s", "big", "bomb", **attributes), node("ReduceMax", "big", "y", "most")]
    return model(made, inputs=[value("s", (2,), kind)])


def late_with_data(operator: str, rank: int = 2) -> ModelProto:
    return model(
        [node(operator, "x s", "big", "bomb"), node("ReduceMax", "big", "y", "most")],
        inputs=[value("x", (1,) * rank), value("s", (rank,), INT64)],
    )


def late_range() -> ModelProto:
    made = [node("Range", "zero s one", "big", "bomb"), node("ReduceMax", "big", "y", "most")]
    given = [weight("zero", np.int64(0)), weight("one", np.int64(1))]
    return model(made, given, inputs=[value("s", (), INT64)])


FAR = 1 << 40
INTEGERS = ("INT32", "INT64", "INT8", "UINT8")
ONES = np.ones((2, 3), np.float32)


def divisions() -> list[Case]:
    """Div and Mod by zero, of data and of constants."""
    found: list[Case] = []
    for operator in ("Div", "Mod"):
        for label in INTEGERS:
            kind = TensorProto.DataType.Value(label)
            found += [
                Case(
                    f"{operator} of {label} by zero",
                    lambda f, o=operator, k=kind: division(o, k),
                    "ExecutionError",
                    (f"{operator} 'y'", "by zero"),
                    division_feeds(kind),
                ),
            ]
        found.append(
            Case(
                f"{operator} of constants by zero",
                lambda f, o=operator: division(o, INT64, folded=True),
                "NetworkError",
                (f"{operator} 'y'", "by zero"),
                {},
            )
        )
    return found


INDEXING: tuple[tuple[str, Callable[[int], Any], Any, dict[str, Any]], ...] = (
    ("Gather", lambda b: [0, b], None, {}),
    ("GatherElements", lambda b: [[0, b, 1]], None, {"axis": 0}),
    ("GatherND", lambda b: [[b], [1]], None, {}),
    ("ScatterElements", lambda b: [[0, b, 1]], [[1, 2, 3]], {"axis": 0}),
    ("ScatterND", lambda b: [[b], [1]], [[1, 2, 3], [4, 5, 6]], {}),
)
"""Operator, indices with a bad one, updates, attributes."""


def lookups() -> list[Case]:
    """Indices outside their axis, of data and of constants."""
    found: list[Case] = []
    for operator, wrap, updates, more in INDEXING:
        for bad in (4, -5, FAR, -FAR):
            indices = wrap(bad)
            for folded in (False, True):
                found.append(
                    Case(
                        f"{operator} outside at {bad}{', constant' if folded else ''}",
                        lambda f, o=operator, i=indices, u=updates, m=more, c=folded: indexing(
                            o, i, updates=u, folded=c, **m
                        ),
                        "WorkbenchError" if folded else "ExecutionError",
                        (operator, str(bad)),
                        {} if folded else {"i": np.array(indices, np.int64)},
                    )
                )
    return found


STEPS = "20,000 iterations"
RUNS = (
    *divisions(),
    *lookups(),
    Case(
        "endless Loop",
        lambda f: endless_loop(folded=False),
        "ExecutionError",
        ("endless", STEPS, "max_loop_steps"),
        {"x": np.ones(3, np.float32)},
    ),
    Case(
        "endless Loop of constants",
        lambda f: endless_loop(folded=True),
        "ExecutionError",
        ("Loop 'y'", STEPS, "max_loop_steps"),
        {},
    ),
    Case(
        "loops within loops",
        lambda f: loops_within(4, 1000),
        "ExecutionError",
        ("outermost", STEPS),
        {"x": ONES},
    ),
    Case(
        "a Loop that grows",
        lambda f: growing_loop(),
        "ExecutionError",
        ("growing", "bytes"),
        {"x": np.ones(3, np.float32)},
    ),
    Case("a Loop that keeps all", lambda f: stacking_loop(), "ExecutionError", ("stacking",), {}),
    Case(
        "ConstantOfShape of data",
        lambda f: late("ConstantOfShape"),
        "ExecutionError",
        ("bomb", "17,592,186,044,416 bytes"),
        {"s": np.array([FAR, 4])},
    ),
    Case(
        "ConstantOfShape of negative data",
        lambda f: late("ConstantOfShape"),
        "ExecutionError",
        ("bomb", "-4"),
        {"s": np.array([2, -4])},
    ),
    Case(
        "Expand by data",
        lambda f: late_with_data("Expand"),
        "ExecutionError",
        ("bomb", "17,592,186,044,416 bytes"),
        {"x": np.ones((1, 1), np.float32), "s": np.array([FAR, 4])},
    ),
    Case(
        "Tile by data",
        lambda f: late_with_data("Tile"),
        "ExecutionError",
        ("bomb", "4,398,046,511,104 bytes"),
        {"x": np.ones((1, 1), np.float32), "s": np.array([1 << 20, 1 << 20])},
    ),
    Case(
        "Range of data",
        lambda f: late_range(),
        "ExecutionError",
        ("bomb", "8,796,093,022,208 bytes"),
        {"s": np.array(FAR)},
    ),
    Case(
        "strings that double",
        lambda f: string_doubling(60, run_time=True),
        "ExecutionError",
        ("double", "characters"),
        {"v0": np.array(["boom"], object)},
    ),
    Case(
        "constant strings that double",
        lambda f: string_doubling(60, run_time=False),
        "ExecutionError",
        ("double", "characters"),
        {},
    ),
)
"""Cases whose models import: what they do is only seen when they are built, or run."""
