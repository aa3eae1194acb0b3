import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tactic_bodies import Draft

from workbench.body import VIEWS
from workbench.dimensions import Shape, symbol
from workbench.records import Refusal
from workbench.tactics.strided import Strided, follow, whole_axes

settings.register_profile("strided", deadline=None, max_examples=50)


def elements(view: Strided) -> np.ndarray:
    """The element numbers of a view, in its order."""
    return view.offsets(range(len(view.axes))).reshape(view.shape)


def numbered(*shape: int) -> np.ndarray:
    return np.arange(int(np.prod(shape))).reshape(shape)


def test_a_part_of_a_wide_product_as_heads_is_a_view() -> None:
    whole = Strided.whole((2, 5, 36))
    part = whole.part(2, 12, 12)
    assert part is not None
    split = part.reshaped((2, 5, 3, 4))
    assert split is not None
    turned = split.transposed((0, 2, 3, 1))
    expected = numbered(2, 5, 36)[..., 12:24].reshape(2, 5, 3, 4).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(elements(turned), expected)
    assert [turned.step(a) for a in range(4)] == [180, 4, 1, 36]


def test_a_slice_with_a_step_is_a_view() -> None:
    view = Strided.whole((4, 9)).sliced({1: (7, 3, -2), 0: (1, 2, 1)})
    assert view is not None
    np.testing.assert_array_equal(elements(view), numbered(4, 9)[1:3, 7:1:-2])


def test_repeated_heads_stay_a_view_when_they_are_merged() -> None:
    shared = Strided.whole((2, 2, 1, 5, 4)).broadcast((2, 2, 3, 5, 4))
    assert shared is not None
    merged = shared.reshaped((2, 6, 5, 4))
    assert merged is not None
    expected = np.broadcast_to(numbered(2, 2, 1, 5, 4), (2, 2, 3, 5, 4)).reshape(2, 6, 5, 4)
    np.testing.assert_array_equal(elements(merged), expected)
    assert merged.step(1) is None


def test_a_turned_tensor_does_not_reshape_across_its_axes() -> None:
    turned = Strided.whole((4, 6)).transposed((1, 0))
    assert turned.reshaped((8, 3)) is None
    assert turned.reshaped((3, 2, 4)) is not None


@given(st.permutations(range(4)), st.lists(st.integers(1, 4), min_size=4, max_size=4))
@settings(parent=settings.get_profile("strided"))
def test_transposes_and_merges_agree_with_numpy(order: list[int], sizes: list[int]) -> None:
    view = Strided.whole(sizes).transposed(order)
    array = numbered(*sizes).transpose(order)
    merged = (array.shape[0] * array.shape[1], *array.shape[2:])
    found = view.reshaped(merged)
    assert found is not None
    np.testing.assert_array_equal(elements(found), array.reshape(merged))


B, T = symbol("batch"), symbol("tokens")


@pytest.mark.parametrize(
    ("before", "after", "whole"),
    [
        ((B, T, 12), (B, T, 3, 4), True),
        ((B, T, 3, 4), (B, T, 12), True),
        ((B, T, 3, 4), (B * T, 12), True),
        ((B, 1, T, 4), (B, T, 1, 4), True),
        ((B, 6, 10), (B, 4, 15), False),
        ((B, T, 12), (T, B, 12), False),
    ],
)
def test_reshapes_of_whole_axes_are_told_from_others(
    before: Shape, after: Shape, whole: bool
) -> None:
    assert whole_axes(before, after) is whole


OPERANDS = {
    "Expand": ([2, 3, 4],),
    "Reshape": ([3, 1, 4],),
    "Slice": ([0], [2], [1], [1]),
    "Squeeze": ([0],),
    "Unsqueeze": ([0],),
}
"""What the operators read beside the tensor of shape (1, 3, 4)."""


@pytest.mark.parametrize("op", sorted(VIEWS))
def test_each_operator_that_views_its_input_is_followed_as_the_reference_has_it(op: str) -> None:
    draft = Draft()
    x = draft.input(1, 3, 4)
    operands = [draft.literal(v, "int64") for v in OPERANDS.get(op, ())]
    given = {"axis": 2, "num_outputs": 2} if op == "Split" else {}
    outputs = draft.many(op, x, *operands, outputs=1 + (op == "Split"), **given)
    body = draft.body(*outputs)
    views = follow(body.nodes[-1], Strided.whole((1, 3, 4)), body)
    assert not isinstance(views, Refusal), views
    values = body.evaluate({x: numbered(1, 3, 4).astype(np.float32)})
    for view, name in zip(views, outputs, strict=True):
        np.testing.assert_array_equal(elements(view), values[name])
