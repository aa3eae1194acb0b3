import numpy as np
import pytest
from sketch import Sketch, applied, refusal


@pytest.mark.parametrize("operator", ["Reshape", "Squeeze", "Flatten"])
def test_a_mean_writes_the_shape_that_is_read(operator: str) -> None:
    s = Sketch()
    y = s("ReduceMean", s.input("batch", 4, 5, 5), s.value(np.array([-1, -2])), name="mean")
    if operator == "Reshape":
        y = s("Reshape", y, s.value(np.array([0, 4])))
    elif operator == "Squeeze":
        y = s("Squeeze", y, s.value(np.array([2, 3])))
    else:
        y = s("Flatten", y)
    s.output(y)
    attempts = s.fold()
    assert applied(attempts, "reduction_and_reshape")
    assert s.operators() == ["ReduceMean"]
    assert s.network.layers[0].attributes["keepdims"] == 0


def test_a_dropped_axis_is_kept_where_the_reshape_brings_it_back() -> None:
    s = Sketch()
    x = s.input("batch", 6)
    y = s("ReduceMax", x, s.value(np.array([1])), keepdims=0)
    s.output(s("Sub", x, s("Unsqueeze", y, s.value(np.array([1])))))
    s.fold()
    assert s.operators() == ["ReduceMax", "Sub"]


def test_a_global_pool_and_its_flatten_are_a_mean() -> None:
    s = Sketch()
    s.output(s("Flatten", s("GlobalAveragePool", s.input("batch", 4, 5, 5)), name="flat"))
    assert applied(s.fold(), "pool_and_reshape")
    assert s.operators() == ["ReduceMean"]


def test_another_shape_is_refused() -> None:
    s = Sketch()
    y = s("ReduceMean", s.input("batch", 4, 5, 5), s.value(np.array([2, 3])), name="mean")
    s.output(s("Reshape", y, s.value(np.array([0, 2, 2])), name="pairs"))
    code, reason = refusal(s.fold(), "reduction_and_reshape")
    assert code == "shape_mismatch"
    assert "[batch, 2, 2], which no reduction writes" in reason


def test_equal_reductions_over_axes_written_differently_are_one() -> None:
    s = Sketch()
    x = s.input("batch", 6)
    one = s("ReduceMean", x, s.value(np.array([-1])))
    other = s("ReduceMean", x, s.value(np.array([1])))
    s.output(s("Sub", s("Mul", x, one), other))
    s.fold()
    assert s.operators() == ["ReduceMean", "Mul", "Sub"]
