"""A Body for each operator that generated GPU kernels compute by loops, tables or several steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tactic_bodies import BOOL, FLOAT, HALF, INT32, INT64, Draft

from workbench.body import Body
from workbench.datatypes import DataType

INT4, UINT4, UINT8 = DataType.INT4, DataType.UINT4, DataType.UINT8


def one(op: str, *shapes: Any, outputs: int = 1, **attributes: Any) -> Callable[[], Body]:
    """A Body of one node. shapes: of float inputs, (shape, type), or a literal's numbers."""

    def body() -> Body:
        d = Draft()
        names: list[str] = []
        for given in shapes:
            match given:
                case None:
                    names.append("")
                case list():
                    whole = all(isinstance(v, int) for v in given)
                    names.append(d.literal(given, "int64" if whole else "float32"))
                case int():
                    names.append(d.literal(given, "int64"))
                case (tuple() as shape, DataType() as kind):
                    names.append(d.input(*shape, dtype=kind))
                case _:
                    names.append(d.input(*given))
        d.anchor = len(d.nodes)
        made = d.many(op, *names, outputs=outputs, **attributes)
        return d.body(*made)

    return body


def followed(op: str, *shapes: Any, **attributes: Any) -> Callable[[], Body]:
    """The same with a ReLU behind and a doubling before its first input."""

    def body() -> Body:
        d = Draft()
        names = [d.input(*s) if isinstance(s, tuple) else d.literal(s, "int64") for s in shapes]
        names[0] = d("Add", names[0], names[0])
        return d.body(d("Relu", d.anchored(op, *names, **attributes)))

    return body


