from typing import Any

import numpy as np
import pytest
from sketch import Sketch, applied, refusal

from workbench.network import Tensor


def mean(
    s: Sketch, x: Tensor, *, axes: tuple[int, ...] = (-1,), name: str = "", **more: int
) -> Tensor:
    return s("ReduceMean", x, s.value(np.array(axes)), name=name, **more)


def deviation(s: Sketch, x: Tensor, square: str, *, epsilon: float = 1e-5, **more: Any) -> Tensor:
    squared = s("Mul", x, x) if square == "Mul" else s("Pow", x, s.value(2.0))
    return s("Sqrt", s("Add", mean(s, squared, **more), s.value(epsilon, "eps")))


def quotient(s: Sketch, x: Tensor, root: Tensor, how: str) -> Tensor:
    match how:
        case "Div":
            return s("Div", x, root)
        case "Reciprocal":
            return s("Mul", s("Reciprocal", root), x)
        case _:
            return s("Mul", x, s("Div", s.value(1.0), root))


HOW = ["Div", "Reciprocal", "one over"]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("square", ["Mul", "Pow"])
def test_a_layer_norm_written_out_is_one_layer(square: str, how: str) -> None:
    s = Sketch()
    x = s.input("batch", 5, 8)
    centred = s("Sub", x, mean(s, x))
    y = quotient(s, centred, deviation(s, centred, square), how)
    y = s("Add", s("Mul", y, s.weight(8, name="gain")), s.weight(8, name="offset"))
    s.output(y)
    attempts = s.fold()
    assert s.operators() == ["LayerNormalization"]
    assert [a.rule for a in attempts if a.applied and "norm" in a.rule] == [
        "norm_spelling",
        "norm_scale",
        "norm_bias",
    ]
    assert s.network.layers[0].attributes["epsilon"] == pytest.approx(1e-5, rel=1e-6)


def test_two_means_of_one_tensor_are_told_to_be_one() -> None:
    s = Sketch()
    x = s.input("batch", 5, 8)
    spread = s("Sub", x, mean(s, x))
    variance = s("ReduceMean", s("Mul", spread, spread), s.value(np.array([2])), keepdims=0)
    variance = s("Reshape", variance, s.value(np.array([0, 5, 1])))
    root = s("Sqrt", s("Add", variance, s.value(1e-5)))
    s.output(s("Div", s("Sub", x, mean(s, x, axes=(2,))), root))
    s.fold()
    assert s.operators() == ["LayerNormalization"]


@pytest.mark.parametrize("how", HOW)
def test_an_rms_norm_written_out_is_one_layer(how: str) -> None:
    s = Sketch()
    x = s.input("batch", 5, 8)
    y = quotient(s, x, deviation(s, x, "Pow", epsilon=1e-6), how)
    s.output(s("Mul", s.weight(1, 1, 8, name="gain"), y))
    s.fold()
    assert s.operators() == ["RMSNormalization"]
    scale = s.network.layers[0].get_input(1)
    assert scale is not None and scale.shape == (8,)


def test_a_norm_over_several_innermost_axes_keeps_them() -> None:
    s = Sketch()
    x = s.input("batch", 4, 8)
    s.output(s("Div", x, deviation(s, x, "Mul", axes=(1, 2))))
    s.fold()
    assert s.operators() == ["RMSNormalization"]
    assert s.network.layers[0].attributes["axis"] == 1


def test_a_norm_over_the_tokens_is_refused() -> None:
    s = Sketch()
    x = s.input("batch", 4, 8)
    s.output(s("Div", x, deviation(s, x, "Mul", axes=(1,))))
    code, reason = refusal(s.fold(), "norm_spelling")
    assert code == "axes"
    assert "is over axes (1,) of 3; a norm's are the innermost" in reason


def test_means_over_different_axes_are_refused() -> None:
    s = Sketch()
    x = s.input("batch", 4, 8)
    centred = s("Sub", x, mean(s, x, axes=(1, 2), name="both"))
    s.output(s("Div", centred, deviation(s, centred, "Mul")))
    code, reason = refusal(s.fold(), "norm_spelling")
    assert code == "axes"
    assert "'both' is over axes (1, 2)" in reason


def test_a_norm_without_epsilon_is_refused() -> None:
    s = Sketch()
    x = s.input("batch", 4, 8)
    s.output(s("Div", x, deviation(s, x, "Mul", epsilon=-1e-3)))
    code, reason = refusal(s.fold(), "norm_spelling")
    assert code == "epsilon"
    assert "a norm's is positive" in reason


def test_a_factor_a_token_stays_behind_the_norm() -> None:
    s = Sketch()
    x = s.input("batch", 4, 8)
    y = s("RMSNormalization", x, s.value(np.ones(8)), name="rms")
    s.output(s("Mul", y, s.weight(4, 1, name="column")))
    code, reason = refusal(s.fold(), "norm_scale")
    assert code == "shape_mismatch"
    assert "'column' has shape (4, 1)" in reason


def test_a_norm_that_is_scaled_already_keeps_its_scale() -> None:
    s = Sketch()
    y = s("RMSNormalization", s.input("batch", 8), s.weight(8), name="rms")
    s.output(s("Mul", y, s.weight(8, name="again")))
    assert refusal(s.fold(), "norm_scale") == ("scaled", "'rms' has a scale or bias already")


def test_a_square_that_two_norms_read_is_computed_by_neither() -> None:
    s = Sketch()
    x = s.input("batch", 8)
    square = s("Mul", x, x)
    for k, epsilon in enumerate((1e-5, 1e-6)):
        root = s("Sqrt", s("Add", mean(s, square), s.value(epsilon)), name=f"root{k}")
        s.output(s("Div", x, root))
    attempts = s.fold()
    assert len(applied(attempts, "norm_spelling")) == 2
    assert s.operators() == ["RMSNormalization"] * 2
