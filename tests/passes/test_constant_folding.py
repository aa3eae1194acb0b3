import numpy as np
from sketch import Sketch, applied, refusal

from workbench import passes
from workbench.passes.constant_folding import ConstantFolding


def test_a_layer_of_constants_becomes_a_weight_with_a_recipe() -> None:
    s = Sketch()
    a, b = s.weight(3, 4, name="a"), s.weight(4, name="b")
    folded = s("Mul", a, b, name="scaled")
    s.output(s("MatMul", s.input("batch", 3), folded, name="fc"))
    attempts = s.fold()
    assert applied(attempts, "constant_folding")[0].place == ("scaled",)
    weight = s.network.layer("fc").inputs[1].weight
    np.testing.assert_array_equal(weight.array, a.weight.array * b.weight.array)
    assert weight.model_weights == ("a", "b")
    assert s.network.absorbed["scaled"] == f"weight {weight.name} (constant_folding)"


def test_folding_goes_on_through_a_whole_chain() -> None:
    s = Sketch()
    w = s("Neg", s("Transpose", s.weight(4, 3), perm=(1, 0)))
    s.output(s("MatMul", s.input("batch", 3), w))
    s.fold()
    assert s.operators() == ["MatMul"]


def test_every_output_of_a_split_of_constants_is_folded() -> None:
    s = Sketch()
    parts = s.layer("Split", s.weight(4, 3), s.value(np.array([1, 3])), outputs=2)
    x = s.input("batch", 3)
    s.output(s("Add", x, parts[0]), s("MatMul", x, s("Transpose", parts[1])))
    s.fold()
    assert s.operators() == ["Add", "MatMul"]


def test_dequantized_weights_stay_because_kernels_read_the_integers() -> None:
    s = Sketch()
    s.output(s("MatMul", s.input("batch", 8), s.stored(8, 4, axis=1)))
    assert not s.fold()
    assert s.operators() == ["DequantizeLinear", "MatMul"]


def test_a_constant_that_is_a_network_output_is_refused() -> None:
    s = Sketch()
    s.output(s("Neg", s.weight(3)))
    assert refusal(s.fold(), "constant_folding")[0] == "marked_output"


def test_a_constant_that_would_grow_too_much_is_refused_with_both_sizes() -> None:
    s = Sketch()
    big = s("Expand", s.weight(1), s.value(np.array([300])))
    s.output(s("Add", s.input("batch", 300), big))
    small = ConstantFolding(max_growth_bytes=1000)
    attempts = s.rewrite(small.apply, passes.RULES)
    code, reason = refusal(attempts, "constant_folding")
    assert code == "too_large"
    assert "1,000 are allowed" in reason
