"""The memory plan as rows: each tensor's lifetime and place in the arena."""

from __future__ import annotations

import pandas as pd

from workbench.memory import MemoryPlan


def memory_rows(memory: MemoryPlan) -> pd.DataFrame:
    """Columns: Tensor, First step, Last step, Offset (B), Size (B)."""
    return pd.DataFrame(
        [(t.name, t.first, t.last, memory.offsets[t.name], t.nbytes) for t in memory.lifetimes],
        columns=["Tensor", "First step", "Last step", "Offset (B)", "Size (B)"],
    )
