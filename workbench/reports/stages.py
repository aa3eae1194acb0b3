"""One row a stage: what it did and how long it took."""

from __future__ import annotations

import pandas as pd

from workbench.records import BuildLog


def stage_rows(log: BuildLog) -> pd.DataFrame:
    """Columns: Stage, Time (ms), Summary."""
    return pd.DataFrame(
        [(r.stage.value, r.seconds * 1e3, r.summary) for r in log.records],
        columns=["Stage", "Time (ms)", "Summary"],
    )
