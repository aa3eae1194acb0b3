"""Precision as rows: asked for, built and executed, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

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
    Tune has run; it carries ``(emulated)`` where the device has no such arithmetic. A layer that
    joined another is then built and executed as that one is, and has no blocker if it asked for it.
    """
    ran = {n: c for c in tuned.layers for n in c.origin} if tuned is not None else {}
    rows = [_row(d, next((ran[n] for n in d.origin if n in ran), None)) for d in decisions]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _row(d: PrecisionDecision, choice: LayerChoice | None) -> tuple[str, ...]:
    built, blocker = d.precision.info.label, d.blocker
    if d.precision is DataType.INT4:
        built = "INT4 weights"
    elif choice is not None and blocker:
        built = choice.built.info.label
        blocker = "" if choice.executed is d.requested else blocker
    asked = (d.layer, d.op, ", ".join(d.origin), d.requested.info.label)
    return (*asked, built, _executed(d, choice), blocker)


def _executed(d: PrecisionDecision, choice: LayerChoice | None) -> str:
    """What the kernel that has the layer's first node multiplies in."""
    if choice is None:
        return ""
    text = choice.executed.info.label
    if d.precision is DataType.INT4:
        return f"{text}, INT4 weights (emulated)"
    return f"{text} (emulated)" if choice.emulated else text
