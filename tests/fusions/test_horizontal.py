from sketch import Sketch, applied, refusal


def test_sibling_convolutions_become_a_wide_one_and_a_split() -> None:
    s = Sketch()
    x = s.input("batch", 3, 5, 5)
    for i, channels in enumerate((4, 6, 2)):
        s.output(s("Relu", s.conv(x, channels, 1, name=f"branch{i}"), name=f"act{i}"))
    attempts = s.fuse()
    assert applied(attempts, "sibling_convolutions")[0].place == ("branch0", "branch1", "branch2")
    assert applied(attempts, "split_later")
    assert s.operators() == ["Conv+Relu", "Split"]
    wide = s.network.layers[0]
    assert wide.outputs[0].shape[1] == 12
    assert {"branch0", "branch1", "branch2", "act0"} <= set(wide.origin)


def test_queries_keys_and_values_are_one_product_with_one_bias() -> None:
    s = Sketch()
    x = s.input("batch", 5, 8)
    for n in "qkv":
        y = s("Add", s.linear(x, 8, name=n), s.weight(8, name=f"{n}.b"), name=f"{n}.bias")
        s.output(s("Softmax", y))
    s.fuse()
    assert s.operators()[:2] == ["MatMul+Add", "Split"]
    weight = s.network.layers[0].inputs[1]
    assert weight.shape == (8, 24)
    assert weight.weight.model_weights == ("q.w", "k.w", "v.w")


def test_gemms_with_transposed_weights_are_laid_side_by_side() -> None:
    s = Sketch()
    x = s.input("batch", 8)
    for i in range(2):
        w, b = s.weight(4 + i, 8, name=f"w{i}"), s.weight(4 + i, name=f"b{i}")
        s.output(s("Softmax", s("Gemm", x, w, b, name=f"fc{i}", transB=1)))
    s.fuse()
    assert s.operators()[:2] == ["Gemm", "Split"]


def test_quantized_siblings_stay_quantized() -> None:
    s = Sketch()
    x = s.quantize(s.input("batch", 3, 5, 5), name="x")
    for i in range(2):
        y = s("Conv", x, s.stored(4, 3, 1, 1, name=f"w{i}"), name=f"c{i}")
        s.output(s("Softmax", y))
    attempts = s.fuse()
    assert applied(attempts, "sibling_convolutions")
    assert "DequantizeLinear+DequantizeLinear+Conv" in s.operators()


def test_siblings_of_different_geometry_are_refused_by_name() -> None:
    s = Sketch()
    x = s.input("batch", 3, 5, 5)
    s.output(s.conv(x, 4, 1, name="small"), s.conv(x, 4, 3, name="large"))
    code, reason = refusal(s.fuse(), "sibling_convolutions")
    assert code == "siblings_differ"
    assert reason == "kernel: 'small' has (1, 1), 'large' has (3, 3)"


def test_siblings_with_different_epilogues_are_left_to_vertical_fusion() -> None:
    s = Sketch()
    x = s.input("batch", 3, 5, 5)
    s.output(s("Relu", s.conv(x, 4, 1, name="a")), s.conv(x, 4, 1, name="b"))
    code, reason = refusal(s.fuse(), "sibling_convolutions")
    assert code == "different_epilogues"
    assert "'a' goes on with Relu, 'b' with no epilogue" in reason
    assert s.operators() == ["Conv+Relu", "Conv"]


def test_siblings_whose_weights_are_computed_are_refused() -> None:
    s = Sketch()
    x, w = s.input("batch", 8), s.input(8, 8, name="given")
    s.output(s("MatMul", x, w, name="a"), s.linear(x, 8, name="b"))
    code, reason = refusal(s.fuse(), "sibling_products")
    assert code == "not_constant"
    assert "'given' is not a constant: it is a network input" in reason


def test_siblings_quantized_by_different_scales_are_refused() -> None:
    s = Sketch()
    x = s.quantize(s.input("batch", 8), name="x")
    for i in range(2):
        y = s("MatMul", x, s.stored(8, 8, axis=1, name=f"w{i}"), name=f"fc{i}")
        s.output(s.quantize(y, 0.1 + i, name=f"y{i}"))
    assert refusal(s.fuse(), "sibling_products")[0] == "scales_differ"


def test_a_layer_that_depends_on_another_is_no_sibling() -> None:
    s = Sketch()
    x = s.input(8, 8)
    y = s.linear(x, 8, name="a")
    s.output(s("MatMul", x, s("Softmax", y), name="b"))
    assert refusal(s.fuse(), "sibling_products")[0] == "not_constant"
    assert s.network.num_layers == 3


def test_siblings_share_the_input_but_not_the_bias() -> None:
    s = Sketch()
    x = s.input("batch", 3, 5, 5)
    a = s("Conv", x, s.weight(4, 3, 1, 1), s.weight(4, name="b"), name="with")
    s.output(a, s.conv(x, 4, 1, name="without"))
    code, reason = refusal(s.fuse(), "sibling_convolutions")
    assert (code, reason) == ("siblings_differ", "bias: 'with' has True, 'without' has False")
