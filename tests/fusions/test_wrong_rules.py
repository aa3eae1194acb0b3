"""Deliberately wrong rules: each is caught, named where it went wrong, and the plan is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from sketch import Sketch

from workbench import fusions, passes
from workbench.builder import run_stages, start
from workbench.config import BuilderConfig, OptimizationProfile
from workbench.network import NetworkDefinition, Tensor
from workbench.records import Attempt
from workbench.rewrite import Match, RewriteRule
from workbench.rewrite.derive import apply, derive


@dataclass(frozen=True)
class Wrong:
    """A wrong rule, the network in which it fits, and the place to blame."""

    rule: RewriteRule
    draw: Callable[[Sketch], None]
    place: tuple[str, ...]


def image(s: Sketch, channels: int = 4) -> Tensor:
    return s.input("batch", channels, 6, 6)


def again(network: NetworkDefinition, match: Match, name: str, inputs: list[Tensor]) -> Tensor:
    """The layer of this name, of other operands."""
    layer = match.layer(name)
    return network.add_layer(layer.operator, inputs, layer.attributes).outputs[0]


# -- batch norm -------------------------------------------------------------------------------
def folded_badly(epsilon: float | None, *, mean: bool) -> Callable[..., Tensor]:
    def fold(network: NetworkDefinition, match: Match) -> Tensor:
        w, scale, bias, middle, var = (match[n] for n in ("w", "s", "b", "m", "v"))
        eps = match.root.attributes["epsilon"] if epsilon is None else epsilon

        def factor(net: NetworkDefinition, s: Tensor, v: Tensor) -> Tensor:
            small = net.constant(np.array(eps, np.float32))
            return apply(net, "Div", s, apply(net, "Sqrt", apply(net, "Add", v, small)))

        def weight(net: NetworkDefinition, w: Tensor, s: Tensor, v: Tensor) -> Tensor:
            shape = net.constant(np.array([-1, 1, 1, 1], np.int64))
            return apply(net, "Mul", w, apply(net, "Reshape", factor(net, s, v), shape))

        def offset(net: NetworkDefinition, s: Tensor, b: Tensor, m: Tensor, v: Tensor) -> Tensor:
            moved = apply(net, "Mul", m, factor(net, s, v))
            return apply(net, "Sub", b, moved) if mean else apply(net, "Identity", b)

        return again(
            network,
            match,
            "conv",
            [
                match["x"],
                derive(network, "folded", (w, scale, var), weight),
                derive(network, "offset", (scale, bias, middle, var), offset),
            ],
        )

    return fold


def bn_rule(name: str, *, epsilon: float | None = None, mean: bool = True) -> RewriteRule:
    return RewriteRule(
        name,
        lambda op, x, w, s, b, m, v: op.BatchNormalization(
            op.Conv(x, w).called("conv"), s, b, m, v
        ),
        folded_badly(epsilon, mean=mean),
        constants=("w", "s", "b", "m", "v"),
        changes_weights=True,
        any_size=True,
    )


def conv_bn(s: Sketch) -> None:
    s.output(s.norm(s.conv(image(s), 4, name="conv"), name="bn"))


# -- everything else ----------------------------------------------------------------------------
def clip(s: Sketch) -> None:
    y = s.conv(image(s), 4, name="conv")
    s.output(s("Clip", y, s.value(0.0, "low"), s.value(6.0, "high"), name="clip"))


def split(s: Sketch) -> None:
    a, b = s.layer("Split", image(s), s.value(np.array([2, 2])), name="split", outputs=2, axis=1)
    s.output(s("Sub", a, s("Tanh", b), name="sub"))


def swapped(network: NetworkDefinition, match: Match) -> dict[Tensor, Tensor]:
    old = match.layer("split")
    new = network.add_layer(old.operator, old.inputs, old.attributes, outputs=2)
    return dict(zip(old.outputs, reversed(new.outputs), strict=True))


def biased(s: Sketch) -> None:
    y = s.conv(image(s), 4, name="conv")
    s.output(s("Relu", s("Add", y, s.weight(4, 1, 1, name="b"), name="bias")))


def turned_twice(s: Sketch) -> None:
    y = s("Transpose", s.input("batch", 3, 3, 3), name="one", perm=(0, 2, 3, 1))
    s.output(s("Relu", s("Transpose", y, name="two", perm=(0, 2, 3, 1))))


def turned_wrongly(network: NetworkDefinition, match: Match) -> Tensor:
    return network.add_layer("Transpose", [match["x"]], {"perm": (0, 1, 2, 3)}).outputs[0]


def residual(s: Sketch) -> None:
    x = image(s)
    s.output(s("Relu", s("Add", s.conv(x, 4, name="conv"), x, name="sum"), name="act"))


def leaky(s: Sketch) -> None:
    s.output(s("LeakyRelu", s.conv(image(s), 4, name="conv"), name="leaky", alpha=0.01))


def gelu(s: Sketch) -> None:
    s.output(s("Gelu", s.linear(s.input("batch", 8), 6, name="fc"), name="gelu"))


def difference(s: Sketch) -> None:
    s.output(s("Tanh", s("Sub", image(s), s.weight(4, 1, 1, name="c"), name="sub")))


def softmax(s: Sketch) -> None:
    s.output(s("Softmax", s.input("batch", 5, 5), name="soft", axis=1))


def factor(s: Sketch) -> None:
    y = s.linear(s.input("batch", 8), 8, name="fc")
    s.output(s("Mul", y, s.weight(8, name="factor"), name="mul"))


def rows_scaled(network: NetworkDefinition, match: Match) -> Tensor:
    def scaled(net: NetworkDefinition, w: Tensor, s: Tensor) -> Tensor:
        column = apply(net, "Reshape", s, net.constant(np.array([-1, 1], np.int64)))
        return apply(net, "Mul", w, column)

    w = derive(network, "scaled", (match["w"], match["s"]), scaled)
    return network.add_layer("MatMul", [match["x"], w]).outputs[0]


def doubled_pad(s: Sketch) -> None:
    s.output(s("AveragePool", image(s), name="pool", kernel_shape=(3, 3), pads=(1, 1, 1, 1)))


def instead(operator: str, *operands: str, **attributes: object) -> Callable[..., Tensor]:
    """A replacement: this operator of the pattern's variables."""
    return lambda network, match: network.add_layer(
        operator, [match[n] for n in operands], attributes
    ).outputs[0]


