from sketch import Sketch, applied, refusal


def test_scale_per_channel_joins_the_convolution() -> None:
    s = Sketch()
    y = s.conv(s.input("batch", 3, 6, 6), 4, name="conv")
    s.output(s("Mul", s.weight(1, 4, 1, 1, name="gain"), y))
    assert applied(s.fuse(), "scale")
    assert s.operators() == ["Conv+Mul"]


def test_scale_of_the_whole_output_shape_is_refused() -> None:
    s = Sketch()
    y = s.conv(s.input("batch", 3, 6, 6), 4, name="conv")
    s.output(s("Mul", y, s.weight(4, 6, 6, name="mask")))
    code, reason = refusal(s.fuse(), "scale")
    assert code == "shape_mismatch"
    assert "[4, 6, 6]" in reason
