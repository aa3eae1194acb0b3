import numpy as np
from sketch import Sketch, refusal


def test_a_softmax_written_out_is_one_layer() -> None:
    s = Sketch()
    x, axis = s.input("batch", 5, 7), s.value(np.array([-1]))
    powers = s("Exp", s("Sub", x, s("ReduceMax", x, axis)))
    s.output(s("Div", powers, s("ReduceSum", powers, axis)))
    s.fold()
    assert s.operators() == ["Softmax"]
    assert s.network.layers[0].attributes["axis"] == 2


def test_sums_over_other_axes_than_the_largest_are_refused() -> None:
    s = Sketch()
    x = s.input("batch", 5, 7)
    powers = s("Exp", s("Sub", x, s("ReduceMax", x, s.value(np.array([1])), name="top")))
    s.output(s("Div", powers, s("ReduceSum", powers, s.value(np.array([2])))))
    code, reason = refusal(s.fold(), "softmax_spelling")
    assert code == "axes"
    assert "'top' is over axes (1,)" in reason


def test_a_softmax_that_overflows_is_left_as_it_is() -> None:
    s = Sketch()
    powers = s("Exp", s.input("batch", 7))
    s.output(s("Div", powers, s("ReduceSum", powers, s.value(np.array([1])))))
    s.fold()
    assert s.operators() == ["Exp", "ReduceSum", "Div"]
