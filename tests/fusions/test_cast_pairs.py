import numpy as np
import pytest
from sketch import Sketch, applied, refusal

from workbench.datatypes import DataType
from workbench.fusions.cast_pairs import holds


def test_a_cast_up_and_back_is_none() -> None:
    s = Sketch()
    x = s("Relu", s("Cast", s.input("batch", 4), to=DataType.BF16))
    up = s("Cast", x, to=DataType.FLOAT, name="up")
    s.output(s("Tanh", s("Cast", up, to=DataType.BF16, name="down")))
    (attempt,) = applied(s.fuse(), "cast_pairs")
    assert attempt.place == ("up", "down")
    assert not s.network.has_layer("down")
    assert s.network.absorbed["down"]


def test_a_cast_that_is_read_elsewhere_stays_for_that_reader() -> None:
    s = Sketch()
    x = s("Cast", s.input("batch", 4), to=DataType.HALF)
    up = s("Cast", x, to=DataType.FLOAT, name="up")
    s.output(s("Softmax", up), s("Softmax", s("Cast", up, to=DataType.HALF, name="down")))
    assert applied(s.fuse(), "cast_pairs")
    assert sorted(s.operators()) == ["Cast", "Cast+Softmax", "Softmax"]


def test_a_cast_through_a_narrower_type_is_refused() -> None:
    s = Sketch()
    down = s("Cast", s.input("batch", 4), to=DataType.HALF)
    s.output(s("Cast", down, to=DataType.FLOAT))
    code, reason = refusal(s.fuse(), "cast_pairs")
    assert code == "lossy_cast"
    assert reason == "HALF does not hold every FLOAT: the values would change"


@pytest.mark.parametrize(
    ("wide", "narrow", "answer"),
    [
        ("FLOAT", "HALF", True),
        ("FLOAT", "BF16", True),
        ("HALF", "BF16", False),
        ("BF16", "HALF", False),
        ("DOUBLE", "INT32", True),
        ("FLOAT", "INT32", False),
        ("FLOAT", "INT16", True),
        ("INT64", "UINT8", True),
        ("UINT8", "INT8", False),
        ("INT32", "BOOL", True),
        ("INT32", "FLOAT", False),
    ],
)
def test_which_type_holds_every_value_of_which(wide: str, narrow: str, answer: bool) -> None:
    assert holds(DataType(wide), DataType(narrow)) is answer


@pytest.mark.parametrize("mover", ["Transpose", "Reshape", "MaxPool"])
def test_a_cast_back_passes_what_only_moves_elements(mover: str) -> None:
    s = Sketch()
    x = s("Tanh", s.input("batch", 4, 6, 6, dtype="float16"))
    wide = s("Cast", x, to=DataType.FLOAT, name="up")
    match mover:
        case "Transpose":
            moved = s("Transpose", wide, perm=(0, 2, 3, 1))
        case "Reshape":
            moved = s("Reshape", wide, s.value(np.array([0, 24, 6])))
        case _:
            moved = s("MaxPool", wide, kernel_shape=(2, 2))
    s.output(s("Cast", moved, to=DataType.HALF, name="down"))
    s.fold()
    assert s.operators() == ["Tanh", mover]


def test_a_cast_that_follows_no_cast_stays_behind_the_shuffle() -> None:
    s = Sketch()
    x = s("Transpose", s("Softmax", s.input("batch", 4, 6)), perm=(0, 2, 1))
    s.output(s("Cast", x, to=DataType.HALF))
    s.fold()
    assert s.operators() == ["Softmax", "Transpose", "Cast"]


def test_a_cast_behind_one_that_loses_digits_comes_to_rest() -> None:
    """It could not go away; a transpose would be sent back and forth."""
    s = Sketch()
    x = s("Transpose", s.input("batch", 4, 6), perm=(2, 1, 0))
    x = s("Cast", s("Tanh", s("Cast", x, to=DataType.DOUBLE)), to=DataType.FLOAT)
    x = s("Transpose", x, perm=(0, 2, 1))
    s.output(s("Tanh", s("Cast", x, to=DataType.DOUBLE)))
    assert not applied(s.fold(), "cast_earlier")
