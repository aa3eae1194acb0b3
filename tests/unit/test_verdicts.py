"""Fusions that Tune could not use are in the ledger, with what spoke against them."""

from __future__ import annotations

from dataclasses import replace

from engines import build, config

from workbench.records import Refusal, Stage
from workbench.selection import LayerChoice, lost_fusions

TUNED = build(config(1)).tuned


def composed(choice: LayerChoice) -> LayerChoice:
    """As if running the parts one by one had won."""
    return replace(choice, chosen=choice.composed)


def inner() -> LayerChoice:
    return next(c for c in TUNED.layers if c.layer == "inner")


def test_a_fusion_that_runs_as_one_kernel_leaves_no_refusal() -> None:
    whole = [i for i, c in enumerate(inner().candidates) if c.eligible and c.source == "ONEDNN"]
    assert lost_fusions(replace(TUNED, layers=(replace(inner(), chosen=whole[0]),))) == ()
    assert all(a.rule != "one_kernel" for a in build().log[Stage.TUNE].attempts)


def test_a_fusion_that_lost_by_time_shows_both_times() -> None:
    (attempt,) = lost_fusions(replace(TUNED, layers=(composed(inner()),)))
    assert (attempt.rule, attempt.place, attempt.code) == ("one_kernel", ("inner",), "slower")
    assert attempt.reason.count("µs") == 2
    assert attempt.stage is Stage.TUNE


def test_a_fusion_without_a_kernel_names_each_sources_reason() -> None:
    choice = inner()
    refused = tuple(
        c if c.source == "COMPOSED" else replace(c, refusal=Refusal(f"{c.source} can't"))
        for c in choice.candidates
    )
    (attempt,) = lost_fusions(
        replace(TUNED, layers=(composed(replace(choice, candidates=refused)),))
    )
    assert attempt.code == "no_tactic"
    assert "ONEDNN: ONEDNN can't; NUMBA: NUMBA can't" in attempt.reason


def test_a_fusion_that_was_not_timed_lost_to_layouts() -> None:
    choice = inner()
    untimed = tuple(replace(c, timing=None) for c in choice.candidates)
    (attempt,) = lost_fusions(
        replace(TUNED, layers=(composed(replace(choice, candidates=untimed)),))
    )
    assert attempt.code == "not_chosen"
