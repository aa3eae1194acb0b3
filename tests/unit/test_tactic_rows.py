"""The table of one layer's tactics: what it says of a faster one that was not chosen."""

from __future__ import annotations

from workbench.datatypes import DataType
from workbench.formats import HWC, LINEAR, Format
from workbench.reports import tactic_rows
from workbench.selection import Candidate, LayerChoice
from workbench.tactics.protocol import Tactic
from workbench.timing import Timing


def tried(
    title: str,
    median_us: float,
    *,
    error: float,
    layout: Format = LINEAR,
    source: str = "ONEDNN",
    kind: DataType = DataType.FLOAT,
) -> Candidate:
    tactic = Tactic(source, title, (layout,), (layout,), kind)
    timing = Timing(median_us, median_us, 0.1, 8, "2026-11-22")
    return Candidate(source, title, tactic, timing, error=error)


def test_of_a_faster_tactic_the_table_says_why_it_was_not_chosen() -> None:
    candidates = (
        tried("chosen", 10.0, error=1e-7),
        tried("chain", 9.0, error=8e-7),
        tried("transposed", 8.0, error=1e-7, layout=HWC),
        tried("slower", 12.0, error=8e-7),
        tried("equal", 10.1, error=1e-7),
    )
    float32 = DataType.FLOAT
    choice = LayerChoice(
        "sum", "MatrixMultiply", ("MatMul",), (), float32, float32, candidates, 0, 1, None, True
    )
    rows = tactic_rows(choice)
    marks = rows.set_index("Tactic")["Mark"]
    assert dict(marks) == {
        "chosen": "",
        "chain": "less exact",
        "transposed": "its layouts",
        "slower": "",
        "equal": "≈ chosen",
    }
    assert set(rows["Status"]) == {"chosen", "not chosen"}, "a faster one is not slower"


def test_in_fp16_no_error_has_a_price_but_starting_early_beside_neighbours_pays() -> None:
    half = DataType.HALF
    candidates = (
        tried("ours", 10.0, error=1e-4, source="TRITON", kind=half),
        tried("library", 9.0, error=3e-4, source="CUDNN", kind=half),
    )
    choice = LayerChoice(
        "sum", "MatrixMultiply", ("MatMul",), (), half, half, candidates, 0, 1, None, True
    )
    assert list(tactic_rows(choice)["Mark"]) == ["", "no early start"]
