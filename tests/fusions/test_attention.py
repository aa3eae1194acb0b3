import numpy as np
import pytest
from sketch import Sketch, applied, refusal

from workbench.datatypes import DataType
from workbench.network import Tensor

HEADS, SIZE = 3, 4
WIDTH = HEADS * SIZE


def heads(s: Sketch, x: Tensor, *, count: int = HEADS, turned: bool = False) -> Tensor:
    """[batch, 5, count·SIZE] as [batch, count, 5, SIZE], or with its last two axes turned."""
    apart = s("Reshape", x, s.value(np.array([0, 5, count, SIZE])))
    return s("Transpose", apart, perm=(0, 2, 3, 1) if turned else (0, 2, 1, 3))


def together(s: Sketch, y: Tensor) -> Tensor:
    rows = s("Transpose", y, perm=(0, 2, 1, 3))
    return s("Reshape", rows, s.value(np.array([0, 5, WIDTH])), name="together")


def core(s: Sketch, *, mask: Tensor | None = None, scale: float | None = None) -> list[Tensor]:
    """Q, K, V as inputs with heads apart: the scores, the probabilities and the result."""
    q, v = (s.input("batch", HEADS, 5, SIZE, name=f"{n}_in") for n in "qv")
    k = s.input("batch", HEADS, SIZE, 5, name="k_in")
    scores = s("MatMul", q, k, name="scores")
    y = scores if scale is None else s("Mul", scores, s.value(scale), name="scale")
    y = y if mask is None else s("Add", y, mask, name="mask")
    p = s("Softmax", y, name="softmax")
    return [scores, p, s("MatMul", p, v, name="mix")]


def test_scale_mask_softmax_and_both_products_are_one_layer() -> None:
    s = Sketch()
    s.output(core(s, mask=s.input("batch", 1, 5, 5, name="m"), scale=0.5)[2])
    attempts = s.fuse()
    assert s.operators() == ["MatMul+Mul+Add+Softmax+MatMul"]
    assert applied(attempts, "attention")[0].place[0] == "softmax"
    assert s.network.layers[0].op == "Softmax"


def test_the_exporters_block_is_a_product_an_attention_and_a_product() -> None:
    s = Sketch()
    x = s.input("batch", 5, 8)
    q, k, v = (s("Add", s.linear(x, WIDTH, name=n), s.weight(WIDTH, name=f"{n}.b")) for n in "qkv")
    root = s.value(0.7, "root")
    scores = s("MatMul", s("Mul", heads(s, q), root), s("Mul", heads(s, k, turned=True), root))
    p = s("Softmax", s("Add", scores, s.input(5, 5, name="causal")))
    y = s("MatMul", p, heads(s, v), name="mix")
    s.output(s("Add", s.linear(together(s, y), 8, name="out"), x))
    s.fold()
    attempts = s.fuse()
    first, middle, last = s.operators()
    assert (first, last) == ("MatMul+Add", "MatMul+Add")
    assert middle.startswith("Split+") and middle.endswith("Softmax+MatMul+Transpose+Reshape")
    assert len(applied(attempts, "attention_prologue")) == 7


def test_heads_that_several_queries_share_are_repeated_inside() -> None:
    s = Sketch()
    q = heads(s, s.input("batch", 5, 4 * SIZE, name="q_in"), count=4)
    shared: list[Tensor] = []
    for name in "kv":
        apart = heads(s, s.input("batch", 5, 2 * SIZE, name=f"{name}_in"), count=2)
        apart = s("Unsqueeze", apart, s.value(np.array([2])))
        copied = s("Expand", apart, s.value(np.array([1, 2, 2, 5, SIZE])))
        shared.append(s("Reshape", copied, s.value(np.array([0, 4, 5, SIZE]))))
    k = s("Transpose", shared[0], perm=(0, 1, 3, 2))
    s.output(s("MatMul", s("Softmax", s("MatMul", q, k)), shared[1]))
    s.fuse()
    (names,) = s.operators()
    assert names.count("Expand") == 2


