import numpy as np
from sketch import Sketch, applied, refusal

from workbench.network import Tensor


def shared(s: Sketch) -> Tensor:
    return s("Softmax", s.input("batch", 5, 8), name="shared")


def test_siblings_of_one_tensor_are_one_layer_with_two_outputs() -> None:
    s = Sketch()
    x = shared(s)
    s.output(s("Tanh", x, name="a"), s("Mul", x, s.value(2.0), name="b"))
    (attempt,) = applied(s.fuse(), "sibling_pointwise")
    assert attempt.place == ("a", "b")
    assert s.operators() == ["Softmax", "Tanh+Mul"]


def test_three_siblings_are_one_layer() -> None:
    s = Sketch()
    x = shared(s)
    s.output(*(s(op, x, name=op) for op in ("Tanh", "Sigmoid", "Neg")))
    s.fuse()
    assert s.operators() == ["Softmax", "Tanh+Sigmoid+Neg"]


def test_a_sibling_that_a_product_takes_in_goes_there() -> None:
    s = Sketch()
    x = shared(s)
    gate = s("Sigmoid", s("Add", s.linear(x, 8, name="fc"), x))
    s.output(gate, s("Tanh", x))
    s.fuse()
    assert s.operators() == ["Softmax", "MatMul+Add+Sigmoid", "Tanh"]


def test_a_product_that_siblings_read_is_no_part_of_them() -> None:
    s = Sketch()
    x = s.linear(s.input("batch", 8), 8, name="fc")
    s.output(s("Tanh", x), s("Sigmoid", x))
    s.fuse()
    assert s.operators() == ["MatMul", "Tanh+Sigmoid"]


def test_a_layer_that_waits_for_its_sibling_is_refused() -> None:
    s = Sketch()
    x = shared(s)
    first = s("Tanh", x, name="a")
    total = s("Softmax", first, name="between")
    s.output(first, s("Tanh", s("ReduceMax", total, s.value(np.array([1])))))
    s.output(s("Mul", x, s("Softmax", total, axis=1, name="late"), name="b"))
    code, _ = refusal(s.fuse(), "sibling_pointwise")
    assert code == "cycle"


def test_another_shape_is_no_sibling() -> None:
    s = Sketch()
    x = s("Softmax", s.input("batch", 1, 8))
    s.output(s("Tanh", x), s("Add", x, s.input("batch", 5, 8, name="y")))
    assert not applied(s.fuse(), "sibling_pointwise")
