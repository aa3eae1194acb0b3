import numpy as np
from sketch import Sketch, refusal

from workbench.network import Tensor


def group_norm(s: Sketch, x: Tensor, groups: int, *, scale: Tensor | None = None) -> Tensor:
    gathered = s("Reshape", x, s.value(np.array([0, groups, -1])))
    ones = scale or s.value(np.ones(groups))
    y = s("InstanceNormalization", gathered, ones, s.value(np.zeros(groups)), name="norm")
    channels, *rest = (int(d) for d in x.shape[1:])
    return s("Reshape", y, s.value(np.array([0, channels, *rest])))


def test_an_instance_norm_of_groups_with_scale_and_bias_is_a_group_norm() -> None:
    s = Sketch()
    y = group_norm(s, s.input("batch", 6, 4, 4), 3)
    s.output(s("Add", s("Mul", y, s.weight(6, 1, 1, name="g")), s.weight(6, 1, 1, name="b")))
    s.fold()
    assert s.operators() == ["GroupNormalization"]
    assert s.network.layers[0].attributes["num_groups"] == 3


def test_groups_that_are_scaled_by_themselves_are_refused() -> None:
    s = Sketch()
    s.output(group_norm(s, s.input("batch", 6, 4, 4), 3, scale=s.weight(3, name="each")))
    code, reason = refusal(s.fold(), "group_norm_spelling")
    assert (code, reason) == ("scaled", "'norm' scales each group by itself")


def test_a_factor_a_pixel_stays_behind() -> None:
    s = Sketch()
    y = group_norm(s, s.input("batch", 6, 4, 4), 3)
    s.output(s("Mul", y, s.weight(4, 4, name="pixels")))
    assert refusal(s.fold(), "group_norm_scale")[0] == "shape_mismatch"
    assert s.operators() == ["GroupNormalization", "Mul"]


def test_groups_of_part_of_a_channel_are_refused() -> None:
    s = Sketch()
    s.output(group_norm(s, s.input("batch", 6, 4, 4), 12))
    code, reason = refusal(s.fold(), "group_norm_spelling")
    assert code == "shape_mismatch"
    assert "not whole groups of 6 channels" in reason
