import numpy as np
from sketch import Sketch, applied, refusal


def test_stacked_tensors_are_read_as_slices() -> None:
    s = Sketch()
    x = s("Tanh", s.input("batch", 3, 4))
    for k in (0, 1, -1):
        s.output(s("Gather", x, s.value(np.array(k)), axis=1, name=f"part{k}"))
    assert len(applied(s.fold(), "unbinding")) == 3
    assert s.operators() == ["Tanh"] + ["Slice", "Reshape"] * 3


def test_a_single_gather_stays() -> None:
    s = Sketch()
    s.output(s("Gather", s("Tanh", s.input("batch", 3, 4)), s.value(np.array(0)), axis=1))
    code, reason = refusal(s.fold(), "unbinding")
    assert (code, reason) == ("alone", "no other layer takes a part of 'tanh_out'")
