"""Sensitivity, divergence and the Pareto front as rows, each with its coverage."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from workbench.lab import Divergence, FrontPoint, MinimalFix, Quality, Sensitivity


def sensitivity_rows(sensitivity: Sensitivity, *, metric: str = "cosine") -> pd.DataFrame:
    """One row a layer, the most sensitive first.

    Columns: Layer, Operator, Own SQNR (dB) of its output when it alone is lowered, Output SQNR (dB)
    and Loss of the metric then, Loss without it (all lowered but this one; NaN where not asked).
    """
    reference = sensitivity.reference
    rows = [
        (
            *(r.layer, r.op, r.own.sqnr_db if r.own else math.nan),
            *(r.alone.sqnr_db, r.alone.loss(metric, reference)),
            r.others.loss(metric, reference) if r.others else math.nan,
        )
        for r in sensitivity.ranked(metric)
    ]
    names = ["Own SQNR (dB)", "Output SQNR (dB)", f"Loss of {metric}", "Loss without it"]
    return pd.DataFrame(rows, columns=["Layer", "Operator", *names])


def divergence_rows(divergence: Divergence) -> pd.DataFrame:
    """One row a layer that can be tapped, in the network's order.

    Columns: Layer, Operator, Built as, Difference (%) from the float value, Read (%) of it from its
    inputs, Added (%) by the layer, SQNR (dB), NaN or inf, Note.
    """
    rows = [
        (
            *(r.layer, r.op, r.built.info.label, 100 * r.relative_l2, 100 * r.read),
            *(100 * r.introduced, r.sqnr_db, r.not_finite),
            _note(divergence, r),
        )
        for r in divergence.rows
    ]
    shares = ["Difference (%)", "Read (%)", "Added (%)", "SQNR (dB)", "NaN or inf", "Note"]
    return pd.DataFrame(rows, columns=["Layer", "Operator", "Built as", *shares])


def _note(divergence: Divergence, row: object) -> str:
    notes: list[str] = []
    if row is divergence.first:
        notes.append(f"first beyond {100 * divergence.tolerance:g}%")
    if row is divergence.worst:
        notes.append("adds most")
    if row is divergence.first_not_finite:
        notes.append("first NaN or infinity")
    return ", ".join(notes)


def front_rows(points: Sequence[FrontPoint]) -> pd.DataFrame:
    """Every point that was measured, the fastest first.

    Columns: Point, Kept (layers), Latency (µs), Loss, On the front, Coverage.
    """
    rows = [
        (
            *(p.name, len(p.kept), p.latency_us, p.loss),
            *("yes" if p.on_front else "", p.trial.coverage),
        )
        for p in points
    ]
    columns = ["Point", "Kept", "Latency (µs)", "Loss", "On the front", "Coverage"]
    return pd.DataFrame(rows, columns=columns)


def search_rows(fix: MinimalFix) -> pd.DataFrame:
    """Every question of a search, in order. Columns: Question, Kept, Loss, Holds."""
    rows = [
        (i + 1, ", ".join(s.kept) or "none", s.loss, "yes" if s.holds else "no")
        for i, s in enumerate(fix.steps)
    ]
    return pd.DataFrame(rows, columns=["Question", "Kept", "Loss", "Holds"])


def quality_rows(found: dict[str, Quality]) -> pd.DataFrame:
    """Outputs of engines beside a reference's, by name.

    Columns: Compared, Cosine, SQNR (dB), Relative L2, Same answer (%), Right (%), Samples.
    """
    rows = [
        (
            *(name, q.cosine, q.sqnr_db, q.relative_l2),
            *(_number(q.agreement), _number(q.accuracy), q.samples),
        )
        for name, q in found.items()
    ]
    columns = ["Compared", "Cosine", "SQNR (dB)", "Relative L2", "Same answer (%)", "Right (%)"]
    return pd.DataFrame(rows, columns=[*columns, "Samples"])


def _number(value: float | None) -> float:
    return math.nan if value is None else value
