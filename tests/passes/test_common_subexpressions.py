import numpy as np
from sketch import Sketch, applied


def test_the_same_computation_twice_becomes_one() -> None:
    s = Sketch()
    x = s.input("batch", 3)
    a, b = (s("Softmax", x, name=n) for n in "ab")
    s.output(s("Mul", a, s("Neg", b)))
    (attempt,) = applied(s.fold(), "common_subexpressions")
    assert attempt.place == ("a", "b")
    assert s.operators() == ["Softmax", "Neg", "Mul"]


def test_equal_small_constants_count_as_the_same_operand() -> None:
    s = Sketch()
    x = s.input("batch", 3)
    a, b = (s("LeakyRelu", s("Add", x, s.value([1.0, 2.0, 3.0])), alpha=0.2) for _ in range(2))
    s.output(s("Mul", a, s("Neg", b)))
    assert len(applied(s.fold(), "common_subexpressions")) == 2


def test_another_attribute_is_another_computation() -> None:
    s = Sketch()
    x = s.input("batch", 3)
    s.output(s("LeakyRelu", x, alpha=0.1), s("LeakyRelu", x, alpha=0.2))
    assert not s.fold()


def test_sizes_that_are_written_down_for_each_reader_are_equal() -> None:
    s = Sketch()
    x = s.input("batch", 6)
    ones = s.value(np.ones(1), "ones")
    for name in ("one", "two"):
        square = s("Expand", ones, s("Shape", x, name=f"{name}.shape"), name=name)
        s.output(s("Add", x, s("CumSum", square, s.value(np.array(0)))))
    s.fold()
    assert s.operators().count("CumSum") == 1
