"""The table of layers in two parts, each narrow enough for a terminal of 120 columns."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pandas as pd

from workbench.formats import LINEAR
from workbench.precision import PrecisionDecision
from workbench.selection import Candidate, LayerChoice, Tuned

SHORT = {"QuantizeLinear": "Q", "DequantizeLinear": "DQ"}


def short_layer_rows(tuned: Tuned, decisions: Sequence[PrecisionDecision] = ()) -> pd.DataFrame:
    """Columns: Layer, Operators, Requested, Built, Executed, Median (µs), Fusion gain (µs).

    Requested is what the person asked for; ``*`` where it was built otherwise, which the ledger
    explains; empty where the builder added the layer. Fusion gain: as in ``layer_rows``.
    """
    rows = [
        (
            c.layer,
            short_operators(c.operators),
            _requested(c, decisions),
            c.built.info.label,
            c.executed.info.label + (" (emulated)" if c.emulated else ""),
            c.median_us,
            c.gain_us,
        )
        for c in tuned.layers
    ]
    rows += [
        (f"reformat {r.tensor}", f"{r.source} → {r.target}", "", "", "", _median(r.winner), None)
        for r in tuned.reformats
    ]
    columns = ["Layer", "Operators", "Requested", "Built", "Executed"]
    return pd.DataFrame(rows, columns=[*columns, "Median (µs)", "Fusion gain (µs)"])


def short_tactic_rows(tuned: Tuned) -> pd.DataFrame:
    """Columns: Layer, Tactic, Median (µs), Runner-up, Median (µs) of it, and a mark.

    The mark is ``≈`` where noise hides which of the two is faster.
    """
    rows = [_choice(c) for c in tuned.layers]
    rows += [
        (f"reformat {r.tensor}", short_tactic(r.winner), _median(r.winner), "", None, "")
        for r in tuned.reformats
    ]
    columns = ["Layer", "Tactic", "Median (µs)", "Runner-up", "Its median (µs)", ""]
    return pd.DataFrame(rows, columns=columns)


def short_operators(operators: Sequence[str]) -> str:
    """``2·DQ+Conv+Relu+Q``: operators joined, repeats counted."""
    short = [SHORT.get(o, o) for o in operators]
    runs = [(name, len(list(run))) for name, run in itertools.groupby(short)]
    return "+".join(f"{n}·{name}" if n > 1 else name for name, n in runs)


def short_tactic(candidate: Candidate) -> str:
    """``ONEDNN brgconv:avx512_core 1T [HWC]``: source, implementation, one thread, layouts."""
    tactic = candidate.tactic
    if tactic is None:
        return candidate.source
    own = candidate.kernel.lower().startswith(candidate.source.lower())
    name = tactic.name if own or candidate.source == "COMPOSED" else candidate.kernel
    words = [candidate.source]
    words += [name] if name.upper() != candidate.source else []
    words += ["through FP32"] if "through FP32" in tactic.name and not own else []
    words += ["1T"] if dict(tactic.parameters).get("threads") == 1 else []
    layouts = dict.fromkeys(str(f) for f in (*tactic.inputs, *tactic.outputs))
    words += [f"[{'>'.join(layouts)}]"] if set(layouts) - {str(LINEAR)} else []
    return " ".join(words)


def _choice(c: LayerChoice) -> tuple[object, ...]:
    runner = c.candidates[c.runner_up] if c.runner_up is not None else None
    return (
        c.layer,
        short_tactic(c.winner),
        c.median_us,
        short_tactic(runner) if runner else "",
        _median(runner) if runner else None,
        "" if c.distinguishable else "≈",
    )


def _requested(c: LayerChoice, decisions: Sequence[PrecisionDecision]) -> str:
    own = [d for d in decisions if set(d.origin) & set(c.origin)]
    if not own:
        return "" if decisions else c.requested.info.label
    asked = next((d.requested for d in own if d.quantizable), own[0].requested)
    return asked.info.label + ("" if asked is c.built else " *")


def _median(candidate: Candidate) -> float | None:
    return candidate.timing.median_us if candidate.timing else None
