"""Findings as rows: hazard, evidence, remedy."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from workbench.lab.ranges import Finding


def finding_rows(findings: Sequence[Finding]) -> pd.DataFrame:
    """Columns: Tensor, Read by, Hazard, Evidence, Remedy, Python, Weak channels (%), After (%)."""
    return pd.DataFrame(
        [
            (
                *(f.tensor, ", ".join(f.layers), f.hazard, f.evidence, f.remedy, f.code),
                *(100 * f.weak_share, 100 * f.weak_after),
            )
            for f in findings
        ],
        columns=[
            *("Tensor", "Read by", "Hazard", "Evidence", "Remedy", "Python"),
            *("Weak channels (%)", "After remedy (%)"),
        ],
    )
