"""The ledger: every rewrite attempt of a build, applied or refused with its reason."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from workbench.records import BuildLog, Stage


def ledger_rows(log: BuildLog) -> pd.DataFrame:
    """Columns: #, Stage, Rule, Place, Outcome, Reason, Remedy, Created."""
    return pd.DataFrame(
        [
            (
                i,
                a.stage.value,
                a.rule,
                ", ".join(a.place),
                "applied" if a.applied else "refused",
                a.reason,
                a.refusal.remedy if a.refusal else "",
                ", ".join(a.created) or a.detail,
            )
            for i, a in enumerate(log.attempts)
        ],
        columns=["#", "Stage", "Rule", "Place", "Outcome", "Reason", "Remedy", "Created"],
    )


def ledger_summary(log: BuildLog, *, nodes: int, layers: int) -> str:
    """``nodes → layers``; per stage each rule applied and where; each refusal, by its reason."""
    lines = [f"{nodes} ONNX nodes → {layers} layers"]
    for stage in Stage:
        own = [a for a in log.attempts if a.stage is stage]
        applied: dict[str, list[str]] = {}
        refused: dict[tuple[str, str], list[str]] = {}
        for a in own:
            if a.applied:
                applied.setdefault(a.rule, []).append(a.place[0])
            else:
                refused.setdefault((a.rule, a.reason), []).append(a.place[0])
        lines += [f"  {stage.value}: {r}{_times(p)} at {_places(p)}" for r, p in applied.items()]
        lines += [
            f"  {stage.value}: refused {rule}{_times(places)} at {_places(places)}: {reason}"
            for (rule, reason), places in refused.items()
        ]
    return "\n".join(lines)


def _times(places: Sequence[str]) -> str:
    return f" ×{len(places)}" if len(places) > 1 else ""


def _places(places: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(places))
