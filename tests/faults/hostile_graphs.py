"""Models whose structure, or what they declare, means harm."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from hostile_parts import (
    BOOL,
    FLOAT,
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
    GraphProto,
    ModelProto,
    NodeProto,
    SparseTensorProto,
    TensorProto,
    helper,
)


def nested_ifs(depth: int, *, last: NodeProto | None = None) -> GraphProto:
    """If in If in If..."""
    inner = last or node("Relu", "x", "r0", "innermost")
    graph = helper.make_graph([inner], "g0", [], [untyped(inner.output[0])])
    for k in range(1, depth + 1):
        other = node("Neg", "x", f"e{k}", f"else{k}")
        plain = helper.make_graph([other], f"h{k}", [], [untyped(f"e{k}")])
        made = node("If", "c", f"r{k}", f"if{k}", then_branch=graph, else_branch=plain)
        graph = helper.make_graph([made], f"g{k}", [], [untyped(f"r{k}")])
    return graph


def deep_message(folder: Path) -> bytes:
    """Graphs inside graphs, 20,000 deep, written as bytes: no library would make it."""

    def field_of(number: int, data: bytes) -> bytes:
        size, length = len(data), b""
        while True:
            length += bytes([size & 127 | (128 if size > 127 else 0)])
            size >>= 7
            if not size:
                break
        return bytes([number << 3 | 2]) + length + data

    graph = b""
    for _ in range(20_000):
        attribute = field_of(6, graph)  # AttributeProto.g
        graph = field_of(1, field_of(5, attribute))  # GraphProto.node, NodeProto.attribute
    return b"\x08\x0a" + field_of(7, graph) + field_of(8, b"\x10\x15")


def loop_in_loop(depth: int) -> ModelProto:
    """Loops whose carried value changes its rank at every level, so that types never settle."""

    def body(level: int) -> GraphProto:
        inputs = [value(f"i{level}", (), INT64), value(f"c{level}", (), BOOL), untyped(f"s{level}")]
        nodes = []
        state = f"s{level}"
        if level:
            inner = node("Loop", f"n c {state}", f"t{level}", f"loop{level}", body=body(level - 1))
            nodes, state = [inner], f"t{level}"
        nodes += [
            node("Unsqueeze", f"{state} zero", f"u{level}", f"wider{level}"),
            node("Identity", f"c{level}", f"d{level}", f"go{level}"),
        ]
        outputs = [value(f"d{level}", (), BOOL), untyped(f"u{level}")]
        return helper.make_graph(nodes, f"body{level}", inputs, outputs)

    outer = node("Loop", "n c x", "y", "outermost", body=body(depth))
    weights = [weight("n", np.int64(2)), weight("zero", np.array([0], np.int64))]
    return model([outer], weights, inputs=[value("x"), value("c", (), BOOL)])


def functions(depth: int, *, calls: int = 2) -> ModelProto:
    """f1 calls f0 twice, f2 calls f1 twice...: 2**depth nodes from a small file."""
    opset = [helper.make_opsetid("", 21), helper.make_opsetid("f", 1)]
    made = [
        helper.make_function(
            "f", "f0", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], opset
        )
    ]
    for k in range(1, depth + 1):
        names = ["a", *(f"t{i}" for i in range(calls - 1)), "b"]
        nodes = [helper.make_node(f"f{k - 1}", [p], [q], domain="f") for p, q in pairwise(names)]
        made.append(helper.make_function("f", f"f{k}", ["a"], ["b"], nodes, opset))
    call = helper.make_node(f"f{depth}", ["x"], ["y"], name="call", domain="f")
    return model([call], functions=made, opset_imports=opset[1:])


def ring_of_functions() -> ModelProto:
    opset = [helper.make_opsetid("", 21), helper.make_opsetid("f", 1)]
    made = [
        helper.make_function(
            "f", a, ["a"], ["b"], [helper.make_node(b, ["a"], ["b"], domain="f")], opset
        )
        for a, b in (("one", "two"), ("two", "one"))
    ]
    call = helper.make_node("one", ["x"], ["y"], name="call", domain="f")
    return model([call], functions=made, opset_imports=opset[1:])


def if_model(depth: int) -> ModelProto:
    graph = nested_ifs(depth)
    inputs = [value("x"), value("c", (), BOOL)]
    return model([*graph.node, node("Identity", f"r{depth}", "y")], inputs=inputs)


def captured_cycle() -> ModelProto:
    """An If whose branch reads the If's own result."""
    branch = helper.make_graph([node("Relu", "y", "b", "inside")], "branch", [], [untyped("b")])
    made = node("If", "c", "y", "the_if", then_branch=branch, else_branch=branch)
    return model([made], inputs=[value("x"), value("c", (), BOOL)])