def int4_product(kind: DataType, stored: DataType, block: int) -> Callable[[], Body]:
    """MatMul of three rows with a 4-bit matrix of 64 x 12, quantized in blocks, or by column."""

    def body() -> Body:
        d = Draft()
        x, w = d.input(3, 64, dtype=kind), d.weight(64, 12, dtype=stored)
        shape = (64 // block, 12) if block else (12,)
        scale, zero = d.weight(*shape, dtype=kind), d.weight(*shape, dtype=stored)
        axis = 0 if block else 1
        wide = d("DequantizeLinear", w, scale, zero, axis=axis, block_size=block)
        y = d.anchored("MatMul", x, wide)
        return d.body(d("Relu", d("Add", y, d.weight(12, dtype=kind))))

    return body


_INDICES = ((4, 3), INT64)
_STEPS, _BATCH, _WIDTH, _HIDDEN = 4, 2, 3, 5


def _recurrent(op: str, gates: int, states: int, **attributes: Any) -> Callable[[], Body]:
    directions = 1 + (attributes.get("direction") == "bidirectional")
    wide = gates * _HIDDEN
    state = (directions, _BATCH, _HIDDEN)
    shapes = [
        (_STEPS, _BATCH, _WIDTH),
        (directions, wide, _WIDTH),
        (directions, wide, _HIDDEN),
        (directions, 2 * wide),
        None,
        *(state for _ in range(states)),
    ]
    return one(op, *shapes, outputs=1 + states, hidden_size=_HIDDEN, **attributes)


OPERATORS: dict[str, Callable[[], Body]] = {
    "arg_max": one("ArgMax", (3, 7, 4), axis=1),
    "arg_min_last": one("ArgMin", (3, 40), axis=1, select_last_index=1, keepdims=0),
    "top_k": one("TopK", (3, 9), [4], outputs=2, axis=1),
    "top_k_smallest": one("TopK", ((5, 4), INT32), [2], outputs=2, axis=0, largest=0),
    "cumulative_sum": one("CumSum", (3, 5), 1),
    "cumulative_sum_of_a_long_line": one("CumSum", (1000,), 0, reverse=1, exclusive=1),
    "cumulative_product": one("CumProd", (3, 5), 0, exclusive=1),
    "scatter_elements": one("ScatterElements", (6, 3), _INDICES, (4, 3), axis=0),
    "scatter_add": one(
        "ScatterElements", ((6, 3), HALF), _INDICES, ((4, 3), HALF), axis=0, reduction="add"
    ),
    "scatter_nd": one("ScatterND", (6, 3), ((4, 1), INT64), (4, 3)),
    "scatter_nd_max": one("ScatterND", (6, 3), ((4, 2), INT64), (4,), reduction="max"),
    "tensor_scatter": one("TensorScatter", (2, 6, 4), (2, 3, 4), mode="circular"),
    "gather_nd": one("GatherND", (6, 6, 2), ((4, 2), INT64)),
    "one_hot": one("OneHot", ((4, 3), INT32), [5], (2,)),
    "reverse_sequence": one("ReverseSequence", (4, 3, 2), ((3,), INT64)),
    "pad_of_what_is_cut": one("Pad", (3, 5), [-1, 2, 0, -2], mode="wrap"),
    "eye_like": one("EyeLike", (4, 6), k=1),
    "range": one("Range", [2], [11], [3]),
    "determinant": one("Det", (3, 4, 4)),
    "einsum": one("Einsum", (2, 3, 4), (2, 4, 5), equation="bij,bjk->bik"),
    "local_response": followed("LRN", (2, 6, 3, 3), size=3),
    "lp_pool": followed("LpPool", (2, 3, 6, 6), kernel_shape=(3, 2), strides=(2, 1), p=3),
    "global_lp_pool": one("GlobalLpPool", (2, 3, 4, 4), p=3),
    "max_pool_places": one("MaxPool", (2, 3, 6, 6), outputs=2, kernel_shape=(3, 3), pads=(1,) * 4),
    "col2im": one("Col2Im", (1, 12, 9), [4, 4], [2, 2]),
    "resize_cubic": one("Resize", (1, 2, 4, 5), None, [1.0, 1.0, 1.5, 2.0], mode="cubic"),
    "resize_antialias": one(
        "Resize", (1, 2, 8, 9), None, [1.0, 1.0, 0.5, 0.6], mode="linear", antialias=1
    ),
    "resize_nearest": one("Resize", (1, 2, 4, 5), None, [1.0, 1.0, 2.5, 2.0], mode="nearest"),
    "grid_sample": one("GridSample", (2, 3, 5, 6), (2, 4, 4, 2), padding_mode="reflection"),
    "grid_sample_cubic": one(
        "GridSample", (1, 2, 5, 6), (1, 3, 4, 2), mode="cubic", padding_mode="border"
    ),
    "affine_grid": one("AffineGrid", (2, 2, 3), [2, 3, 4, 5]),
    "roi_align": one(
        "RoiAlign", (2, 3, 8, 8), (4, 4), ((4,), INT64), output_height=2, output_width=3
    ),
    "max_roi_pool": one("MaxRoiPool", (2, 3, 8, 8), (4, 5), pooled_shape=(2, 2)),
    "deform_conv": one(
        "DeformConv", (1, 2, 5, 5), (3, 2, 2, 2), (1, 8, 4, 4), (3,), kernel_shape=(2, 2)
    ),
    "dft": one("DFT", (2, 12, 1), None, [1], onesided=1),
    "dft_inverse": one("DFT", (2, 9, 2), inverse=1),
    "stft": one("STFT", (2, 40, 1), 8, (16,)),
    "instance_norm": one("InstanceNormalization", (2, 3, 4, 5), (3,), (3,)),
    "group_norm": one("GroupNormalization", (2, 6, 4), (6,), (6,), num_groups=3),
    "lp_normalization": one("LpNormalization", (3, 8), p=1),
    "batch_norm": one("BatchNormalization", (2, 3, 4), (3,), (3,), (3,), (3,)),
    "reduce_of_bools": one("ReduceMax", ((3, 4), BOOL), [1]),
    "dynamic_quantize": one("DynamicQuantizeLinear", (7, 9), outputs=3),
    "rnn": _recurrent("RNN", 1, 1),
    "gru": _recurrent("GRU", 3, 1, direction="reverse"),
    "gru_reset_after": _recurrent("GRU", 3, 1, linear_before_reset=1),
    "lstm": _recurrent("LSTM", 4, 2, direction="bidirectional"),
    "linear_attention": one(
        "LinearAttention", (2, 5, 8), (2, 5, 8), (2, 5, 6), None, (2, 5, 2), (2, 5, 2),
        outputs=2, q_num_heads=2, kv_num_heads=2,
    ),
    "int4_weights": int4_product(FLOAT, INT4, 32),
    "uint4_weights_by_column": int4_product(HALF, UINT4, 0),
    "shift": one("BitShift", ((4, 4), UINT8), ((4, 4), UINT8), direction="LEFT"),
}  # fmt: skip
"""By what they show. Small: a kernel is run on the host, a thread after the other."""
