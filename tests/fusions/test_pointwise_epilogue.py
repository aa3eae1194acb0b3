import numpy as np
from sketch import Sketch, applied, refusal

from workbench.network import Tensor


def gelu(s: Sketch, x: Tensor) -> Tensor:
    """The erf spelling of PyTorch's exporter."""
    e = s("Erf", s("Div", x, s.value(np.sqrt(2.0), "sqrt2")))
    return s("Mul", s("Mul", x, s("Add", e, s.value(1.0, "one"))), s.value(0.5, "half"))


def test_gelu_written_out_joins_the_matmul_and_its_bias() -> None:
    s = Sketch()
    y = s("Add", s.linear(s.input("batch", 5, 8), 6, name="fc"), s.weight(6, name="b"))
    s.output(gelu(s, y))
    attempts = s.fuse()
    assert s.operators() == ["MatMul+Add+Div+Erf+Add+Mul+Mul"]
    assert len(applied(attempts, "pointwise_epilogue")) == 1
    assert all(a.applied for a in attempts), "what only came too early is not listed as refused"
    assert s.network.layer("fc").body.anchor_node.op == "MatMul"


def test_silu_written_out_joins_the_convolution() -> None:
    s = Sketch()
    y = s.conv(s.input("batch", 3, 5, 5), 4, name="conv")
    s.output(s("Mul", y, s("Sigmoid", y)))
    s.fuse()
    assert s.operators() == ["Conv+Sigmoid+Mul"]


def test_a_gate_of_the_same_shape_is_read_by_the_epilogue() -> None:
    s = Sketch()
    x = s.input("batch", 8)
    gate = s("Softmax", x, name="gate")
    s.output(s("Mul", s.linear(x, 8, name="fc"), gate))
    assert applied(s.fuse(), "pointwise_epilogue")
    assert s.operators() == ["Softmax", "MatMul+Mul"]


def test_an_epilogue_is_refused_when_it_reads_another_shape() -> None:
    s = Sketch()
    y = s.linear(s.input("batch", 5, 8), 6, name="fc")
    s.output(s("Mul", y, s.input("batch", 1, 6, name="gate")))
    code, reason = refusal(s.fuse(), "pointwise_epilogue")
    assert code == "shape_mismatch"
    assert "'gate' has shape [batch, 1, 6]" in reason
