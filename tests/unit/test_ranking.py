"""Which of several tactics is chosen: the fastest, and what decides where time does not."""

from __future__ import annotations

from dataclasses import replace

from workbench.datatypes import DataType
from workbench.formats import LINEAR
from workbench.selection.candidate import Candidate
from workbench.selection.ranking import fastest
from workbench.tactics.protocol import OVERWRITES, TF32, Tactic
from workbench.timing import Timing

ORDER = {"ONEDNN": 0, "NUMBA": 1}


def timed(
    title: str, median_us: float, *, least: float = 0.0, spread: float = 0.1, source: str = "ONEDNN"
) -> Candidate:
    noisy = spread > 0.2 * median_us
    timing = Timing(median_us, least or median_us, spread, 8, "2026-11-21", noisy)
    return Candidate(source, title, None, timing)


def test_the_fastest_is_chosen_whatever_its_place() -> None:
    slow, fast = timed("a", 20.0), timed("b", 10.0, source="NUMBA")
    assert fastest([slow, fast], ORDER) is fast


def test_of_equals_the_earlier_source_and_what_it_offers_first_is_chosen() -> None:
    wide, narrow = timed("brgconv:avx512", 10.1), timed("brgconv:avx2", 10.0)
    other = timed("a", 10.0, source="NUMBA")
    assert fastest([other, wide, narrow], ORDER) is wide


def test_on_a_busy_machine_the_least_times_decide_not_the_medians() -> None:
    disturbed = timed("disturbed", 40.0, least=10.0, spread=30.0)
    slower = timed("slower", 20.0, least=15.0, spread=10.0)
    assert fastest([slower, disturbed], ORDER) is disturbed


def test_a_wide_spread_makes_no_slower_tactic_an_equal() -> None:
    first = timed("first", 14.0, least=13.0, spread=10.0)
    best = timed("best", 12.0, least=10.0, spread=10.0)
    assert fastest([first, best], ORDER) is best


def test_of_equals_the_one_that_writes_over_its_input_is_chosen() -> None:
    parameters = ((OVERWRITES, 1),)
    tactic = Tactic("ONEDNN", "sum", (LINEAR,) * 2, (LINEAR,), DataType.FLOAT)
    apart = replace(timed("apart", 10.0), tactic=tactic)
    over = replace(timed("over", 10.1), tactic=replace(tactic, parameters=parameters))
    assert fastest([apart, over], ORDER) is over
    faster = replace(apart, timing=timed("apart", 8.0).timing)
    assert fastest([faster, over], ORDER) is faster


def exact(title: str, median_us: float, error: float | None, *, tf32: bool = False) -> Candidate:
    parameters = (TF32,) if tf32 else ()
    tactic = Tactic("ONEDNN", title, (LINEAR,), (LINEAR,), DataType.FLOAT, parameters)
    return replace(timed(title, median_us), tactic=tactic, error=error)


def test_of_float32_tactics_the_exacter_is_chosen_where_it_takes_little_longer() -> None:
    chain, blocks = exact("chain", 10.0, 3e-7), exact("blocks", 12.8, 2e-7)
    assert fastest([chain, blocks], ORDER) is blocks
    slower = replace(blocks, timing=timed("slower", 14.0).timing)
    assert fastest([chain, slower], ORDER) is chain


def test_no_error_is_worth_a_layer_that_takes_much_longer() -> None:
    chain, blocks = exact("chain", 10.0, 1e-5), exact("blocks", 15.5, 2e-7)
    assert fastest([chain, blocks], ORDER) is blocks
    slower = replace(blocks, timing=timed("slower", 16.5).timing)
    assert fastest([chain, slower], ORDER) is chain


def test_a_large_error_costs_more_than_its_doublings() -> None:
    chain, blocks = exact("chain", 10.0, 1e-6), exact("blocks", 12.8, 2e-7)
    assert fastest([chain, blocks], ORDER) is blocks


def test_below_the_rounding_of_the_result_no_error_counts() -> None:
    rounded, exacter = exact("rounded", 10.0, 2.5e-8), exact("exacter", 10.5, 1e-9)
    assert fastest([rounded, exacter], ORDER) is rounded


def test_of_tactics_of_one_price_only_those_as_exact_count_as_equal() -> None:
    wide, narrow = exact("wide", 10.0, 4e-7), exact("narrow", 10.1, 2e-7)
    assert fastest([wide, narrow], ORDER) is narrow


def test_an_error_that_is_wanted_or_not_known_has_no_price() -> None:
    single, rounded = exact("single", 10.5, 1e-7), exact("tf32", 10.0, 1e-3, tf32=True)
    assert fastest([single, rounded], ORDER) is rounded
    unknown = exact("unknown", 10.0, None)
    assert fastest([single, unknown], ORDER) is unknown
