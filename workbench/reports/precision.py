"""Precision as rows: asked for, built and executed, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from workbench.datatypes import DataType
from workbench.precision import PrecisionDecision
from workbench.selection import LayerChoice, Tuned

COLUMNS = ("Layer", "Operator", "Nodes", "Requested", "Built as", "Executed", "Blocker")


def precision_rows(
    decisions: Sequence[PrecisionDecision], tuned: Tuned | None = None
) -> pd.DataFrame:
    """The contract: what each layer was asked for, is built as, and what its kernel multiplies in.

    Columns: Layer, Operator, Nodes, Requested, Built as, Executed, Blocker. Executed is empty until
    Tune has run; it carries ``(emulated)`` where the device has no such arithmetic.
    """
    ran = {n: c for c in tuned.layers for n in c.origin} if tuned is not None else {}
    rows = [
        (
            *(d.layer, d.op, ", ".join(d.origin), d.requested.info.label),
            *(_built(d), _executed(d, ran), d.blocker),
        )
        for d in decisions
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _built(d: PrecisionDecision) -> str:
    return "INT4 weights" if d.precision is DataType.INT4 else d.precision.info.label


def _executed(d: PrecisionDecision, ran: Mapping[str, LayerChoice]) -> str:
    """What the kernel that has the layer's first node multiplies in."""
    choice = next((ran[n] for n in d.origin if n in ran), None)
    if choice is None:
        return ""
    text = choice.executed.info.label
    if d.precision is DataType.INT4:
        return f"{text}, INT4 weights (emulated)"
    return f"{text} (emulated)" if choice.emulated else text
