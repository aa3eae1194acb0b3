from sketch import Sketch, applied, refusal


def test_bias_of_a_convolution_runs_along_its_channels() -> None:
    s = Sketch()
    y = s.conv(s.input("batch", 3, 6, 6), 4, name="conv")
    s.output(s("Add", y, s.weight(4, 1, 1, name="b"), name="add"))
    (attempt,) = applied(s.fuse(), "bias")
    assert attempt.place == ("conv", "add")
    assert attempt.created == ("conv",)
    assert s.operators() == ["Conv+Add"]
    assert s.network.layer("conv").origin == ("conv", "add")
    assert s.network.layer("conv").body.anchor_node.op == "Conv"


def test_bias_before_or_after_a_matmul_is_the_same() -> None:
    for swapped in (False, True):
        s = Sketch()
        y, b = s.linear(s.input("batch", 5, 8), 6, name="fc"), s.weight(6, name="b")
        s.output(s("Add", *((b, y) if swapped else (y, b))))
        s.fuse()
        assert s.operators() == ["MatMul+Add"]


def test_bias_along_another_axis_is_refused_with_both_shapes() -> None:
    s = Sketch()
    y = s.linear(s.input("batch", 5, 8), 6, name="fc")
    s.output(s("Add", y, s.weight(5, 1, name="positions")))
    code, reason = refusal(s.fuse(), "bias")
    assert code == "shape_mismatch"
    assert "'positions' has shape [5, 1]" in reason
    assert "6 on axis 2" in reason
    assert s.operators() == ["MatMul", "Add"]


def test_bias_is_refused_when_the_product_has_a_second_consumer() -> None:
    s = Sketch()
    y = s.linear(s.input("batch", 8), 6, name="fc")
    s.output(s("Add", y, s.weight(6, name="b")), s("Softmax", y, name="soft"))
    code, reason = refusal(s.fuse(), "bias")
    assert code == "second_consumer"
    assert "Softmax 'soft'" in reason


def test_bias_is_refused_when_the_product_is_a_network_output() -> None:
    s = Sketch()
    y = s.linear(s.input("batch", 8), 6, name="fc")
    s.output(y, s("Add", y, s.weight(6, name="b")))
    code, reason = refusal(s.fuse(), "bias")
    assert code == "marked_output"
    assert "'fc_out' is a network output" in reason
