"""The ledger: every rewrite attempt of a build, applied or refused with its reason."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd

from workbench.datatypes import DataType
from workbench.records import Attempt, BuildLog, Stage
from workbench.selection import Tuned


def ledger_rows(log: BuildLog) -> pd.DataFrame:
    """Columns: #, Stage, Rule, Place, Outcome, Code, Reason, Remedy, Edit, Created.

    Outcome: applied, refused, near miss (all of the pattern but one part fits) or quarantined (its
    check failed). Edit: the title of the remedy that ``attempt.remedy.apply`` makes.
    """
    return pd.DataFrame(
        [
            (
                i,
                a.stage.value,
                a.rule,
                ", ".join(a.place),
                a.outcome,
                a.code,
                a.reason,
                a.refusal.remedy if a.refusal else "",
                a.remedy.title if a.remedy else "",
                ", ".join(a.created) or a.detail,
            )
            for i, a in enumerate(log.attempts)
        ],
        columns=[
            *("#", "Stage", "Rule", "Place", "Outcome", "Code", "Reason", "Remedy", "Edit"),
            "Created",
        ],
    )


def ledger_summary(log: BuildLog, *, nodes: int, layers: int, tuned: Tuned | None = None) -> str:
    """``nodes → layers``; each rule that was applied, and where; each refusal, by its reason.

    With ``tuned``, INT8 requests of operators that joined an INT8 layer are told apart.
    """
    lines = [f"{nodes} ONNX nodes → {layers} layers"]
    joined = _joined_int8(log, tuned)
    for stage in Stage:
        groups: dict[tuple[str, str], list[Attempt]] = {}
        for a in log.attempts:
            if a.stage is stage:
                what, why = _outcome(a, joined)
                groups.setdefault((what, _NAME.sub("…", why)), []).append(a)
        for (what, kind_of_reason), same in groups.items():
            why = _outcome(same[0], joined)[1] if len(same) == 1 else kind_of_reason
            times = f" ×{len(same)}" if len(same) > 1 else ""
            lines.append(f"  {stage.value:<9}  {what}{times}: {_places(same)}{why}")
    return "\n".join(lines)


MOST_PLACES = 12
"""Places named of one rule's applications; the table of attempts has them all."""
_NAME = re.compile(r"'[^']*'")
"""A quoted name: reasons that differ only in these are told together."""


def _outcome(attempt: Attempt, joined: frozenset[str]) -> tuple[str, str]:
    """What became of an attempt, and why."""
    if attempt.applied:
        return attempt.rule, ""
    if attempt.stage is Stage.PRECISION and attempt.place[0] in joined:
        return "in INT8 with the layer joined", ""
    return f"{attempt.rule} refused", f": {attempt.reason}"


def _joined_int8(log: BuildLog, tuned: Tuned | None) -> frozenset[str]:
    """Layers without an INT8 kernel of their own whose nodes all run in an INT8 layer."""
    executed = {n: c.executed for c in tuned.layers for n in c.origin} if tuned else {}
    decisions = [d for r in log.records for d in r.facts.get("decisions", ())]
    return frozenset(
        d.layer
        for d in decisions
        if d.blocker and all(executed.get(n) is DataType.INT8 for n in d.origin)
    )


def _places(attempts: Sequence[Attempt]) -> str:
    places = list(dict.fromkeys(a.place[0] for a in attempts))
    more = f" and {len(places) - MOST_PLACES} more" if len(places) > MOST_PLACES else ""
    return ", ".join(places[:MOST_PLACES]) + more