WRONG = [
    Wrong(bn_rule("no_mean", mean=False), conv_bn, ("conv", "bn")),
    Wrong(bn_rule("wrong_epsilon", epsilon=1e-2), conv_bn, ("conv", "bn")),
    Wrong(
        RewriteRule(
            "relu_for_clip", lambda op, x, a, b: op.Clip(x, a, b), instead("Relu", "x")
        ),
        clip,
        ("clip",),
    ),
    Wrong(
        RewriteRule("swapped_split", lambda op, x: op.Split(x, ...).called("split"), swapped),
        split,
        ("split",),
    ),
    Wrong(
        RewriteRule(
            "dropped_bias",
            lambda op, y, b: op.Add(op.computed(y), op.constant(b)),
            lambda network, match: match["y"],
        ),
        biased,
        ("bias",),
    ),
    Wrong(
        RewriteRule("wrong_axes", lambda op, x: op.Transpose(op.Transpose(x)), turned_wrongly),
        turned_twice,
        ("one", "two"),
    ),
    Wrong(
        RewriteRule(
            "missing_residual", lambda op, y, r: op.Relu(op.Add(y, r)), instead("Relu", "y")
        ),
        residual,
        ("sum", "act"),
    ),
    Wrong(
        RewriteRule("relu_for_leaky", lambda op, x: op.LeakyRelu(x), instead("Relu", "x")),
        leaky,
        ("leaky",),
    ),
    Wrong(
        RewriteRule(
            "tanh_for_erf", lambda op, x: op.Gelu(x), instead("Gelu", "x", approximate="tanh"),
            refuse=lambda match: "it is one" if match.root.attributes["approximate"] == "tanh"
            else None,
        ),
        gelu,
        ("gelu",),
    ),
    Wrong(
        RewriteRule(
            "commuted_sub",
            lambda op, x, c: op.Sub(op.computed(x), op.constant(c)),
            instead("Sub", "c", "x"),
        ),
        difference,
        ("sub",),
    ),
    Wrong(
        RewriteRule(
            "other_axis", lambda op, x: op.Softmax(x, axis=1), instead("Softmax", "x", axis=2)
        ),
        softmax,
        ("soft",),
    ),
    Wrong(
        RewriteRule(
            "rows_for_columns",
            lambda op, x, w, s: op.Mul(op.MatMul(x, w), s),
            rows_scaled,
            constants=("w", "s"),
            changes_weights=True,
        ),
        factor,
        ("fc", "mul"),
    ),
    Wrong(
        RewriteRule(
            "counted_padding",
            lambda op, x: op.AveragePool(x, count_include_pad=0),
            lambda network, match: network.add_layer(
                "AveragePool",
                [match["x"]],
                {**match.root.attributes, "count_include_pad": 1},
            ).outputs[0],
        ),
        doubled_pad,
        ("pool",),
    ),
    Wrong(
        RewriteRule(
            "misfitting_operands",
            lambda op, x: op.Softmax(x),
            lambda network, match: network.add_layer(
                "Add", [match["x"], network.constant(np.ones(7, np.float32))]
            ).outputs[0],
        ),
        softmax,
        ("soft",),
    ),
]  # fmt: skip
STAGES = ("Fold", "Fuse")


