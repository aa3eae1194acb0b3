import numpy as np
import pytest
from sketch import Sketch, applied, refusal


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose", "MatMul", "Gemm", "Gemm^T"])
def test_a_factor_after_a_product_goes_into_its_weights(operator: str, per_channel: bool) -> None:
    s = Sketch()
    image, row = s.input("batch", 3, 5, 5), s.input("batch", 7, name="row")
    match operator:
        case "Conv":
            y = s("Conv", image, s.weight(4, 3, 3, 3), s.weight(4, name="b"), name="product")
        case "ConvTranspose":
            y = s("ConvTranspose", image, s.weight(3, 4, 2, 2), name="product")
        case "MatMul":
            y = s("MatMul", row, s.weight(7, 4), name="product")
        case "Gemm":
            y = s("Gemm", row, s.weight(7, 4), s.weight(4, name="b"), name="product")
        case _:
            y = s("Gemm", row, s.weight(4, 7), s.weight(4, name="b"), name="product", transB=1)
    shape = (4, 1, 1) if "Conv" in operator else (4,)
    factor = s.weight(*(shape if per_channel else ()), name="factor")
    s.output(s("Mul", y, factor, name="mul"))
    attempts = s.fold()
    assert applied(attempts, "scale_folding")[0].place == ("product", "mul")
    assert s.operators() == [operator.removesuffix("^T")]
    assert s.network.absorbed["mul"] == "weight w_scaled (scale_folding)"


def test_the_scaling_of_queries_moves_through_shuffles_and_bias_into_the_weights() -> None:
    s = Sketch()
    y = s("Add", s.linear(s.input("batch", 5, 8), 8, name="q"), s.weight(8, name="b"), name="bias")
    y = s("Reshape", y, s.value(np.array([0, 5, 2, 4])))
    y = s("Transpose", y, perm=(0, 2, 1, 3))
    s.output(s("Tanh", s("Mul", y, s.value([0.5]), name="scaling")))
    attempts = s.fold()
    assert len(applied(attempts, "scale_earlier")) == 2
    assert s.operators() == ["MatMul", "Add", "Reshape", "Transpose", "Tanh"]
    assert "scaling" in s.network.layer("q").origin


def test_a_factor_stays_behind_a_product_that_is_read_elsewhere() -> None:
    s = Sketch()
    y = s.linear(s.input("batch", 8), 8, name="fc")
    s.output(s("Mul", y, s.value(0.5)), s("Softmax", y, name="soft"))
    code, reason = refusal(s.fold(), "scale_folding")
    assert code == "second_consumer"
    assert "'soft'" in reason


def test_a_factor_of_another_shape_is_refused() -> None:
    s = Sketch()
    y = s.conv(s.input("batch", 3, 5, 5), 4, name="conv")
    s.output(s("Mul", y, s.weight(5, name="columns")))
    assert refusal(s.fold(), "scale_folding")[0] == "shape_mismatch"


def test_a_factor_per_column_does_not_move_through_a_reshape() -> None:
    s = Sketch()
    y = s("Reshape", s.linear(s.input("batch", 8), 8, name="fc"), s.value(np.array([0, 2, 4])))
    s.output(s("Mul", y, s.weight(4, name="columns")))
    assert refusal(s.fold(), "scale_earlier")[0] == "shape_mismatch"


def test_a_factor_that_leads_to_no_product_stays_where_it_is() -> None:
    s = Sketch()
    y = s("Transpose", s("Softmax", s.input("batch", 8)), perm=(1, 0))
    s.output(s("Mul", y, s.value(0.5)))
    assert s.fold() == ()
