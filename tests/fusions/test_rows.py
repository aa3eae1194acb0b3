import numpy as np
import pytest
from sketch import Sketch, applied, refusal

from workbench import fusions
from workbench.devices import CpuDevice
from workbench.network import Tensor


def layer_norm(s: Sketch, x: Tensor, name: str = "norm") -> Tensor:
    width = x.shape[-1]
    return s("LayerNormalization", x, s.weight(width), s.weight(width), name=name)


def test_scale_mask_and_softmax_are_one_layer() -> None:
    s = Sketch()
    x, mask = s.input("batch", 3, 5, 5), s.input("batch", 1, 1, 5, name="mask")
    s.output(s("Softmax", s("Add", s("Mul", x, s.value(0.5)), mask), name="softmax"))
    (attempt,) = applied(s.fuse(), "row_prologue")
    assert attempt.place[0] == "softmax"
    assert s.operators() == ["Mul+Add+Softmax"]


def test_a_norm_takes_in_the_activation_that_follows() -> None:
    s = Sketch()
    s.output(s("Gelu", layer_norm(s, s.input("batch", 5, 8))))
    assert applied(s.fuse(), "row_epilogue")
    assert s.operators() == ["LayerNormalization+Gelu"]


def test_a_residual_sum_that_is_read_again_is_written_by_the_norm() -> None:
    s = Sketch()
    x = s("Softmax", s.input("batch", 5, 8), name="soft")
    total = s("Add", x, s.input("batch", 5, 8, name="y"), name="sum")
    norm = s("ReduceMax", layer_norm(s, total), s.value(np.array([1])), name="first")
    s.output(norm, s("ReduceMax", total, s.value(np.array([1])), name="second"))
    attempts = s.fuse()
    assert "Softmax+Add" in s.operators() or applied(attempts, "residual_norm")
    assert len(s.operators()) == 4


def test_a_sum_of_inputs_is_handed_out_beside_its_norm() -> None:
    s = Sketch()
    total = s("Add", s.input("batch", 5, 8), s.input("batch", 5, 8, name="y"), name="sum")
    product = s.linear(layer_norm(s, total), 8, name="fc")
    s.output(s("Add", product, total))
    assert applied(s.fuse(), "residual_norm")
    assert s.operators() == ["Add+LayerNormalization", "MatMul+Add"]


def test_a_marked_sum_keeps_the_layers_apart() -> None:
    s = Sketch()
    total = s("Add", s.input("batch", 5, 8), s.input("batch", 5, 8, name="y"), name="sum")
    s.output(total, layer_norm(s, total))
    attempts = s.fuse()
    assert s.operators() == ["Add", "LayerNormalization"]
    assert refusal(attempts, "row_prologue")[0] == "marked_output"


@pytest.mark.parametrize("keepdims", [0, 1])
def test_a_reduction_is_finished_by_what_follows(keepdims: int) -> None:
    s = Sketch()
    y = s("ReduceMean", s.input("batch", 4, 3, 3), s.value(np.array([2, 3])), keepdims=keepdims)
    s.output(s("Sigmoid", s("Add", y, s.weight(4, *(1, 1) * keepdims))))
    s.fuse()
    assert s.operators() == ["ReduceMean+Add+Sigmoid"]


def test_a_quantized_norm_hands_out_both() -> None:
    s = Sketch()
    norm = layer_norm(s, s.input("batch", 5, 8))
    product = s("MatMul", s.quantize(norm, name="q"), s.stored(8, 6, axis=1))
    s.output(product, s("ReduceMax", norm, s.value(np.array([1])), name="peek"))
    assert applied(s.fuse(), "row_quantize")
    assert "LayerNormalization+QuantizeLinear" in s.operators()
    layer = next(x for x in s.network.layers if x.op == "LayerNormalization")
    assert [t.dtype.value for t in layer.outputs] == ["FLOAT", "INT8"]


def quantized_mean() -> Sketch:
    s = Sketch()
    y = s("ReduceMean", s.input("batch", 4, 3, 3), s.value(np.array([2, 3])), keepdims=0, name="m")
    s.output(s("MatMul", s.quantize(y, name="q"), s.stored(4, 6, axis=1)))
    return s


def test_a_reduction_writes_what_an_int8_product_reads() -> None:
    s = quantized_mean()
    assert applied(s.fuse(), "row_quantize")
    assert "ReduceMean+QuantizeLinear" in s.operators()


def test_on_a_cpu_one_number_a_row_is_quantized_apart() -> None:
    s = quantized_mean()
    code, reason = refusal(fusions.fuse(s.network, device=CpuDevice()), "row_quantize")
    assert (code, reason) == ("reduction", "'m' writes one number a row")
    assert "QuantizeLinear" in s.operators()


def test_a_reduction_over_outer_axes_takes_in_nothing() -> None:
    s = Sketch()
    y = s("ReduceMean", s("Tanh", s.input("batch", 4, 6)), s.value(np.array([1])), name="mean")
    s.output(y)
    code, reason = refusal(s.fuse(), "row_prologue")
    assert code == "axes"
    assert "'mean' does not reduce over the innermost axes" in reason


def test_what_is_broadcast_to_the_rows_is_computed_before_them() -> None:
    s = Sketch()
    mask = s("Tanh", s.input("batch", 1, 5, name="mask"), name="bend")
    s.output(s("Softmax", s("Add", s.input("batch", 5, 5), mask)))
    s.fuse()
    assert s.operators() == ["Tanh", "Add+Softmax"]


def test_a_factor_along_part_of_the_rows_is_refused() -> None:
    s = Sketch()
    x = s("Mul", s.input("batch", 4, 6), s.weight(4, 1, name="some"))
    s.output(s("ReduceSum", x, s.value(np.array([1, 2])), name="sum"))
    code, reason = refusal(s.fuse(), "row_prologue")
    assert code == "shape_mismatch"
    assert "'some' has shape [4, 1]: along a row of [4, 6]" in reason


def test_a_scale_that_is_computed_is_not_taken_for_the_rows() -> None:
    s = Sketch()
    scale = s("Tanh", s.input(8, name="gain"), name="bend")
    s.output(s("RMSNormalization", s.input("batch", 8), scale))
    code, _ = refusal(s.fuse(), "row_prologue")
    assert code == "shape_mismatch"
