"""``verify="all"`` proves every rewrite, ``distinct`` each distinct one, ``none`` none."""

from __future__ import annotations

import pytest
from sketch import Sketch

from workbench import fusions, passes
from workbench.bundle import bundled
from workbench.onnx_parser import parse_model
from workbench.records import Attempt, Stage
from workbench.rewrite import FUSE, RewriteRule, apply_rules, check

MODELS = ("digits_cnn", "digits_inception", "digits_vit")
NOTHING_TO_COMPARE = ("dead_layers",)
"""Rules that replace no tensor: they remove what nobody reads."""
FUSING = {r.name for r in (*passes.RULES, *fusions.FUSIONS) if r.replacement is FUSE}


class Counted:
    """How often each rule's rewrites are evaluated against their originals."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fused = 0
        self.replaced: dict[str, int] = {}
        apart, unequal = check._apart, check._unequal

        def counting_apart(closure, **how):
            self.fused += 1
            return apart(closure, **how)

        def counting_unequal(rule, *given, **how):
            self.replaced[rule.name] = self.replaced.get(rule.name, 0) + 1
            return unequal(rule, *given, **how)

        monkeypatch.setattr(check, "_apart", counting_apart)
        monkeypatch.setattr(check, "_unequal", counting_unequal)


def made(attempts: tuple[Attempt, ...]) -> dict[str, int]:
    """Applied rewrites of each rule."""
    names = [a.rule for a in attempts if a.applied]
    return {name: names.count(name) for name in names}


def optimized(model: str, verify: str) -> tuple[Attempt, ...]:
    network = parse_model(bundled("datasets", f"{model}.onnx"))
    return (*passes.fold(network, verify=verify), *fusions.fuse(network, verify=verify))


@pytest.mark.parametrize("model", MODELS)
def test_all_checks_every_rewrite(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch)
    rewrites = made(optimized(model, "all"))
    fused = sum(n for name, n in rewrites.items() if name in FUSING)
    assert counted.fused >= fused > 0
    replaced = {
        n: count for n, count in rewrites.items() if n not in {*FUSING, *NOTHING_TO_COMPARE}
    }
    assert replaced
    unchecked = {name: n for name, n in replaced.items() if counted.replaced.get(name, 0) < n}
    assert unchecked == {}


def test_distinct_checks_less_often_and_none_never(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {}
    for verify in ("all", "distinct", "none"):
        with monkeypatch.context() as patch:
            counted = Counted(patch)
            ledger = optimized("digits_vit", verify)
            counts[verify] = counted.fused + sum(counted.replaced.values())
        assert made(ledger)
    assert counts["all"] > counts["distinct"] > counts["none"] == 0


def test_all_catches_a_rule_at_each_of_its_places() -> None:
    drop = RewriteRule("drop", lambda op, x: op.Relu(op.Neg(x)), lambda network, match: match["x"])
    s = Sketch()
    x = s.input("batch", 4)
    for i in range(3):
        act = s("Relu", s("Neg", x, name=f"neg{i}"), name=f"act{i}")
        s.output(s("Softmax", act, name=f"soft{i}"))
    attempts = apply_rules([drop], s.network, stage=Stage.FUSE, verify="all")
    places = {(f"neg{i}", f"act{i}") for i in range(3)}
    assert {a.place for a in attempts if a.outcome == "quarantined"} == places
    assert s.network.num_layers == 9
