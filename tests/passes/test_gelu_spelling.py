import numpy as np
import pytest
from sketch import Sketch, applied, refusal

from workbench.network import Tensor


def by_erf(s: Sketch, x: Tensor, order: int, half: float = 0.5) -> Tensor:
    if order == 1:
        inner = s("Mul", x, s.value(np.sqrt(0.5)))
    else:
        inner = s("Div", x, s.value(np.sqrt(2.0)))
    gate = (
        s("Add", s("Erf", inner), s.value(1.0))
        if order
        else s("Add", s.value(1.0), s("Erf", inner))
    )
    c = s.value(half)
    match order:
        case 0:
            return s("Mul", s("Mul", x, gate), c)
        case 1:
            return s("Mul", s("Mul", x, c), gate)
        case 2:
            return s("Mul", x, s("Mul", c, gate))
        case _:
            return s("Div", s("Mul", gate, x), s.value(2.0))


def by_tanh(s: Sketch, x: Tensor, order: int) -> Tensor:
    root, k = s.value(np.sqrt(2 / np.pi)), s.value(0.044715)
    match order:
        case 0:
            cube = s("Mul", s("Pow", x, s.value(3.0)), k)
        case 1:
            cube = s("Mul", s("Mul", s("Mul", x, x), x), k)
        case _:
            cube = None
    if cube is not None:
        inner = s("Mul", root, s("Add", x, cube))
    else:
        square = s("Add", s.value(1.0), s("Mul", s("Mul", k, x), x))
        inner = s("Mul", s("Mul", x, root), square)
    return s("Mul", s("Mul", x, s.value(0.5)), s("Add", s("Tanh", inner), s.value(1.0)))


@pytest.mark.parametrize("order", range(4))
def test_the_erf_spelling_in_any_order_is_gelu(order: int) -> None:
    s = Sketch()
    x = s("Tanh", s.input("batch", 6))
    s.output(by_erf(s, x, order))
    assert applied(s.fold(), "gelu_spelling")
    assert s.operators() == ["Tanh", "Gelu"]
    assert s.network.layers[1].attributes["approximate"] == "none"


@pytest.mark.parametrize("order", range(3))
def test_the_tanh_spelling_in_any_order_is_the_approximate_gelu(order: int) -> None:
    s = Sketch()
    s.output(by_tanh(s, s.input("batch", 6), order))
    assert applied(s.fold(), "gelu_spelling")
    assert s.operators() == ["Gelu"]
    assert s.network.layers[0].attributes["approximate"] == "tanh"


def test_an_input_that_is_itself_scaled_is_kept_apart() -> None:
    s = Sketch()
    x = s("Mul", s.input("batch", 6), s.value(0.3), name="scaled")
    s.output(by_erf(s, x, 2))
    s.fold()
    assert s.operators() == ["Mul", "Gelu"]


def test_another_factor_is_refused_by_value() -> None:
    s = Sketch()
    s.output(by_erf(s, s.input("batch", 6), 0, half=0.4))
    code, reason = refusal(s.fold(), "gelu_spelling")
    assert code == "other_constant"
    assert reason == "the factor before is 0.4; GELU has 0.5"


def test_an_inner_tensor_that_is_read_elsewhere_stays() -> None:
    s = Sketch()
    x = s.input("batch", 6)
    inner = s("Div", x, s.value(np.sqrt(2.0)))
    gate = s("Add", s("Erf", inner, name="erf"), s.value(1.0))
    s.output(s("Mul", s("Mul", x, gate), s.value(0.5)), s("Relu", gate, name="peek"))
    s.fold()
    assert sorted(s.operators()) == ["Add", "Div", "Erf", "Gelu", "Relu"]
