import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sketch import Sketch, applied

from workbench.network import Tensor


def turn(s: Sketch, x: Tensor, *perm: int, name: str = "") -> Tensor:
    return s("Transpose", x, perm=perm, name=name)


def test_transposes_around_activations_cancel() -> None:
    s = Sketch()
    x = turn(s, s.input("batch", 5, 8), 0, 2, 1)
    x = s("Clip", s("Tanh", x), s.value(0.0), s.value(0.5))
    s.output(turn(s, s("Mul", x, s.value(2.0)), 0, 2, 1))
    s.fold()
    assert s.operators() == ["Tanh", "Clip", "Mul"]


def test_tokens_first_around_a_projection_is_no_transpose_at_all() -> None:
    s = Sketch()
    x = turn(s, s("Softmax", s.input("batch", 5, 8)), 1, 0, 2)
    y = s("Add", s.linear(x, 6, name="fc"), s.weight(6, name="b"))
    s.output(turn(s, y, 1, 0, 2))
    assert applied(s.fold(), "transpose_later")
    assert s.operators() == ["Softmax", "MatMul", "Add"]


def test_a_transpose_that_meets_no_other_shuffle_stays() -> None:
    s = Sketch()
    s.output(s("Softmax", s("Tanh", turn(s, s.input("batch", 5, 8), 0, 2, 1))))
    assert s.fold() == ()


def test_a_transpose_of_the_last_axis_does_not_pass_a_product_or_a_bias() -> None:
    s = Sketch()
    x = turn(s, s.input("batch", 5, 8), 0, 2, 1)
    y = s("Add", s.linear(x, 6, name="fc"), s.weight(6, name="b"))
    s.output(turn(s, y, 0, 2, 1))
    s.fold()
    assert s.operators() == ["Transpose", "MatMul", "Add", "Transpose"]


def test_a_transpose_goes_back_to_the_shuffle_before_it() -> None:
    s = Sketch()
    x = s("Reshape", s("Softmax", s.input(5, "batch", 8)), s.value(np.array([5, -1, 2, 4])))
    x = s("Reshape", turn(s, x, 0, 1, 3, 2), s.value(np.array([5, -1, 8])))
    y = s("Add", s.linear(x, 6, name="fc"), s.weight(6, name="b"))
    s.output(s("Softmax", turn(s, y, 1, 0, 2, name="back")))
    assert len(applied(s.fold(), "transpose_earlier")) == 2
    assert s.operators()[-3:] == ["MatMul", "Add", "Softmax"]


def test_a_tensor_that_is_read_turned_and_straight_stays() -> None:
    s = Sketch()
    x = s("Tanh", turn(s, s.input("batch", 5, 8), 0, 2, 1))
    s.output(turn(s, x, 0, 2, 1), s("Softmax", x))
    assert s.fold() == ()


def test_a_number_on_its_way_to_the_weights_is_not_met_half_way() -> None:
    s = Sketch()
    y = s("Reshape", s.linear(s.input("batch", 5, 8), 8, name="q"), s.value(np.array([0, 5, 2, 4])))
    y = s("Mul", turn(s, y, 0, 2, 1, 3), s.value([0.5]))
    s.output(s("Softmax", turn(s, y, 0, 1, 3, 2)))
    s.fold()
    assert s.operators() == ["MatMul", "Reshape", "Transpose", "Softmax"]


def test_a_transpose_between_two_shuffles_comes_to_rest() -> None:
    """One rule could send it on to the reshape, another back to the Unsqueeze, without end."""
    s = Sketch()
    x = s("Tanh", s("Unsqueeze", s.input(2, 4, 6), s.value(np.array([0]))))
    x = s("Sub", turn(s, x, 1, 2, 3, 0), s.value(0.5))
    x = s("Mul", x, s.value(2.0))
    s.output(s("Reshape", x, s.value(np.array([2, 24]))))
    assert len(applied(s.fold(), "transpose_earlier")) < 3


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_chains_of_shuffles_factors_and_products_come_to_rest(data: st.DataObject) -> None:
    s = Sketch(data.draw(st.integers(0, 999)))
    x = s.input(2, 4, 6)
    kinds = ("turn", "turn", "split", "merge", "unsqueeze", "scale", "shift", "act", "fc", "bias")
    for kind in data.draw(st.lists(st.sampled_from(kinds), min_size=3, max_size=12)):
        rank, last = len(x.shape), x.shape[-1]
        match kind:
            case "turn":
                x = turn(s, x, *data.draw(st.permutations(range(rank))))
            case "split" if rank < 5 and last % 2 == 0:
                x = s("Reshape", x, s.value(np.array([*x.shape[:-1], 2, last // 2])))
            case "merge" if rank > 2:
                x = s("Reshape", x, s.value(np.array([*x.shape[:-2], -1])))
            case "unsqueeze" if rank < 5:
                x = s("Unsqueeze", x, s.value(np.array([data.draw(st.integers(0, rank))])))
            case "scale":
                x = s("Mul", x, s.value(data.draw(st.sampled_from([0.5, 2.0]))))
            case "shift":
                x = s("Sub", x, s.value(0.5))
            case "fc":
                x = s.linear(x, data.draw(st.sampled_from([4, 6])), name="fc")
            case "bias":
                x = s("Add", x, s.weight(last))
            case _:
                x = s("Tanh", x)
    s.output(s("Identity", x))
    tried = (*s.fold(), *s.fuse())
    assert [a for a in tried if a.outcome == "quarantined"] == []
