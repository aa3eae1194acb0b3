"""The ledger: every rewrite attempt of a build, applied or refused with its reason."""

from __future__ import annotations

from collections import Counter

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
    """``nodes before → layers after``, each rule with its count, each refusal with its reason."""
    applied = Counter((a.stage, a.rule) for a in log.attempts if a.applied)
    lines = [f"{nodes} ONNX nodes → {layers} layers"]
    for stage in Stage:
        rules = [f"{rule} ×{n}" for (s, rule), n in sorted(applied.items(), key=str) if s is stage]
        if rules:
            lines.append(f"  {stage.value}: applied {', '.join(rules)}")
    refused = [a for a in log.attempts if not a.applied]
    lines += [
        f"  {a.stage.value}: refused {a.rule} at {', '.join(a.place)}: {a.reason}" for a in refused
    ]
    return "\n".join(lines)