def test_probabilities_that_are_read_elsewhere_keep_the_layers_apart() -> None:
    s = Sketch()
    _, p, y = core(s)
    s.output(y, s("ReduceMax", p, s.value(np.array([1])), name="peek"))
    code, reason = refusal(s.fuse(), "attention")
    assert code == "second_consumer"
    assert "ReduceMax 'peek'" in reason
    assert "MatMul" in s.operators()


def test_a_marked_score_tensor_splits_the_attention() -> None:
    s = Sketch()
    scores, _, y = core(s)
    s.output(y, scores)
    assert refusal(s.fuse(), "attention")[0] == "marked_output"


def test_a_softmax_over_queries_is_refused() -> None:
    s = Sketch()
    q, k, v = (s.input("batch", 4, 4, name=f"{n}_in") for n in "qkv")
    s.output(s("MatMul", s("Softmax", s("MatMul", q, k), axis=1), v))
    code, reason = refusal(s.fuse(), "attention")
    assert code == "wrong_axis"
    assert "attention sums over its keys, axis 2" in reason


def test_a_product_with_weights_is_no_attention() -> None:
    s = Sketch()
    q, k = s.input("batch", 4, 6, name="q_in"), s.input("batch", 6, 5, name="k_in")
    s.output(s("MatMul", s("Softmax", s("MatMul", q, k)), s.weight(1, 5, 3, name="w")))
    code, reason = refusal(s.fuse(), "attention")
    assert code == "constant_factor"
    assert "its values 'w' are a constant" in reason


def test_products_of_two_types_are_no_attention() -> None:
    s = Sketch()
    q, k, v = (s.input("batch", 4, 4, name=f"{n}_in") for n in "qkv")
    halves = (s("Cast", t, to=DataType.HALF) for t in (q, k))
    scores = s("Cast", s("MatMul", *halves, name="scores"), to=DataType.FLOAT)
    s.output(s("MatMul", s("Softmax", scores, name="softmax"), v, name="mix"))
    code, reason = refusal(s.fuse(), "attention")
    assert code == "mixed_types"
    assert "'scores' is FP16, 'softmax' is FP32, 'mix' is FP32" in reason


def test_quantized_products_are_refused() -> None:
    s = Sketch()
    q, k, v = (s.quantize(s.input("batch", 4, 4, name=f"{n}_in"), name=n) for n in "qkv")
    s.output(s("MatMul", s("Softmax", s("MatMul", q, k)), v))
    code, reason = refusal(s.fuse(), "attention")
    assert code == "quantized_factor"
    assert "its queries" in reason


def test_a_softmax_of_no_product_is_a_near_miss() -> None:
    s = Sketch()
    x = s("LayerNormalization", s.input("batch", 4, 4), s.weight(4), name="norm")
    s.output(s("MatMul", s("Softmax", x), s.input("batch", 4, 6, name="v_in")))
    _, reason = refusal(s.fuse(), "attention")
    assert "found LayerNormalization 'norm'" in reason


def test_the_shuffle_of_a_mask_stays_outside() -> None:
    s = Sketch()
    m = s("Transpose", s.input("batch", 5, 1, 5, name="m"), name="turn", perm=(0, 2, 1, 3))
    s.output(core(s, mask=m)[2])
    code, reason = refusal(s.fuse(), "attention_prologue")
    assert code == "mask"
    assert "'turn' makes the mask" in reason


def test_a_reshape_that_mixes_axes_stays_outside() -> None:
    s = Sketch()
    q = s(
        "Reshape", s.input("batch", 6, 10, name="q_in"), s.value(np.array([0, 4, 15])), name="mixed"
    )
    k, v = s.input("batch", 15, 4, name="k_in"), s.input("batch", 4, 6, name="v_in")
    s.output(s("MatMul", s("Softmax", s("MatMul", q, k)), v))
    code, reason = refusal(s.fuse(), "attention_prologue")
    assert code == "mixes_axes"
    assert "[batch, 6, 10] to FLOAT[batch, 4, 15]" in reason


