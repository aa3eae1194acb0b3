"""How optimizing grows with the network: ``python benchmarks/optimize_scaling.py [--save FILE]``.

Networks of about 1,000, 3,000 and 10,000 ONNX nodes, of three kinds: ``vision`` (bottleneck blocks
with batch norm), ``language`` (transformer blocks, norms and GELU written out in single operators)
and ``wide`` (many short branches from one tensor). Each goes through
Fold and Fuse, checked as in every build, and its ledger is listed. One thread; processor time.
Exit status 1 if 10,000 nodes take longer than 20 s, or a node of the largest network more than
twice as long as one of the smallest.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from scaling import run

from workbench import fusions, passes
from workbench.onnx_parser import parse_model
from workbench.records import BuildLog, Stage, StageRecord
from workbench.reports.ledger import ledger_rows

SIZES = (1_000, 3_000, 10_000)
LIMIT_S = 20.0
LIMIT_GROWTH = 2.0
WIDTH = 16
HEADS = 2


class Graph:
    """An ONNX graph under construction, with weights of its own for every node."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []

    def weight(self, *shape: int) -> str:
        """A random weight."""
        return self.value(self.random.standard_normal(shape).astype(np.float32) / shape[-1] ** 0.5)

    def value(self, array: Any) -> str:
        """A constant."""
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def __call__(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def model(self, shape: tuple[Any, ...], *outputs: str) -> bytes:
        """The model of one input ``x``."""
        out = [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs]
        graph = helper.make_graph(
            self.nodes,
            "grown",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            out,
            self.weights,
        )
        opset = [helper.make_opsetid("", 20)]
        return helper.make_model(graph, opset_imports=opset).SerializeToString()


def vision(count: int) -> bytes:
    """Bottleneck blocks: 1x1, 3x3, 1x1, each with batch norm, ReLU; added to their input."""
    g, x = Graph(), "x"
    while len(g.nodes) < count - 10:
        y = x
        for kernel, act in ((1, True), (3, True), (1, False)):
            w = g.weight(WIDTH, WIDTH, kernel, kernel)
            y = g("Conv", y, w, pads=[kernel // 2] * 4)
            positive = g.value(0.5 + g.random.random(WIDTH).astype(np.float32))
            y = g("BatchNormalization", y, *(g.weight(WIDTH) for _ in range(3)), positive)
            y = g("Relu", y) if act else y
        x = g("Relu", g("Add", y, x))
    return g.model(("batch", WIDTH, 8, 8), x)


def linear(g: Graph, x: str, rows: int, columns: int) -> str:
    """A product with a weight, and its bias."""
    return g("Add", g("MatMul", x, g.weight(rows, columns)), g.weight(columns))


def normed(g: Graph, x: str) -> str:
    """Layer norm, written out."""
    last = g.value(np.array([-1], np.int64))
    centred = g("Sub", x, g("ReduceMean", x, last))
    variance = g("ReduceMean", g("Pow", centred, g.value(np.float32(2.0))), last)
    spread = g("Sqrt", g("Add", variance, g.value(np.float32(1e-5))))
    return g("Add", g("Mul", g("Div", centred, spread), g.weight(WIDTH)), g.weight(WIDTH))


def gelu(g: Graph, x: str) -> str:
    """GELU by erf, written out."""
    erf = g("Erf", g("Div", x, g.value(np.float32(2**0.5))))
    return g("Mul", g("Mul", x, g("Add", erf, g.value(np.float32(1)))), g.value(np.float32(0.5)))


def language(count: int) -> bytes:
    """Pre-norm transformer blocks with separate projections."""
    g, x = Graph(), "x"
    while len(g.nodes) < count - 25:
        y = normed(g, x)
        heads = g.value(np.array([0, 0, HEADS, WIDTH // HEADS], np.int64))
        q, k, v = (
            g("Transpose", g("Reshape", linear(g, y, WIDTH, WIDTH), heads), perm=(0, 2, *turned))
            for turned in ((1, 3), (3, 1), (1, 3))
        )
        scores = g("Mul", g("MatMul", q, k), g.value(np.float32(0.25)))
        y = g("Transpose", g("MatMul", g("Softmax", scores, axis=-1), v), perm=(0, 2, 1, 3))
        y = g("Reshape", y, g.value(np.array([0, 0, WIDTH], np.int64)))
        x = g("Add", x, linear(g, y, WIDTH, WIDTH))
        y = gelu(g, linear(g, normed(g, x), WIDTH, 2 * WIDTH))
        x = g("Add", x, linear(g, y, 2 * WIDTH, WIDTH))
    return g.model(("batch", "tokens", WIDTH), x)


def wide(count: int) -> bytes:
    """Short branches, all from one tensor, and none like the other in its epilogue's constants."""
    g = Graph()
    x, ends = g("Relu", "x"), list[str]()
    while len(g.nodes) < count - 5:
        y = linear(g, x, WIDTH, WIDTH)
        ends.append(g("Mul", g("Tanh", y), g.weight(WIDTH)))
    return g.model(("batch", WIDTH), *ends)


KINDS: dict[str, Callable[[int], bytes]] = {"vision": vision, "language": language, "wide": wide}


def measured(kind: str, count: int) -> dict[str, Any]:
    """One row: processor seconds of each part."""
    network = parse_model(KINDS[kind](count))
    nodes = len(network.model_nodes)
    marks = [time.process_time()]
    attempts = passes.fold(network)
    marks.append(time.process_time())
    attempts += fusions.fuse(network)
    marks.append(time.process_time())
    log = BuildLog("cpu", kind, (StageRecord(Stage.FUSE, 0.0, "", attempts),))
    rows = len(ledger_rows(log))
    marks.append(time.process_time())
    fold, fuse, listed = (round(b - a, 2) for a, b in itertools.pairwise(marks))
    return {
        "kind": kind,
        "nodes": nodes,
        "layers": network.num_layers,
        "applied": sum(a.applied for a in attempts),
        "ledger_rows": rows,
        "fold_s": fold,
        "fuse_s": fuse,
        "ledger_s": listed,
        "total_s": round(marks[-1] - marks[0], 2),
    }


def near_linear(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether no kind's time per node more than doubles from its smallest to its largest."""
    for kind in {r["kind"] for r in rows}:
        own = sorted((r["nodes"], r["total_s"]) for r in rows if r["kind"] == kind)
        (few, short), (many, long) = own[0], own[-1]
        if long / many > LIMIT_GROWTH * short / few:
            return False
    return True


def main() -> int:
    """Exit status: 1 if a limit is broken."""
    rows, save = run(measured, KINDS, SIZES, about=__doc__)
    save({})
    return int(any(r["total_s"] > LIMIT_S for r in rows) or not near_linear(rows))


if __name__ == "__main__":
    sys.exit(main())
