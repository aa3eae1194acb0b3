import numpy as np
import pytest
from sketch import Sketch, applied, refusal


@pytest.mark.parametrize(
    "operator", ["Relu", "Sigmoid", "Tanh", "HardSwish", "LeakyRelu", "Gelu", "Erf", "Abs"]
)
def test_activation_joins_the_product(operator: str) -> None:
    s = Sketch()
    s.output(s(operator, s.conv(s.input("batch", 3, 5, 5), 4, name="conv"), name="act"))
    (attempt,) = applied(s.fuse(), "activation")
    assert attempt.place == ("conv", "act")
    assert s.operators() == [f"Conv+{operator}"]


def test_clip_keeps_its_limits_inside_the_body() -> None:
    s = Sketch()
    y = s.conv(s.input("batch", 3, 5, 5), 4, name="conv")
    s.output(s("Clip", y, s.value(0.0, "low"), s.value(6.0, "high")))
    s.fuse()
    layer = s.network.layer("conv")
    assert [t.name for t in layer.inputs if t] == ["x", "conv.w"]


def test_a_scalar_operand_makes_a_binary_operator_an_activation() -> None:
    s = Sketch()
    y = s.conv(s.input("batch", 3, 5, 5), 4, name="conv")
    s.output(s("Pow", y, s.value(2.0)))
    assert applied(s.fuse(), "activation")


def test_activation_follows_bias_and_residual_step_by_step() -> None:
    s = Sketch()
    x = s.input("batch", 4, 5, 5)
    y = s("Add", s.conv(x, 4, name="conv"), s.weight(4, 1, 1, name="b"), name="bias")
    s.output(s("Relu", s("Add", y, x, name="sum"), name="act"))
    attempts = s.fuse()
    assert [a.rule for a in attempts if a.applied] == ["bias", "residual", "activation"]
    assert s.network.layer("conv").origin == ("conv", "bias", "sum", "act")
    assert s.network.num_layers == 1


def test_activation_is_refused_behind_a_marked_output() -> None:
    s = Sketch()
    y = s.conv(s.input("batch", 3, 5, 5), 4, name="conv")
    s.output(y, s("Relu", y))
    assert refusal(s.fuse(), "activation")[0] == "marked_output"
    assert s.operators() == ["Conv", "Relu"]


def test_a_comparison_is_no_activation_because_kernels_finish_in_floats() -> None:
    s = Sketch()
    y = s.conv(s.input("batch", 3, 5, 5), 4, name="conv")
    s.output(s("Greater", y, s.value(np.float32(0.5))))
    code, reason = refusal(s.fuse(), "activation")
    assert code == "type_mismatch"
    assert "BOOL" in reason
