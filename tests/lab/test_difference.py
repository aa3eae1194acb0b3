"""What marking, or a remedy, did to the fusions of a build."""

from __future__ import annotations

import pytest
from engines import config, small_network
from sketch import Sketch

from workbench.builder import BuildState, run_stages, start
from workbench.errors import BuildError
from workbench.lab import diff_fusions
from workbench.network import NetworkDefinition
from workbench.network.remedies import MarkOutput, UnmarkOutput
from workbench.records import Stage


def fused(*edits: object) -> BuildState:
    made = config()
    made.optimization_profiles = ()
    for edit in edits:
        made.edit_network(edit)
    return run_stages(start(residual(), made), until=Stage.FUSE)


def residual() -> NetworkDefinition:
    s = Sketch()
    x = s.input(2, 4, 5, 5)
    y = s("Add", s.conv(x, 4, name="inner"), x, name="join")
    s.output(s("Relu", y, name="join_relu"))
    s.network.model_nodes = ("inner", "join", "join_relu")
    return s.network


def test_marking_a_tensor_splits_its_fusion_and_the_difference_says_why() -> None:
    (found,) = diff_fusions(fused(), fused(MarkOutput("inner_out")))
    assert found.before == ("inner: Conv+Add+Relu",)
    assert found.after == ("inner: Conv", "join: Add+Relu")
    assert found.nodes == ("inner", "join", "join_relu")
    assert {a.code for a in found.reasons} == {"marked_output"}
    assert str(found) == (
        "inner: Conv+Add+Relu → inner: Conv, join: Add+Relu: 'inner_out' is a network output"
    )


def test_taking_the_mark_back_joins_them_again() -> None:
    marked = fused(MarkOutput("inner_out"))
    (found,) = diff_fusions(marked, fused(MarkOutput("inner_out"), UnmarkOutput("inner_out")))
    assert found.after == ("inner: Conv+Add+Relu",)
    assert found.reasons[0].remedy.edits == (UnmarkOutput("inner_out"),)


def test_the_same_build_twice_differs_nowhere() -> None:
    assert diff_fusions(fused(), fused()) == ()


def test_a_build_that_has_not_fused_yet_is_named() -> None:
    parsed = run_stages(start(small_network(), config()), until=Stage.PARSE)
    with pytest.raises(BuildError, match="Fuse has not run"):
        diff_fusions(parsed, fused())
