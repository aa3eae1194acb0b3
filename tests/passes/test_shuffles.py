import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sketch import Sketch, applied, refusal

from workbench.passes.shuffles import merged_axes


def test_a_transpose_and_its_inverse_cancel() -> None:
    s = Sketch()
    y = s("Transpose", s("Relu", s.input("batch", 3, 4)), perm=(2, 0, 1))
    s.output(s("Tanh", s("Transpose", y, perm=(1, 2, 0))))
    assert applied(s.fold(), "transpose_pair")
    assert s.operators() == ["Relu", "Tanh"]


def test_two_transposes_become_one() -> None:
    s = Sketch()
    y = s("Transpose", s("Relu", s.input("batch", 3, 4)), perm=(2, 0, 1))
    s.output(s("Tanh", s("Transpose", y, perm=(0, 2, 1))))
    s.fold()
    assert s.operators() == ["Relu", "Transpose", "Tanh"]
    assert s.network.layers[1].attributes["perm"] == (2, 1, 0)


def test_a_transpose_that_others_read_stays_for_them() -> None:
    s = Sketch()
    y = s("Transpose", s("Relu", s.input("batch", 3, 4)), perm=(0, 2, 1))
    s.output(s("Softmax", y), s("Tanh", s("Transpose", y, perm=(0, 2, 1))))
    s.fold()
    assert sorted(s.operators()) == ["Relu", "Softmax", "Tanh", "Transpose"]


@pytest.mark.parametrize("first", ["Reshape", "Flatten", "Unsqueeze"])
def test_reshapes_in_a_row_become_one_with_a_written_shape(first: str) -> None:
    s = Sketch()
    x = s("Relu", s.input("batch", 6, 4))
    match first:
        case "Reshape":
            y = s("Reshape", x, s.value(np.array([0, 8, -1])))
        case "Flatten":
            y = s("Flatten", x, axis=1)
        case _:
            y = s("Unsqueeze", x, s.value(np.array([1])))
    s.output(s("Tanh", s("Reshape", y, s.value(np.array([-1, 2, 12])), name="last")))
    assert applied(s.fold(), "reshape_pair")
    assert s.operators() == ["Relu", "Reshape", "Tanh"]
    assert [str(v) for v in s.network.layer("last").inputs[1].value] == ["batch", "2", "12"]


def test_unsqueeze_and_squeeze_cancel() -> None:
    s = Sketch()
    axes = s.value(np.array([1]))
    y = s("Unsqueeze", s("Relu", s.input("batch", 4)), axes)
    s.output(s("Tanh", s("Squeeze", y, axes)))
    s.fold()
    assert s.operators() == ["Relu", "Tanh"]


def test_the_exporters_transposed_keys_are_one_transpose() -> None:
    s = Sketch()
    heads = s("Transpose", s.input("batch", 5, 3, 8), perm=(0, 2, 1, 3))
    flat = s("Reshape", heads, s.value(np.array([-1, 5, 8])))
    swapped = s("Transpose", flat, perm=(0, 2, 1))
    shape = s("Concat", s("Shape", heads, end=2), s.value(np.array([8, 5])), axis=0)
    s.output(s("Tanh", s("Reshape", swapped, shape)))
    attempts = s.fold()
    assert applied(attempts, "transpose_between_reshapes")
    assert s.operators() == ["Transpose", "Tanh"]
    assert s.network.layers[0].attributes["perm"] == (0, 2, 3, 1)


def test_reshapes_that_cut_axes_apart_hide_no_transpose() -> None:
    s = Sketch()
    y = s("Reshape", s("Relu", s.input("batch", 6, 4)), s.value(np.array([-1, 8, 3])))
    y = s("Transpose", y, perm=(0, 2, 1))
    s.output(s("Tanh", s("Reshape", y, s.value(np.array([-1, 6, 4])))))
    assert refusal(s.fold(), "transpose_between_reshapes")[0] == "mixes_axes"


def test_a_transpose_of_an_axis_of_one_is_a_reshape() -> None:
    s = Sketch()
    s.output(s("Tanh", s("Transpose", s("Relu", s.input("batch", 1, 4)), perm=(0, 2, 1))))
    assert applied(s.fold(), "transpose_of_ones")
    assert s.operators() == ["Relu", "Reshape", "Tanh"]


@pytest.mark.parametrize(
    ("inner", "outer", "groups"),
    [
        ((2, 3, 4), (6, 4), [[0, 1], [2]]),
        ((2, 3, 4), (2, 12), [[0], [1, 2]]),
        ((2, 3, 1), (2, 3), [[0], [1, 2]]),
        ((2, 3), (2, 1, 3), [[0], [], [1]]),
        ((2, 6), (4, 3), None),
        ((2, 3, 4), (2, 3), None),
    ],
)
def test_which_axes_a_reshape_merges(inner: object, outer: object, groups: object) -> None:
    assert merged_axes(inner, outer) == groups


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_random_shuffles_keep_their_meaning(data: st.DataObject) -> None:
    s = Sketch()
    y = s("Relu", s.input("batch", 2, 3, 4))
    for _ in range(data.draw(st.integers(1, 6))):
        rank = len(y.shape)
        kind = data.draw(st.sampled_from(["transpose", "flat", "back", "unsqueeze"]))
        match kind:
            case "transpose":
                y = s("Transpose", y, perm=tuple(data.draw(st.permutations(range(rank)))))
            case "flat":
                y = s("Reshape", y, s.value(np.array([-1, 24])))
            case "back":
                y = s("Reshape", y, s.value(np.array(data.draw(
                    st.sampled_from([(-1, 4, 6), (-1, 2, 3, 4), (-1, 2, 12), (4, -1, 6)])
                ))))  # fmt: skip
            case _:
                y = s("Unsqueeze", y, s.value(np.array([data.draw(st.integers(0, rank))])))
    s.output(s("Tanh", y))
    s.fold()
