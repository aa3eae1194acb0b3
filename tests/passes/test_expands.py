import numpy as np
from sketch import Sketch, applied, refusal


def test_a_mask_is_computed_before_it_is_broadcast() -> None:
    s = Sketch()
    scores = s("Tanh", s.input("batch", 3, 5, 5))
    m = s("Expand", s.input("batch", 1, 1, 5, name="m"), s.value(np.array([1, 1, 5, 5])))
    mask = s("Mul", s("Sub", s.value(1.0), m), s.value(-1e4))
    s.output(s("Add", scores, mask))
    attempts = s.fold()
    assert len(applied(attempts, "expand_later")) == 2
    assert len(applied(attempts, "expand_left_out")) == 1
    assert s.operators() == ["Tanh", "Sub", "Mul", "Add"]


def test_an_expand_that_gives_the_result_its_shape_stays() -> None:
    s = Sketch()
    x = s("Expand", s.input("batch", 1), s.value(np.array([1, 4])), name="wide")
    s.output(s("Add", x, s.weight(1, name="w")), s("Softmax", x))
    code, reason = refusal(s.fold(), "expand_left_out")
    assert code == "shape_mismatch"
    assert "would give [batch, 1], not [batch, 4]" in reason
