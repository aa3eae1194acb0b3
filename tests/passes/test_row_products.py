import numpy as np
import pytest
from sketch import Sketch, applied, refusal

from workbench.network import Tensor


def flattened(s: Sketch, x: Tensor, *shape: int, **attributes: float) -> None:
    rows = s("Reshape", x, s.value(np.array([-1, 8])))
    weight = s.weight(6, 8, name="w") if attributes.get("transB") else s.weight(8, 6, name="w")
    y = s("Gemm", rows, weight, s.weight(6, name="b"), name="fc", **attributes)
    s.output(s("Reshape", y, s.value(np.array(shape))))


@pytest.mark.parametrize("turned", [0, 1])
def test_rows_need_no_reshapes(turned: int) -> None:
    s = Sketch()
    flattened(s, s("Tanh", s.input("batch", 5, 8)), -1, 5, 6, transB=turned)
    assert applied(s.fold(), "row_products")
    assert s.operators() == ["Tanh", "MatMul", "Add"]


def test_rows_that_are_put_apart_otherwise_need_one_reshape() -> None:
    s = Sketch()
    flattened(s, s("Tanh", s.input("batch", 5, 8)), 5, -1, 6)
    s.fold()
    assert s.operators() == ["Tanh", "Reshape", "MatMul", "Add"]


def test_columns_that_are_split_are_refused() -> None:
    s = Sketch()
    flattened(s, s("Tanh", s.input("batch", 5, 8)), -1, 5, 3, 2)
    code, reason = refusal(s.fold(), "row_products")
    assert code == "mixes_axes"
    assert "its columns are split" in reason


def test_a_scaled_product_is_refused() -> None:
    s = Sketch()
    flattened(s, s("Tanh", s.input("batch", 5, 8)), -1, 5, 6, alpha=0.5)
    assert refusal(s.fold(), "row_products")[0] == "scaled"
