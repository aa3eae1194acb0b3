"""Bodies of attention in the forms that fusions give them, at any batch size."""

from __future__ import annotations

from collections.abc import Callable

from tactic_bodies import BF16, BOOL, FLOAT, HALF, INT8, Draft

from workbench.body import Body
from workbench.datatypes import DataType


def heads(d: Draft, x: str, *shape: int, turned: bool = False) -> str:
    """[batch, tokens, heads·size] as [batch, heads, tokens, size], or its last axes turned."""
    apart = d("Reshape", x, d.literal(shape, "int64"))
    return d("Transpose", apart, perm=(0, 2, 3, 1) if turned else (0, 2, 1, 3))


def merged(tokens: int = 7, size: int = 8, dtype: DataType = FLOAT) -> Callable[[int], Body]:
    """Queries, keys and values from one wide product; the result's heads side by side."""

    def make(batch: int) -> Body:
        d, count = Draft(), 3
        width = count * size
        x = d.input(batch, tokens, 3 * width, dtype=dtype)
        split = d.literal([width] * 3, "int64")
        q, k, v = d.many("Split", x, split, outputs=3, axis=-1)
        shape = (batch, tokens, count, size)
        scores = d("MatMul", heads(d, q, *shape), heads(d, k, *shape, turned=True))
        y = d("MatMul", d.anchored("Softmax", scores, axis=-1), heads(d, v, *shape))
        rows = d("Transpose", y, perm=(0, 2, 1, 3))
        return d.body(d("Reshape", rows, d.literal([batch, tokens, width], "int64")))

    return make


def quantized(dtype: DataType = FLOAT, kind: DataType = INT8) -> Callable[[int], Body]:
    """Heads side by side, then quantized: with a zero point where they are INT8."""

    def make(batch: int) -> Body:
        d, tokens, count, size = Draft(), 11, 2, 8
        shape = (batch, tokens, count, size)
        q, k, v = (
            heads(d, d.input(batch, tokens, count * size, dtype=dtype), *shape, turned=t)
            for t in (False, True, False)
        )
        y = d("MatMul", d.anchored("Softmax", d("MatMul", q, k), axis=-1), v)
        rows = d("Transpose", y, perm=(0, 2, 1, 3))
        rows = d("Reshape", rows, d.literal([batch, tokens, count * size], "int64"))
        if kind is INT8:
            return d.body(d.quantize(rows))
        return d.body(d("QuantizeLinear", rows, d.weight(), output_dtype=kind))

    return make


def crossed(dtype: DataType = FLOAT, queries: int = 9, keys: int = 37) -> Callable[[int], Body]:
    """Fewer queries than keys, scales of both, a mask for each key; values of another size."""

    def make(batch: int) -> Body:
        d = Draft()
        q = d.input(batch, 2, queries, 5, dtype=dtype)
        k = d.input(batch, 2, keys, 5, dtype=dtype)
        v = d.input(batch, 2, keys, 19, dtype=dtype)
        root = d.literal(0.7, dtype.numpy.name)
        turned = d("Transpose", k, perm=(0, 1, 3, 2))
        scores = d("MatMul", d("Mul", q, root), d("Mul", turned, root))
        mask = d.input(batch, 1, 1, keys, dtype=dtype)
        p = d.anchored("Softmax", d("Add", scores, mask), axis=-1)
        return d.body(d("MatMul", p, v))

    return make


def masked(batch: int) -> Body:
    """A condition a pair of tokens before the softmax, and rows put out after it."""
    d = Draft()
    q, k, v = d.input(batch, 2, 6, 4), d.input(batch, 2, 4, 6), d.input(batch, 2, 6, 4)
    seen, dark = d.input(batch, 1, 6, 6, dtype=BOOL), d.input(batch, 1, 6, 1, dtype=BOOL)
    scores = d("Where", seen, d("MatMul", q, k), d.literal(-1e4))
    p = d.anchored("Softmax", scores, axis=-1)
    return d.body(d("MatMul", d("Where", dark, d.literal(0.0), p), v))


def grouped(batch: int) -> Body:
    """Four query heads share two of keys and values; a soft cap on the scores."""
    d = Draft()
    q = heads(d, d.input(batch, 6, 16), batch, 6, 4, 4)
    shared: list[str] = []
    for _ in range(2):
        x = heads(d, d.input(batch, 6, 8), batch, 6, 2, 4)
        x = d("Unsqueeze", x, d.literal([2], "int64"))
        x = d("Expand", x, d.literal([batch, 2, 2, 6, 4], "int64"))
        shared.append(d("Reshape", x, d.literal([batch, 4, 6, 4], "int64")))
    scores = d("MatMul", q, d("Transpose", shared[0], perm=(0, 1, 3, 2)))
    cap = d.literal(5.0)
    scores = d("Mul", d("Tanh", d("Div", scores, cap)), cap)
    return d.body(d("MatMul", d.anchored("Softmax", scores, axis=-1), shared[1]))


def folded(batch: int) -> Body:
    """Batch and heads as one axis, as older exporters write it; a mask shared by all."""
    d = Draft()
    q, k, v = (d.input(3 * batch, 5, 8) for _ in range(3))
    scores = d("MatMul", q, d("Transpose", k, perm=(0, 2, 1)))
    p = d.anchored("Softmax", d("Add", scores, d.weight(5, 5)), axis=-1)
    return d.body(d("MatMul", p, v))


def single(batch: int) -> Body:
    """One query, one head, no batch: the least there is."""
    d = Draft()
    q, k, v = d.input(1, 4), d.input(4, batch), d.input(batch, 1)
    return d.body(d("MatMul", d.anchored("Softmax", d("MatMul", q, k), axis=-1), v))


def stacked(batch: int) -> Body:
    """Queries, keys and values stacked on the first axis; rows that are all masked are zeros."""
    d = Draft()
    x = d("Reshape", d.input(batch, 6, 24), d.literal([batch, 6, 3, 2, 4], "int64"))
    x = d("Transpose", x, perm=(2, 0, 3, 1, 4))
    parts: list[str] = []
    for k in range(3):
        bounds = (d.literal([v], "int64") for v in (k, k + 1, 0))
        parts.append(d("Squeeze", d("Slice", x, *bounds), d.literal([0], "int64")))
    turned = d("Transpose", parts[1], perm=(0, 1, 3, 2))
    p = d.anchored("Softmax", d("MatMul", parts[0], turned), axis=-1)
    p = d("Where", d("IsNaN", p), d.literal(0.0), p)
    return d.body(d("MatMul", p, parts[2]))


ATTENTIONS: dict[str, Callable[[int], Body]] = {
    "attention_merged": merged(),
    "attention_merged_long": merged(tokens=150, size=16),
    "attention_merged_bf16": merged(dtype=BF16),
    "attention_crossed": crossed(),
    "attention_crossed_half": crossed(HALF),
    "attention_masked": masked,
    "attention_grouped": grouped,
    "attention_folded": folded,
    "attention_stacked": stacked,
    "attention_single": single,
    "attention_quantized": quantized(),
    "attention_quantized_half": quantized(HALF, DataType.UINT8),
}