STRUCTURE = (
    Case("deep message", deep_message, "ParserError", ("bytes",)),
    Case("functions that double", lambda f: functions(60), "ParserError", ("call", "nodes")),
    Case(
        "functions that grow a thousandfold",
        lambda f: functions(4, calls=1000),
        "ParserError",
        ("call", "nodes"),
    ),
    Case("functions in a ring", lambda f: ring_of_functions(), "ParserError", ("one", "itself")),
    Case("a branch reads its own If", lambda f: captured_cycle(), "ParserError", ("the_if",)),
    Case(
        "a cycle",
        lambda f: model(
            [node("Add", "x b", "a", "add"), node("Relu", "a", "b", "relu")], outputs=[untyped("b")]
        ),
        "ParserError",
        ("'add' -> 'relu' -> 'add'",),
    ),
    Case(
        "one name for two results",
        lambda f: model([node("Relu", "x", "y", "one"), node("Neg", "x", "y", "two")]),
        "ParserError",
        ("one", "two", "'y'"),
    ),
    Case(
        "one node with one result twice",
        lambda f: model([node("Split", "x", "y y", "split", axis=1, num_outputs=2)]),
        "ParserError",
        ("split", "'y'"),
    ),
    Case(
        "one name for two weights",
        lambda f: model([node("Add", "x w", "y")], [weight("w", np.ones(3, np.float32))] * 2),
        "ParserError",
        ("'w'",),
    ),
)


# -- lies ---------------------------------------------------------------------------------
def stored(dims: Sequence[int], data: bytes = b"", kind: int = FLOAT) -> ModelProto:
    w = TensorProto(name="w", data_type=kind, dims=dims, raw_data=data)
    return model([node("Add", "x w", "y")], [w])


def sparse(dims: Sequence[int], indices: Any, values: Any = (1.0,)) -> ModelProto:
    made = model([node("Add", "x w", "y")])
    tensor = SparseTensorProto(
        values=weight("w", np.array(values, np.float32)),
        indices=weight("w_places", np.array(indices, np.int64)),
        dims=dims,
    )
    made.graph.sparse_initializer.append(tensor)
    return made


def declared_output(shape: Any, kind: int = FLOAT) -> ModelProto:
    return model([node("Relu", "x", "y")], outputs=[value("y", shape, kind)])


LIES = (
    Case("too few bytes", lambda f: stored((2, 3), bytes(20)), "ParserError", ("'w'", "20 bytes")),
    Case("no bytes", lambda f: stored((HUGE, 4)), "ParserError", ("'w'", "0 bytes")),
    Case("negative size", lambda f: stored((-2, 3)), "ParserError", ("'w'", "-2")),
    Case(
        "an empty tensor of huge sizes",
        lambda f: stored((0, 2**62, 2**62)),
        "ParserError",
        ("'w'",),
    ),
    Case("100 axes", lambda f: stored((1,) * 100, bytes(4)), "ParserError", ("'w'", "100")),
    Case("element type 99", lambda f: stored((2, 3), bytes(24), 99), "ParserError", ("'w'", "99")),
    Case("output of another shape", lambda f: declared_output((3, 3)), "ParserError", ("'y'",)),
    Case(
        "output of another type",
        lambda f: declared_output((2, 3), INT64),
        "ParserError",
        ("'y'", "INT64"),
    ),
    Case("sparse tensor of huge size", lambda f: sparse((HUGE,), [5]), "ParserError", ("'w'",)),
    Case(
        "sparse tensor of huge sizes",
        lambda f: sparse((2**62, 2**62), [[5, 5]]),
        "ParserError",
        ("'w'",),
    ),
    Case("sparse index out of range", lambda f: sparse((2, 3), [6]), "ParserError", ("'w'",)),
    Case(
        "input of 100 axes",
        lambda f: model([node("Relu", "x", "y")], inputs=[value("x", (1,) * 100)]),
        "ParserError",
        ("'x'", "100"),
    ),
    Case("scale of zero", lambda f: quantized(0.0), "ParserError", ("quantize", "'s' is 0")),
    Case(
        "scale that is no number",
        lambda f: quantized(float("nan")),
        "ParserError",
        ("quantize", "'s' is nan"),
    ),
    Case("infinite scale", lambda f: quantized(float("inf")), "ParserError", ("'s' is inf",)),
    Case(
        "input of huge sizes",
        lambda f: model([node("Size", "x", "y")], inputs=[value("x", (2**62, 2**62))]),
        "ParserError",
        ("'x'",),
    ),
)


def quantized(scale: float) -> ModelProto:
    """A scale by which nothing can be divided."""
    given = [weight("s", np.float32(scale)), weight("z", np.int8(0))]
    made = [
        node("QuantizeLinear", "x s z", "q", "quantize"),
        node("DequantizeLinear", "q s z", "y", "dequantize"),
    ]
    return model(made, given)
