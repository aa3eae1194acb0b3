import numpy as np
from sketch import Sketch, applied, refusal

from workbench.network import Tensor


def split(s: Sketch, *sizes: int) -> list[Tensor]:
    x = s("CumSum", s.input("batch", sum(sizes)), s.value(np.array(0)))
    given = s.value(np.array(sizes))
    return s.layer("Split", x, given, name="split", outputs=len(sizes), axis=-1)


def test_the_same_activation_of_every_part_runs_before_the_split() -> None:
    s = Sketch()
    for i, part in enumerate(split(s, 3, 5)):
        s.output(s("Clip", part, s.value(0.0), s.value(6.0), name=f"clip{i}"))
    (attempt,) = applied(s.fuse(), "split_later")
    assert attempt.place == ("split", "clip0", "clip1")
    assert s.operators() == ["CumSum", "Clip", "Split"]


def test_a_bias_of_each_part_becomes_one_wide_bias() -> None:
    s = Sketch()
    for i, part in enumerate(split(s, 3, 5)):
        s.output(s("Add", part, s.weight(part.shape[-1], name=f"b{i}")))
    assert applied(s.fuse(), "split_later")
    assert s.network.layers[1].inputs[1].shape == (8,)


def test_parts_that_go_on_differently_are_refused_by_name() -> None:
    s = Sketch()
    a, b = split(s, 3, 5)
    s.output(s("Relu", a, name="one"), s("Tanh", b, name="two"))
    code, reason = refusal(s.fuse(), "split_later")
    assert code == "different_epilogues"
    assert "Relu 'one', Tanh 'two'" in reason


def test_parts_with_different_operands_are_refused() -> None:
    s = Sketch()
    a, b = split(s, 4, 4)
    s.output(s("Add", a, s.weight(1, name="p")), s("Add", b, s.weight(1, name="q")))
    assert refusal(s.fuse(), "split_later")[0] == "different_epilogues"
