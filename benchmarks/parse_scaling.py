"""How importing grows with the model: ``python benchmarks/parse_scaling.py [--save FILE]``.

Models of about 1,000, 3,000 and 10,000 ONNX nodes of three kinds: ``vision`` (bottleneck blocks:
convolution, batch norm, ReLU, add), ``language`` (transformer blocks, norms and GELU written out)
and ``mixed`` (first the one, then blocks of product, LayerNormalization and reshapes whose sizes
the graph computes, as exporters write them). Each is parsed and verified. One core; processor time,
the best of five. growth: e where the time grows as nodes**e, from the smallest to the largest.
Exit status 1 if 10,000 nodes take 5 s or longer, or a kind's exponent is above 1.15.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from optimize_scaling import WIDTH, Graph, language, linear, vision
from scaling import run

from workbench.onnx_parser import parse_model

SIZES = (1_000, 3_000, 10_000)
LIMIT_S = 5.0
LIMIT_GROWTH = 1.15
REPEATS = 5


def mixed(count: int) -> bytes:
    """Half the nodes are convolution blocks, half transformer blocks with computed sizes."""
    g, x = Graph(), "x"
    while len(g.nodes) < count // 2:
        w = g.weight(WIDTH, WIDTH, 3, 3)
        y = g("Conv", x, w, pads=[1] * 4)
        positive = g.value(0.5 + g.random.random(WIDTH).astype(np.float32))
        y = g("BatchNormalization", y, *(g.weight(WIDTH) for _ in range(3)), positive)
        x = g("Relu", g("Add", y, x))
    x = g("Transpose", g("Reshape", x, g.value(np.array([0, WIDTH, -1]))), perm=(0, 2, 1))
    zero, one = g.value(np.array([0])), g.value(np.array([1]))
    while len(g.nodes) < count - 14:
        y = g("LayerNormalization", x, g.weight(WIDTH), g.weight(WIDTH))
        shape = g("Shape", y)
        sizes = [g("Gather", shape, k) for k in (zero, one)]
        split = g("Concat", *sizes, g.value(np.array([2, WIDTH // 2])), axis=0)
        y = g("Transpose", g("Reshape", linear(g, y, WIDTH, WIDTH), split), perm=(0, 2, 1, 3))
        y = g("Transpose", g("Softmax", y), perm=(0, 2, 1, 3))
        whole = g("Concat", *sizes, g.value(np.array([WIDTH])), axis=0)
        x = g("Add", g("Reshape", y, whole), x)
    return g.model(("batch", WIDTH, 8, 8), x)


KINDS: dict[str, Callable[[int], bytes]] = {
    "vision": vision,
    "language": language,
    "mixed": mixed,
}


def measured(kind: str, count: int, *, repeats: int = REPEATS) -> dict[str, Any]:
    """One row: processor seconds to parse and to verify."""
    model = KINDS[kind](count)
    best = (math.inf, math.inf)
    nodes = layers = 0
    for _ in range(repeats):
        start = time.process_time()
        network = parse_model(model)
        parsed = time.process_time()
        network.verify()
        best = min(best, (parsed - start, time.process_time() - parsed), key=sum)
        nodes, layers = len(network.model_nodes), network.num_layers
    return {
        "kind": kind,
        "nodes": nodes,
        "layers": layers,
        "parse_s": round(best[0], 3),
        "verify_s": round(best[1], 3),
        "total_s": round(sum(best), 3),
    }


def growth(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Each kind's exponent."""
    found: dict[str, float] = {}
    for kind in dict.fromkeys(r["kind"] for r in rows):
        own = sorted((r["nodes"], r["total_s"]) for r in rows if r["kind"] == kind)
        (few, short), (many, long) = own[0], own[-1]
        if many > few:
            found[kind] = round(math.log(long / short) / math.log(many / few), 3)
    return found


def main() -> int:
    """Exit status: 1 if a limit is broken."""
    rows, save = run(measured, KINDS, SIZES, about=__doc__)
    exponents = growth(rows)
    print("growth", exponents)
    save({"limit_s": LIMIT_S, "limit_growth": LIMIT_GROWTH, "growth": exponents})
    slow = any(r["total_s"] >= LIMIT_S for r in rows)
    return int(slow or any(e > LIMIT_GROWTH for e in exponents.values()))


if __name__ == "__main__":
    sys.exit(main())
