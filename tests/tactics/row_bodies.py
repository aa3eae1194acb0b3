"""Bodies of row operators with pointwise layers before and after, at any batch size."""

from __future__ import annotations

from collections.abc import Callable

from tactic_bodies import BF16, FLOAT, INT8, INT32, INT64, Draft

from workbench.body import Body
from workbench.tactics.numba.rows import REDUCTIONS


def masked_softmax(batch: int) -> Body:
    """Scale, mask and softmax; the result quantized."""
    d = Draft()
    x, mask = d.input(batch, 3, 5, 33), d.input(batch, 1, 1, 33)
    y = d("Add", d("Mul", x, d.literal(0.3)), mask)
    y = d.anchored("Softmax", y, axis=-1)
    return d.body(d("QuantizeLinear", y, d.weight(), d.weight(dtype=INT8)))


def residual_norm(batch: int) -> Body:
    """A residual sum that is written too, its layer norm, and an activation of that."""
    d = Draft()
    total = d("Add", d.input(batch, 5, 40), d.input(batch, 5, 40))
    y = d.anchored("LayerNormalization", total, d.weight(40), d.weight(40), axis=-1)
    return d.body(total, d("Gelu", y))


def rms_norm_bf16(batch: int) -> Body:
    d = Draft()
    x = d.input(batch, 5, 24, dtype=BF16)
    y = d.anchored("RMSNormalization", d("Tanh", x), d.weight(24, dtype=BF16), axis=-1)
    return d.body(d("Mul", y, d.input(batch, 5, 1, dtype=BF16)))


def reduction(op: str, *, keepdims: int) -> Callable[[int], Body]:
    """|x + c| a channel, reduced over two axes, then combined with one number a row."""

    def make(batch: int) -> Body:
        d = Draft()
        x = d("Abs", d("Add", d.input(batch, 6, 4, 5), d.weight(6, 1, 1)))
        y = d.anchored(op, x, d.literal([2, 3], "int64"), keepdims=keepdims)
        tail = (1, 1) if keepdims else ()
        y = d("Mul", y, d.weight(6, *tail))
        return d.body(d("Sigmoid", d("Add", y, d.input(batch, 6, *tail))))

    return make


def reduction_alone(op: str) -> Callable[[int], Body]:
    def make(batch: int) -> Body:
        d = Draft()
        return d.body(d.anchored(op, d.input(batch, 17), d.literal([1], "int64")))

    return make


def reduction_compared(batch: int) -> Body:
    """Whether a row holds nothing but minus infinity."""
    d = Draft()
    top = d.anchored("ReduceMax", d.input(batch, 4, 9), d.literal([2], "int64"))
    return d.body(d("Equal", top, d.literal(float("-inf"))))


def embedding(batch: int) -> Body:
    """Words, positions and segments looked up and summed; the sum is written too."""
    d = Draft()
    words = d("Gather", d.weight(11, 24), d.input(batch, 5, dtype=INT64))
    places = d("Gather", d.weight(7, 24), d.weight(1, 5, dtype=INT64))
    kinds = d("Gather", d.weight(2, 24), d.input(batch, 5, dtype=INT32))
    total = d("Add", d("Add", words, places), kinds)
    y = d.anchored("LayerNormalization", total, d.weight(24), d.weight(24), axis=-1)
    return d.body(total, y)


def looked_up_twice(batch: int) -> Body:
    """One index, two tables of different lengths."""
    d = Draft()
    index = d.input(batch, dtype=INT64)
    a, b = d("Gather", d.weight(9, 8), index), d("Gather", d.weight(4, 8, dtype=BF16), index)
    total = d("Add", a, d("Cast", b, to=FLOAT))
    return d.body(d.anchored("RMSNormalization", total, d.weight(8), axis=-1))


ROWS: dict[str, Callable[[int], Body]] = {
    "row_masked_softmax": masked_softmax,
    "row_residual_norm": residual_norm,
    "row_rms_norm_bf16": rms_norm_bf16,
    "row_embedding": embedding,
    "row_looked_up_twice": looked_up_twice,
    "row_reduction_compared": reduction_compared,
    **{f"row_{op}_kept": reduction(op, keepdims=1) for op in REDUCTIONS},
    **{f"row_{op}_dropped": reduction(op, keepdims=0) for op in REDUCTIONS},
    **{f"row_{op}": reduction_alone(op) for op in REDUCTIONS},
}
