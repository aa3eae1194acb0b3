import numpy as np
from sketch import Sketch, applied, refusal
from test_joins import rotary

from workbench.network import Tensor


def parts(s: Sketch) -> list[Tensor]:
    x = s("Softmax", s.input("batch", 5, 24))
    return s.layer("Split", x, s.value(np.array([8, 8, 8])), outputs=3, axis=-1, name="split")


def test_parts_that_are_read_in_place_are_not_copied_out() -> None:
    s = Sketch()
    cos, sin = (s.weight(8, name=n) for n in ("cos", "sin"))
    for x in parts(s):
        s.output(rotary(s, x, cos, sin))
    assert applied(s.fuse(), "split_views")
    assert [x.split("+")[0] for x in s.operators()] == ["Softmax", "Slice", "Slice", "Slice"]


def test_a_part_that_a_product_reads_is_copied_out() -> None:
    s = Sketch()
    a, b, c = parts(s)
    s.output(rotary(s, a, s.weight(8), s.weight(8)), s("Softmax", b), s.linear(c, 4, name="fc"))
    code, reason = refusal(s.fuse(), "split_views")
    assert code == "reads_no_views"
    assert "reads no slice of 'softmax_out' in place" in reason