@pytest.mark.parametrize("marked", [False, True])
def test_keys_that_are_kept_for_the_next_token_are_read_from_memory(marked: bool) -> None:
    s = Sketch()
    turned = heads(s, s.input("batch", 5, WIDTH, name="k_in"), turned=True)
    q, v = (s.input("batch", HEADS, 5, SIZE, name=f"{n}_in") for n in "qv")
    y = s("MatMul", s("Softmax", s("MatMul", q, turned)), v)
    s.output(y, *([turned] if marked else []))
    attempts = s.fuse()
    assert len(s.operators()) == (3 if marked else 1)
    codes = {a.refusal.code for a in attempts if a.refusal}
    assert ("marked_output" in codes) is marked


def test_probabilities_of_rows_that_are_all_masked_are_put_out_inside() -> None:
    s = Sketch()
    q, v = (s.input("batch", 5, 4, name=f"{n}_in") for n in "qv")
    p = s("Softmax", s("Add", s("MatMul", q, s.input("batch", 4, 5, name="k_in")), s.weight(5)))
    s.output(s("MatMul", s("Where", s("IsNaN", p), s.value(0.0), p), v))
    s.fuse()
    assert s.operators() == ["MatMul+Add+Softmax+IsNaN+Where+MatMul"]


def test_stacked_queries_keys_and_values_are_taken_apart_inside() -> None:
    s = Sketch()
    stacked = s("Tanh", s.input(3, "batch", HEADS, 5, SIZE))
    q, k, v = (s("Gather", stacked, s.value(np.array(i)), axis=0) for i in range(3))
    k = s("Transpose", k, perm=(0, 1, 3, 2))
    s.output(s("MatMul", s("Softmax", s("MatMul", q, k)), v))
    s.fold()
    s.fuse()
    assert len(s.operators()) == 2
    assert s.operators()[1].count("Slice") == 3


def test_heads_are_side_by_side_before_they_are_quantized() -> None:
    s = Sketch()
    rows = s.quantize(together(s, core(s)[2]), name="rows")
    s.output(s("MatMul", rows, s.stored(WIDTH, 8, axis=1), name="out"))
    attempts = s.fuse()
    assert refusal(attempts, "quantize_earlier")[0] == "attention"
    assert applied(attempts, "attention_quantize")
    assert s.operators()[0] == "MatMul+Softmax+MatMul+Transpose+Reshape+QuantizeLinear"
    assert [x.op for x in s.network.layers] == ["Softmax", "MatMul"]
    assert s.network.layers[0].outputs[0].dtype is DataType.INT8


def test_a_result_that_is_also_read_in_floats_is_quantized_by_a_layer_of_its_own() -> None:
    s = Sketch()
    rows = together(s, core(s)[2])
    s.output(s("MatMul", s.quantize(rows, name="rows"), s.stored(WIDTH, 8, axis=1)))
    s.output(s("Neg", rows, name="beside"))
    code, reason = refusal(s.fuse(), "attention_quantize")
    assert code == "second_consumer" and "beside" in reason


def test_a_result_quantized_per_channel_or_to_a_type_of_no_product_stays_in_floats() -> None:
    for scale, kind in ((np.full(WIDTH, 0.1, np.float32), "INT8"), (np.float32(0.1), "INT16")):
        s = Sketch()
        zero = np.zeros(np.shape(scale), kind.lower())
        y = together(s, core(s)[2])
        q = s("QuantizeLinear", y, s.value(scale), s.value(zero), axis=2, name="q")
        s.output(q)
        code, _ = refusal(s.fuse(), "attention_quantize")
        assert code == ("per_channel_activation" if kind == "INT8" else "type")
