"""Bodies of concatenations with computed parts, at any batch size."""

from __future__ import annotations

from collections.abc import Callable

from tactic_bodies import BF16, FLOAT, Draft

from workbench.body import Body
from workbench.datatypes import DataType


def rotary(dtype: DataType = FLOAT) -> Callable[[int], Body]:
    """Heads split off and turned, halves swapped, both multiplied by a row a token."""

    def make(batch: int) -> Body:
        d = Draft()
        x = d("Reshape", d.input(batch, 5, 24, dtype=dtype), d.literal([batch, 5, 3, 8], "int64"))
        x = d("Transpose", x, perm=(0, 2, 1, 3))
        low, high = d.many("Split", x, d.literal([4, 4], "int64"), outputs=2, axis=-1)
        turned = d.anchored("Concat", d("Neg", high), low, axis=-1)
        cos, sin = (d.input(5, 8, dtype=dtype) for _ in range(2))
        return d.body(d("Add", d("Mul", x, cos), d("Mul", turned, sin)))

    return make


def dense(batch: int) -> Body:
    """Channels joined, then scaled, shifted and bent; one part is computed."""
    d = Draft()
    parts = [d.input(batch, n, 4, 4) for n in (3, 5, 1)]
    y = d.anchored("Concat", parts[0], d("Relu", parts[1]), parts[2], axis=1)
    return d.body(d("Relu", d("Add", d("Mul", y, d.weight(9, 1, 1)), d.weight(9, 1, 1))))


def kept_keys(batch: int) -> Body:
    """New keys, scaled, behind those that are kept; also an empty part."""
    d = Draft()
    new = d("Transpose", d.input(batch, 2, 3, 4), perm=(0, 2, 1, 3))
    new = d("Mul", new, d.literal(0.5))
    return d.body(
        d.anchored("Concat", d.input(batch, 3, 6, 4), d.input(batch, 3, 0, 4), new, axis=2)
    )


JOINS: dict[str, Callable[[int], Body]] = {
    "join_rotary": rotary(),
    "join_rotary_bf16": rotary(BF16),
    "join_dense": dense,
    "join_kept_keys": kept_keys,
}
