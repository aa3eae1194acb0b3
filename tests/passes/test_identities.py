import numpy as np
import pytest
from sketch import Sketch, applied, refusal

from workbench.datatypes import DataType
from workbench.network import Tensor


def spelled(s: Sketch, x: Tensor, kind: str) -> Tensor:
    match kind:
        case "x + 0":
            return s("Add", x, s.value(0.0), name="same")
        case "0 + x":
            return s("Add", s.value(np.zeros(4, np.float32)), x, name="same")
        case "x - 0":
            return s("Sub", x, s.value(0.0), name="same")
        case "1 * x":
            return s("Mul", s.value(1.0), x, name="same")
        case "x / 1":
            return s("Div", x, s.value(1.0), name="same")
        case "identity":
            return s("Identity", x, name="same")
        case "dropout":
            return s("Dropout", x, name="same")
        case "cast":
            return s("Cast", x, name="same", to=DataType.FLOAT)
        case "concat":
            return s("Concat", x, name="same", axis=0)
        case "transpose":
            return s("Transpose", x, name="same", perm=(0, 1))
        case "reshape":
            return s("Reshape", x, s.value(np.array([0, 4])), name="same")
        case "slice":
            start, end, axis = s.value(np.array([0])), s.value(np.array([2**40])), np.array([1])
            return s("Slice", x, start, end, s.value(axis), name="same")
        case "pad":
            return s("Pad", x, s.value(np.zeros(4, np.int64)), name="same")
        case "tile":
            return s("Tile", x, s.value(np.array([1, 1])), name="same")
        case "split":
            return s("Split", x, s.value(np.array([4])), name="same", axis=1)
        case _:
            return s("Expand", x, s.value(np.array([1, 4])), name="same")


@pytest.mark.parametrize(
    "kind",
    ["x + 0", "0 + x", "x - 0", "1 * x", "x / 1", "identity", "dropout", "cast", "concat",
     "transpose", "reshape", "expand", "slice", "pad", "tile", "split"],
)  # fmt: skip
def test_a_layer_that_changes_nothing_is_left_out(kind: str) -> None:
    s = Sketch()
    x = s("Relu", s.input("batch", 4))
    s.output(s("Tanh", spelled(s, x, kind)))
    assert applied(s.fold(), "identities")
    assert s.operators() == ["Relu", "Tanh"]
    assert s.network.absorbed["same"] == f"tensor {x.name} (identities)"


def test_dropout_in_training_is_no_identity() -> None:
    s = Sketch()
    s.output(s("Dropout", s.input(4), s.value(0.5), s.value(np.array(True)), seed=3))
    assert not applied(s.fold(), "identities")
    assert s.operators() == ["Dropout"]


@pytest.mark.parametrize("kind", ["x - 0", "x / 1"])
def test_the_neutral_value_on_the_other_side_is_no_identity(kind: str) -> None:
    s = Sketch()
    x, operator = s.input("batch", 4), "Sub" if kind == "x - 0" else "Div"
    s.output(s(operator, s.value(1.0 if operator == "Div" else 0.0), x))
    assert not applied(s.fold(), "identities")


def test_adding_zeros_of_a_larger_shape_is_no_identity() -> None:
    s = Sketch()
    s.output(s("Add", s.input(4), s.value(np.zeros((3, 4), np.float32))))
    assert not s.fold()


def test_an_output_keeps_its_public_name() -> None:
    s = Sketch()
    y = s("Identity", s("Relu", s.input("batch", 4)))
    name = y.name
    s.output(y)
    s.fold()
    assert s.operators() == ["Relu"]
    assert [t.name for t in s.network.outputs] == [name]


def test_an_input_cannot_be_an_output_under_another_name() -> None:
    s = Sketch()
    s.output(s("Identity", s.input("batch", 4)))
    code, reason = refusal(s.fold(), "identities")
    assert code == "marked_output"
    assert "another name of 'x'" in reason
    assert s.operators() == ["Identity"]


def test_a_slice_that_turns_the_elements_round_is_no_identity() -> None:
    s = Sketch()
    bounds = (np.array([-1]), np.array([-(2**40)]), np.array([1]), np.array([-1]))
    s.output(s("Slice", s.input("batch", 4), *map(s.value, bounds)))
    s.fold()
    assert s.operators() == ["Slice"]


@pytest.mark.parametrize("operator", ["Relu", "Abs", "Ceil", "Floor", "Round", "Sign"])
def test_a_function_that_changes_its_own_result_no_more_is_applied_once(operator: str) -> None:
    s = Sketch()
    s.output(s("Tanh", s(operator, s(operator, s.input("batch", 4)))))
    assert applied(s.fold(), "applied_twice")
    assert s.operators() == [operator, "Tanh"]


def test_the_negative_of_a_negative_is_the_tensor() -> None:
    s = Sketch()
    x = s("Relu", s.input("batch", 4))
    once = s("Neg", x, name="once")
    s.output(s("Tanh", s("Neg", once)), s("Exp", once))
    s.fold()
    assert sorted(s.operators()) == ["Exp", "Neg", "Relu", "Tanh"]
