import pytest
from sketch import Sketch, applied, refusal


@pytest.mark.parametrize("swapped", [False, True])
def test_a_tensor_times_its_sigmoid_is_swish(swapped: bool) -> None:
    s = Sketch()
    x = s.conv(s.input("batch", 3, 5, 5), 4, name="conv")
    gate = s("Sigmoid", x)
    s.output(s("Mul", *((gate, x) if swapped else (x, gate))))
    assert applied(s.fold(), "swish_spelling")
    s.fuse()
    assert s.operators() == ["Conv+Swish"]


def test_a_factor_inside_the_sigmoid_is_its_alpha() -> None:
    s = Sketch()
    x = s.input("batch", 6)
    s.output(s("Mul", x, s("Sigmoid", s("Mul", x, s.value(1.702)))))
    s.fold()
    assert s.operators() == ["Swish"]
    assert s.network.layers[0].attributes["alpha"] == pytest.approx(1.702, rel=1e-6)


def test_a_gate_of_another_tensor_is_no_swish() -> None:
    s = Sketch()
    s.output(s("Mul", s.input("batch", 6), s("Sigmoid", s.input("batch", 6, name="y"))))
    assert s.fold() == ()


def test_a_factor_behind_it_stays_behind() -> None:
    s = Sketch()
    x = s.input("batch", 6)
    s.output(s("Mul", s("Mul", x, s("Sigmoid", x)), s.value(2.0)))
    s.fold()
    assert s.operators() == ["Swish", "Mul"]


def test_a_factor_before_is_refused() -> None:
    s = Sketch()
    x = s.input("batch", 6)
    s.output(s("Mul", s("Mul", x, s.value(2.0)), s("Sigmoid", x)))
    code, reason = refusal(s.fold(), "swish_spelling")
    assert (code, reason) == ("other_constant", "the factor before is 2; Swish has 1")


@pytest.mark.parametrize("spelling", ["sigmoid", "clip", "clip first"])
def test_the_clipped_line_is_hard_swish(spelling: str) -> None:
    s = Sketch()
    x = s.input("batch", 6)
    if spelling == "sigmoid":
        y = s("Mul", x, s("HardSigmoid", x, alpha=1 / 6, beta=0.5))
    else:
        gate = s("Clip", s("Add", x, s.value(3.0)), s.value(0.0), s.value(6.0))
        if spelling == "clip":
            y = s("Div", s("Mul", x, gate), s.value(6.0))
        else:
            y = s("Mul", x, s("Div", gate, s.value(6.0)))
    s.output(y)
    assert applied(s.fold(), "hard_swish_spelling")
    assert s.operators() == ["HardSwish"]


def test_another_slope_is_refused() -> None:
    s = Sketch()
    x = s.input("batch", 6)
    s.output(s("Mul", x, s("HardSigmoid", x)))
    code, reason = refusal(s.fold(), "hard_swish_spelling")
    assert code == "other_constant"
    assert reason == "HardSigmoid's alpha is 0.2; HardSwish has 0.166667"
