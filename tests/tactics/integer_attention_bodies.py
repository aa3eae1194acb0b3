"""Bodies of INT8 attention in the forms that fusions give them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tactic_bodies import FLOAT, INT8, UINT8, Draft

from workbench.body import Array, Body
from workbench.checks import sample_inputs
from workbench.datatypes import DataType
from workbench.devices import CpuDevice
from workbench.tactics.protocol import Problem


@dataclass(frozen=True)
class Sizes:
    """Of one attention: batch, heads, queries, keys, elements of a query, of a value."""

    batch: int = 2
    heads: int = 3
    queries: int = 7
    keys: int = 7
    depth: int = 8
    width: int = 8


class Integers:
    """A Draft with scales whose values are known. ``values`` has those of all constants."""

    def __init__(self) -> None:
        self.draft = Draft()
        self.values: dict[str, Array] = {}

    def scale(self, value: float, dtype: DataType) -> tuple[str, str]:
        """A scale and a zero point of 0."""
        s, z = self.draft.weight(), self.draft.weight(dtype=dtype)
        self.values[s], self.values[z] = np.array(value, np.float32), np.zeros((), dtype.numpy)
        return s, z

    def stored(self, x: str, value: float, dtype: DataType = INT8) -> str:
        """A float quantized and dequantized by one scale."""
        pair = self.scale(value, dtype)
        return self.draft(
            "DequantizeLinear", self.draft("QuantizeLinear", x, *pair, output_dtype=dtype), *pair
        )

    def read(self, x: str, value: float) -> str:
        """A stored INT8 tensor, dequantized."""
        return self.draft("DequantizeLinear", x, *self.scale(value, INT8))

    def problem(
        self, body: Body, *, seed: int = 0, threads: int = 1
    ) -> tuple[Problem, dict[str, Array], dict[str, Array]]:
        """The CPU's problem, its dynamic inputs, and all inputs."""
        values = sample_inputs(body, seed=seed, constants=self.values)
        constants = {i.name: values[i.name] for i in body.inputs if i.constant}
        dynamic = {i.name: values[i.name] for i in body.inputs if not i.constant}
        return Problem(body, constants, CpuDevice(threads), threads), dynamic, values


def apart(
    sizes: Sizes = Sizes(),
    *,
    mask: tuple[int, ...] = (),
    result: DataType = FLOAT,
    probabilities: DataType = INT8,
) -> tuple[Integers, Body]:
    """Stored queries, keys and values with heads apart. mask: shape of what is added, if any."""
    n = Integers()
    d = n.draft
    q = d.input(sizes.batch, sizes.heads, sizes.queries, sizes.depth, dtype=INT8)
    k = d.input(sizes.batch, sizes.heads, sizes.keys, sizes.depth, dtype=INT8)
    v = d.input(sizes.batch, sizes.heads, sizes.keys, sizes.width, dtype=INT8)
    turned = d("Transpose", k, perm=(0, 1, 3, 2))
    scores = d("MatMul", n.read(q, 0.02), n.read(turned, 0.01))
    if mask:
        scores = d("Add", scores, d.input(*mask))
    p = d.anchored("Softmax", scores, axis=-1)
    y = d("MatMul", n.stored(p, 1 / probabilities.info.high, probabilities), n.read(v, 0.03))
    if result is not FLOAT:
        y = d("QuantizeLinear", y, *n.scale(0.02, result), output_dtype=result)
    return n, d.body(y)


def merged(sizes: Sizes = Sizes(), result: DataType = INT8) -> tuple[Integers, Body]:
    """One float tensor of all three, as an exporter splits, scales and quantizes it."""
    n = Integers()
    d = n.draft
    tokens, inner = sizes.queries, sizes.heads * sizes.depth
    x = d.input(sizes.batch, tokens, 3 * inner)
    whole = d.literal([sizes.batch, tokens, 3, sizes.heads, sizes.depth], "int64")
    x = d("Transpose", d("Reshape", x, whole), perm=(2, 0, 3, 1, 4))
    parts: list[str] = []
    for k in range(3):
        bounds = (d.literal([v], "int64") for v in (k, k + 1, 0))
        parts.append(d("Squeeze", d("Slice", x, *bounds), d.literal([0], "int64")))
    root = d.literal(0.6)
    turned = d("Transpose", parts[1], perm=(0, 1, 3, 2))
    q, k = n.stored(d("Mul", parts[0], root), 0.02), n.stored(d("Mul", turned, root), 0.02)
    p = d.anchored("Softmax", d("MatMul", q, k), axis=-1)
    y = d("MatMul", n.stored(p, 1 / 127), n.stored(parts[2], 0.025))
    y = d("Transpose", y, perm=(0, 2, 1, 3))
    y = d("Reshape", y, d.literal([sizes.batch, tokens, inner], "int64"))
    if result is not FLOAT:
        y = d("QuantizeLinear", y, *n.scale(0.01, result), output_dtype=result)
    return n, d.body(y)


INTEGER_ATTENTIONS = {
    "apart": lambda: apart(),
    "unsigned_probabilities": lambda: apart(probabilities=UINT8),
    "a_row_of_masks": lambda: apart(Sizes(keys=37), mask=(2, 1, 1, 37), result=INT8),
    "a_mask_a_query": lambda: apart(Sizes(queries=5), mask=(2, 1, 5, 1)),
    "odd_sizes": lambda: apart(Sizes(1, 2, 13, 67, 65, 33), mask=(13, 67), result=INT8),
    "one_of_each": lambda: apart(Sizes(1, 1, 1, 1, 1, 1)),
    "one_query": lambda: apart(Sizes(1, 2, 1, 130, 64, 64), result=UINT8),
    "merged": lambda: merged(),
    "merged_long": lambda: merged(Sizes(1, 2, 150, 150, 16, 16)),
    "merged_float_result": lambda: merged(result=FLOAT),
}
