"""Finding the first bad rewrite of a build."""

from __future__ import annotations

import math

import numpy as np
import pytest
from engines import build, config, images, small_network
from sketch import Sketch

import workbench as wb
from workbench import fusions, passes
from workbench.errors import BuildError
from workbench.lab import bisect_engines
from workbench.network import NetworkDefinition
from workbench.rewrite import Match, RewriteRule


def leaking(network: NetworkDefinition, match: Match):
    """Another operator for ReLU; in one place, a wrong one."""
    name = match.root.name
    if name != "act5":
        return network.add_layer("Max", [match["x"], network.constant(np.float32(0), "zero")])
    return network.add_layer("Abs", [match["x"]])


BAD = RewriteRule(
    "relu_as_max",
    lambda op, x: op.Relu(x),
    lambda network, match: leaking(network, match).outputs[0],
)


def chain() -> NetworkDefinition:
    s = Sketch()
    y = s.input("batch", 4, 5, 5)
    for i in range(8):
        y = s("Relu", s.norm(s.conv(y, 4, 1, name=f"conv{i}"), name=f"bn{i}"), name=f"act{i}")
    s.output(y)
    return s.network


def unverified(**shapes: tuple[int, ...]) -> wb.BuilderConfig:
    made = config()
    made.verify = "none"
    made.optimization_profiles = ()
    profile = wb.OptimizationProfile()
    for name, shape in shapes.items():
        profile.set_shape(name, shape, shape, shape)
    made.add_optimization_profile(profile)
    return made


def test_the_first_bad_rewrite_is_found_in_log2_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "RULES", (*passes.RULES, BAD))
    found = wb.bisect_rewrites(chain(), 1e-3, config=unverified(x=(2, 4, 5, 5)))
    assert found is not None
    assert (found.attempt.rule, found.attempt.place) == ("relu_as_max", ("act5",))
    assert "= Relu(" in found.before
    assert "= Abs(" in found.after
    assert found.builds <= 3 + math.ceil(math.log2(found.of))
    assert str(found).startswith(f"rewrite {found.number} of {found.of}: relu_as_max at act5")


def test_a_bad_fusion_is_found_after_every_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusions, "FUSIONS", (BAD, *fusions.FUSIONS))
    found = wb.bisect_rewrites(chain(), 1e-3, config=unverified(x=(2, 4, 5, 5)))
    assert (found.attempt.rule, found.attempt.place) == ("relu_as_max", ("act5",))
    assert found.number > 8


def test_a_right_build_has_no_bad_rewrite() -> None:
    assert wb.bisect_rewrites(small_network(), 1e-4, config=config()) is None


def test_the_check_may_be_a_question_about_the_network() -> None:
    def joined(network: NetworkDefinition) -> bool:
        return not any("Relu" in x.operator_names and x.is_fused for x in network.layers)

    found = wb.bisect_rewrites(small_network(), joined, config=config())
    assert found.attempt.rule == "activation"


def test_the_check_may_be_a_question_about_the_engine() -> None:
    batch = {"image": images()}
    expected = build().engine().create_execution_context().run(batch)

    def few(engine: wb.Engine) -> bool:
        found = engine.create_execution_context().run(batch)
        np.testing.assert_allclose(found["logits"], expected["logits"], atol=1e-4)
        return max(len(s.body.operator_names) for s in engine.plan.steps) < 3

    found = bisect_engines(small_network(), few, config=config())
    assert found.attempt.rule in ("activation", "residual")


def test_a_check_that_fails_without_any_rewrite_is_an_error() -> None:
    with pytest.raises(BuildError, match="before any rewrite"):
        wb.bisect_rewrites(small_network(), lambda network: False, config=config())
