"""A stage's rewrites, one by one."""

from __future__ import annotations

import pytest
from engines import config, small_network

from workbench.builder import run_stages, start
from workbench.errors import BuildError
from workbench.lab import RewriteSteps
from workbench.network.remedies import MarkOutput
from workbench.records import Stage

MADE = config()
STATE = run_stages(start(small_network(), MADE), until=Stage.FUSE)


@pytest.mark.parametrize("stage", [Stage.FOLD, Stage.FUSE])
def test_every_step_can_be_seen_and_the_last_is_what_the_stage_left(stage: Stage) -> None:
    steps = RewriteSteps(STATE, stage)
    sizes = [steps.network(n).num_layers for n in range(len(steps.applied) + 1)]
    assert sizes == sorted(sizes, reverse=True)
    assert str(steps.network(len(steps.applied))) == str(STATE.networks[stage])


def test_edits_are_there_before_the_first_step() -> None:
    made = config()
    made.edit_network(MarkOutput("inner_out"))
    state = run_stages(start(small_network(), made), until=Stage.FUSE)
    assert RewriteSteps(state, Stage.FUSE).network(0).tensor("inner_out").is_network_output


def test_the_edges_are_those_of_the_graph_before_the_stage() -> None:
    edges = [str(e) for e in RewriteSteps(STATE, Stage.FUSE).edges]
    assert edges[:2] == ["stem → stem_relu", "stem_relu → inner"]


def test_a_stage_that_rewrites_nothing_or_has_not_run_is_refused() -> None:
    with pytest.raises(BuildError, match="Tune rewrites nothing"):
        RewriteSteps(STATE, Stage.TUNE)
    parsed = run_stages(start(small_network(), MADE), until=Stage.PARSE)
    with pytest.raises(BuildError, match="Fuse has not run"):
        RewriteSteps(parsed, Stage.FUSE)
