"""Precision decisions as rows."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from workbench.precision import PrecisionDecision


def precision_rows(decisions: Sequence[PrecisionDecision]) -> pd.DataFrame:
    """Columns: Layer, Operator, Nodes, Requested, Built as, Blocker."""
    return pd.DataFrame(
        [
            (
                d.layer,
                d.op,
                ", ".join(d.origin),
                d.requested.info.label,
                d.precision.info.label,
                d.blocker,
            )
            for d in decisions
        ],
        columns=["Layer", "Operator", "Nodes", "Requested", "Built as", "Blocker"],
    )
