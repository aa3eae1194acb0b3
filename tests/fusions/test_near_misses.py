"""Planted near misses: each names what failed, and its remedy makes the fusion happen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from sketch import Sketch, assert_same_outputs

from workbench import fusions, passes
from workbench.network import NetworkDefinition, Tensor
from workbench.network.remedies import edit_from_json, edit_to_json
from workbench.records import Attempt

Stage = Callable[[NetworkDefinition], tuple[Attempt, ...]]
FOLD: Stage = passes.fold
FUSE: Stage = fusions.fuse


@dataclass(frozen=True)
class Planted:
    """A network in which one rule nearly applies.

    rule, place, code, reason: of the refused attempt; title, keeps_meaning: of its remedy.
    """

    draw: Callable[[Sketch], None]
    stage: Stage
    rule: str
    place: tuple[str, ...]
    code: str
    reason: str
    title: str
    keeps_meaning: bool = True


def image(s: Sketch) -> Tensor:
    return s.input("batch", 4, 6, 6)


def read_twice(s: Sketch) -> None:
    y = s.conv(image(s), 4, name="conv")
    s.output(s("Relu", y, name="act"), s("Softmax", y, name="soft"))


def marked(s: Sketch) -> None:
    y = s.conv(image(s), 4, name="conv")
    s.output(y, s("Relu", y, name="act"))


def fused_and_read_twice(s: Sketch) -> None:
    x = image(s)
    y = s("Relu", s.conv(x, 4, name="conv"), name="act")
    s.output(s("Add", y, s("Abs", x, name="abs"), name="sum"), s("Softmax", y, name="soft"))


def bias_read_twice(s: Sketch) -> None:
    y = s.linear(s.input("batch", 8), 6, name="fc")
    s.output(s("Add", y, s.weight(6, name="b"), name="bias"), s("Softmax", y, name="soft"))


def computed_weight(s: Sketch) -> None:
    y = s("Conv", image(s), s.stored(4, 4, 3, 3), name="conv")
    s.output(s.norm(y, name="bn"))


def half_statistics(s: Sketch) -> None:
    half = [s.weight(4, name=n, dtype="float16") for n in ("scale", "bias")]
    rest = [s.weight(4, name="mean"), s.value(np.ones(4), "var")]
    y = s.conv(image(s), 4, name="conv")
    s.output(s("BatchNormalization", y, *half, *rest, name="bn"))


def broadcast_residual(s: Sketch) -> None:
    x = image(s)
    gate = s("GlobalAveragePool", x, name="pool")
    s.output(s("Add", s.conv(x, 4, name="conv"), gate, name="sum"))


def behind_a_pool(s: Sketch) -> None:
    y = s("MaxPool", s.conv(image(s), 4, name="conv"), name="pool", kernel_shape=(2, 2))
    s.output(s("Relu", y, name="act"))


def behind_two_shuffles(s: Sketch) -> None:
    y = s("Transpose", s.linear(s.input("batch", 5, 8), 6, name="fc"), name="t", perm=(0, 2, 1))
    y = s("Reshape", y, s.value(np.array([0, 30])), name="flat")
    s.output(s("Sigmoid", y, name="act"))


def other_scale(s: Sketch) -> None:
    x = s.quantize(image(s), 0.05, name="a")
    s.output(s.quantize(x, 0.1, name="b"))


def one_bias(s: Sketch) -> None:
    x = image(s)
    first = s("Conv", x, s.weight(4, 4, 1, 1), s.weight(4, name="b"), name="with")
    s.output(s("Softmax", first), s("Softmax", s.conv(x, 4, 1, name="without")))


def read_before_concat(s: Sketch) -> None:
    x = image(s)
    a, b = s("Softmax", x, name="left"), s("Tanh", x, name="right")
    s.output(s.quantize(s("Concat", a, b, name="join", axis=1), name="q"), s("Neg", b, name="neg"))


def computed_bias(s: Sketch) -> None:
    stored = s.value(s.random.integers(-9, 9, 4).astype(np.int8), "b.int8")
    b = s("DequantizeLinear", stored, s.value(0.1, "b.scale"), name="b.dq")
    y = s("Conv", image(s), s.weight(4, 4, 3, 3), b, name="conv")
    s.output(s("Mul", y, s.weight(4, 1, 1, name="s"), name="mul"))


PLANTED = [
    Planted(read_twice, FUSE, "activation", ("conv", "act"), "second_consumer",
            "'conv_out' is also read by Softmax 'soft'",
            "give Softmax 'soft' a copy of Conv 'conv'"),
    Planted(marked, FUSE, "activation", ("conv", "act"), "marked_output",
            "'conv_out' is a network output", "unmark 'conv_out' as an output"),
    Planted(fused_and_read_twice, FUSE, "residual", ("conv", "sum"), "second_consumer",
            "'act_out' is also read by Softmax 'soft'",
            "give Softmax 'soft' a copy of Conv 'conv'"),
    Planted(bias_read_twice, FUSE, "bias", ("fc", "bias"), "second_consumer",
            "'fc_out' is also read by Softmax 'soft'", "give Softmax 'soft' a copy of MatMul 'fc'"),
    Planted(computed_weight, FOLD, "batch_norm_folding", ("conv", "bn"), "not_constant",
            "'w.dq_out' is not a constant: it is computed by DequantizeLinear 'w.dq'",
            "compute 'w.dq_out' now and store it"),
    Planted(half_statistics, FOLD, "batch_norm_folding", ("conv", "bn"), "type_mismatch",
            "its operands have different types: FLOAT, HALF", "cast its statistics to FLOAT"),
    Planted(broadcast_residual, FUSE, "residual", ("conv", "sum"), "shape_mismatch",
            "'pool_out' has shape [batch, 4, 1, 1], 'conv_out' has [batch, 4, 6, 6]",
            "expand 'pool_out' to the shape of 'conv_out'"),
    Planted(behind_a_pool, FUSE, "activation", ("act",), "other_layer",
            "wants a layer anchored at Conv or ConvTranspose or Gemm or MatMul, "
            "found MaxPool 'pool'", "move Relu 'act' before MaxPool 'pool'"),
    Planted(behind_two_shuffles, FUSE, "activation", ("act",), "other_layer",
            "wants a layer anchored at Conv or ConvTranspose or Gemm or MatMul, "
            "found Reshape 'flat'",
            "move Sigmoid 'act' before Reshape 'flat', Transpose 't'"),
    Planted(other_scale, FUSE, "requantize_pair", ("a.dq", "b.q"), "scales_differ",
            "'a.dq' and 'b.q' have different scales: the values are requantized",
            "quantize 'b.q' by the scale of 'a.dq'", keeps_meaning=False),
    Planted(one_bias, FUSE, "sibling_convolutions", ("with", "without"), "siblings_differ",
            "bias: 'with' has True, 'without' has False", "give without a bias of zeros"),
    Planted(read_before_concat, FUSE, "quantize_before_concat", ("join", "q.q"),
            "second_consumer", "'right_out' is also read by Neg 'neg'",
            "give Neg 'neg' a copy of Tanh 'right'"),
    Planted(computed_bias, FOLD, "scale_folding", ("conv", "mul"), "not_constant",
            "'b.dq_out' is not a constant: it is computed by DequantizeLinear 'b.dq'",
            "compute 'b.dq_out' now and store it"),
]  # fmt: skip
NAMED = pytest.mark.parametrize("planted", PLANTED, ids=lambda p: p.draw.__name__)


def sketched(planted: Planted) -> Sketch:
    s = Sketch()
    planted.draw(s)
    return s


def refused(planted: Planted, attempts: tuple[Attempt, ...]) -> Attempt:
    (found,) = [
        a
        for a in attempts
        if a.rule == planted.rule and not a.applied and set(a.place) >= set(planted.place)
    ]
    return found


@NAMED
def test_the_ledger_names_the_failed_precondition(planted: Planted) -> None:
    network = sketched(planted).network
    attempt = refused(planted, planted.stage(network))
    assert (attempt.code, attempt.reason) == (planted.code, planted.reason)
    assert attempt.remedy is not None
    assert attempt.remedy.title == planted.title
    assert attempt.remedy.keeps_meaning is planted.keeps_meaning


@NAMED
def test_the_remedy_makes_the_fusion_happen_and_keeps_the_outputs(planted: Planted) -> None:
    s = sketched(planted)
    before, mended = s.network.clone(), s.network.clone()
    remedy = refused(planted, planted.stage(s.network)).remedy
    remedy.apply(mended)
    mended.verify()
    left = {t.name for t in mended.outputs}
    if planted.keeps_meaning:
        feeds = s.feeds()
        for t in [t for t in before.outputs if t.name not in left]:
            before.unmark_output(t)
        assert_same_outputs(before, mended, feeds)
    attempts = planted.stage(mended)
    mended.verify()
    assert [a for a in attempts if a.applied and a.rule == planted.rule]
    assert not [
        a for a in attempts if a.rule == planted.rule and a.refusal and a.code == planted.code
    ]


@NAMED
def test_the_remedys_code_does_what_its_button_does(planted: Planted) -> None:
    network = sketched(planted).network
    pressed, written = network.clone(), network.clone()
    remedy = refused(planted, planted.stage(network)).remedy
    remedy.apply(pressed)
    exec(remedy.code, {"network": written})
    assert str(pressed) == str(written)
    assert tuple(edit_from_json(edit_to_json(e)) for e in remedy.edits) == remedy.edits
