import numpy as np
from sketch import Sketch, applied, refusal

from workbench.network import Tensor


def rotary(s: Sketch, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    sizes = s.value(np.array([half, half]))
    low, high = s.layer("Split", x, sizes, outputs=2, axis=-1)
    turned = s("Concat", s("Neg", high), low, axis=-1)
    return s("Add", s("Mul", x, cos), s("Mul", turned, sin))


def test_a_rotary_embedding_is_one_layer_with_its_heads() -> None:
    s = Sketch()
    x = s("Reshape", s("Softmax", s.input("batch", 5, 24)), s.value(np.array([0, 5, 3, 8])))
    x = s("Transpose", x, perm=(0, 2, 1, 3))
    cos, sin = (s.input(5, 8, name=n) for n in ("cos", "sin"))
    s.output(rotary(s, x, cos, sin))
    s.fuse()
    first, second = s.operators()
    assert first == "Softmax"
    assert sorted(second.split("+")) == sorted(
        ["Reshape", "Transpose", "Split", "Neg", "Concat", "Mul", "Mul", "Add"]
    )


def test_keys_behind_those_that_are_kept_are_turned_where_they_are_joined() -> None:
    s = Sketch()
    new = s("Transpose", s.input("batch", 5, 3, 4, name="new"), perm=(0, 2, 1, 3))
    kept = s.input("batch", 3, "past", 4, name="kept")
    s.output(s("Concat", kept, new, axis=2))
    assert applied(s.fuse(), "join_prologue")
    assert s.operators() == ["Transpose+Concat"]


def test_what_is_joined_is_finished_before_it_is_written() -> None:
    s = Sketch()
    parts = [s.input("batch", n, 4, name=f"part{n}") for n in (2, 3)]
    y = s("Mul", s("Concat", *parts, axis=1), s.weight(5, 1))
    s.output(s("Relu", y))
    assert applied(s.fuse(), "join_epilogue")
    assert s.operators() == ["Concat+Mul+Relu"]


def test_one_tensor_joined_with_itself_is_computed_for_each_part() -> None:
    s = Sketch()
    x = s("Tanh", s.input("batch", 4), name="bend")
    s.output(s("Concat", x, x, axis=1))
    s.fuse()
    assert s.operators() == ["Tanh+Concat"]


def test_a_whole_that_its_own_part_reads_is_computed_before() -> None:
    s = Sketch()
    x = s("Tanh", s.input("batch", 4, name="raw"), name="bend")
    s.output(rotary(s, x, s.weight(4), s.weight(4)))
    code, reason = refusal(s.fuse(), "join_prologue")
    assert code == "second_operand"
    assert "'bend_out' in 2 places" in reason


def test_a_part_that_others_read_stays_a_layer() -> None:
    s = Sketch()
    x = s("Tanh", s.input("batch", 4), name="bend")
    s.output(s("Concat", x, s.input("batch", 3, name="y"), axis=1), s("Softmax", x, name="soft"))
    code, reason = refusal(s.fuse(), "join_prologue")
    assert code == "second_consumer"
    assert "'soft'" in reason


def test_a_reshape_that_mixes_axes_stays_outside() -> None:
    s = Sketch()
    x = s("Reshape", s.input("batch", 6, 10), s.value(np.array([0, 4, 15])), name="mixed")
    s.output(s("Concat", x, s.input("batch", 2, 15, name="y"), axis=1))
    assert refusal(s.fuse(), "join_prologue")[0] == "mixes_axes"