def quick() -> BuilderConfig:
    config = BuilderConfig()
    config.builder_optimization_level, config.num_threads = 0, 1
    config.set_tactic_sources(["NUMPY"])
    return config


def built(s: Sketch) -> tuple[tuple[Attempt, ...], dict[str, np.ndarray]]:
    """The ledger of a whole build, and what its engine gives."""
    config, profile, feeds = quick(), OptimizationProfile(), s.feeds()
    for name, array in feeds.items():
        profile.set_shape(name, *[array.shape] * 3)
    config.add_optimization_profile(profile)
    state = run_stages(start(s.network, config))
    outputs = state.engine().create_execution_context().run(feeds)
    for name, array in s.network.run(feeds).items():
        scale = float(np.abs(array).max())
        np.testing.assert_allclose(outputs[name] / scale, array / scale, atol=2e-5)
    return state.log.attempts, outputs


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("wrong", WRONG, ids=lambda w: w.rule.name)
def test_a_wrong_rule_is_blamed_and_the_plan_is_right(
    wrong: Wrong, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if stage == "Fold":
        monkeypatch.setattr(passes, "RULES", (wrong.rule, *passes.RULES))
    else:
        monkeypatch.setattr(passes, "RULES", ())
        monkeypatch.setattr(fusions, "FUSIONS", (wrong.rule, *fusions.FUSIONS))
    s = Sketch()
    wrong.draw(s)
    attempts, _ = built(s)
    quarantined = [a for a in attempts if a.code in ("check_failed", "rule_failed")]
    assert {a.rule for a in quarantined} == {wrong.rule.name}
    assert {a.stage.value for a in quarantined} == {stage}
    assert wrong.place in {a.place for a in quarantined}
    assert all("quarantined" in a.reason for a in quarantined)
    assert not [a for a in attempts if a.rule == wrong.rule.name and a.applied]


@pytest.mark.parametrize("wrong", WRONG[:13], ids=lambda w: w.rule.name)
def test_the_same_rule_goes_through_where_nothing_is_verified(wrong: Wrong) -> None:
    s = Sketch()
    wrong.draw(s)
    attempts = passes.apply_rules(
        [wrong.rule], s.network, stage=passes.Stage.FOLD, verify="none", max_rewrites=1
    )
    assert [a.place for a in attempts if a.applied] == [wrong.place]


def test_a_fused_body_that_drops_a_node_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fusing is proved too: here the Body forgets its last node."""
    whole = NetworkDefinition.closure

    def short(network: NetworkDefinition, layers: object, *, anchor: object) -> object:
        closure = whole(network, layers, anchor=anchor)
        last = closure.body.nodes[-1]
        body = replace(
            closure.body,
            nodes=tuple(
                replace(n, outputs=last.outputs) if last.inputs[0] in n.outputs else n
                for n in closure.body.nodes[:-1]
            ),
        )
        return replace(closure, body=body)

    s = Sketch()
    s.output(s("Sigmoid", s.conv(image(s), 4, name="conv"), name="act"))
    monkeypatch.setattr(NetworkDefinition, "closure", short)
    attempts, _ = built(s)
    (caught,) = [a for a in attempts if a.code == "check_failed"]
    assert (caught.rule, caught.place) == ("activation", ("conv", "act"))
