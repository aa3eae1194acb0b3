"""The table of layers, and the tactics tried for one of them."""

from __future__ import annotations

import pandas as pd

from workbench.selection import Candidate, LayerChoice, Tuned
from workbench.selection.ranking import OUR_KERNELS, formats_of, in_float32
from workbench.tactics.protocol import Tactic

NOT_CHOSEN = "not chosen"
"""The status of a tactic that runs and is right; it may be faster alone: its Mark says why not."""


def layer_rows(tuned: Tuned) -> pd.DataFrame:
    """One row a layer, then one a reformat.

    Executed carries ``(emulated)`` where the device has no such arithmetic. Fusion gain is
    COMPOSED's median less the chosen tactic's; empty for a layer of one operator.
    """
    rows = [_row(c) for c in tuned.layers]
    rows += [
        {
            "Layer": f"reformat {r.tensor}",
            "Type": "REFORMAT",
            "Operators": f"{r.source} → {r.target}",
            **dict.fromkeys(("Origin", "Requested", "Built", "Executed", "Runner-up"), ""),
            "Tactic": r.winner.title,
            "Kernel": r.winner.kernel,
            "Median (µs)": r.winner.timing.median_us if r.winner.timing else None,
            "Note": r.reason,
        }
        for r in tuned.reformats
    ]
    return pd.DataFrame(rows, columns=list(_row(tuned.layers[0])) if tuned.layers else None)


def _row(c: LayerChoice) -> dict[str, object]:
    runner = c.candidates[c.runner_up] if c.runner_up is not None else None
    timing = c.winner.timing
    return {
        "Layer": c.layer,
        "Type": c.type,
        "Operators": " + ".join(c.operators),
        "Origin": ", ".join(c.origin),
        "Requested": c.requested.info.label,
        "Built": c.built.info.label,
        "Executed": c.arithmetic + (" (emulated)" if c.emulated else ""),
        "Tactic": c.winner.title,
        "Kernel": c.winner.kernel,
        "Median (µs)": timing.median_us if timing else None,
        "Spread (µs)": timing.spread_us if timing else None,
        "Runner-up": runner.title if runner else "",
        "Runner-up (µs)": runner.timing.median_us if runner and runner.timing else None,
        "Fusion gain (µs)": c.gain_us,
        "Note": "" if c.distinguishable else "not distinguishable from the runner-up",
    }


def tactic_rows(choice: LayerChoice) -> pd.DataFrame:
    """One row a tactic of one layer: its times and error, or why it was refused.

    Formats: the layouts that it reads and writes. Mark: ``≈ chosen`` where noise hides which of the
    two is faster, ``noisy`` where the machine was too busy, ``cut off`` after a hopeless first run;
    of a faster one why it was not chosen: ``less exact``, ``its layouts`` cost more around it, or
    it has ``no early start`` beside its neighbours, which in whole runs saves more.
    Error/bound: largest error against the float64 reference, as a fraction of its bound. Error: of
    all floats together, relative (L2); of two float32 tactics alike in time the exacter is chosen.
    """
    rows: list[dict[str, object]] = []
    for index, c in enumerate(choice.candidates):
        t = c.timing
        status = "chosen" if index == choice.chosen else "refused" if c.refusal else NOT_CHOSEN
        rows.append(
            {
                "Status": status,
                "Source": c.source,
                "Tactic": c.title,
                "Formats": formats_text(c.tactic),
                "Precision": _precision(c.tactic),
                "Median (µs)": t.median_us if t else None,
                "Spread (µs)": t.spread_us if t else None,
                "Mark": _mark(c, choice.winner),
                "Why not": str(c.refusal) if c.refusal else "",
                "Error/bound": c.worst,
                "Workspace (KiB)": c.workspace_bytes / 1024 if t or c.workspace_bytes else None,
                "Min (µs)": t.min_us if t else None,
                "Samples": t.samples if t else None,
                "Kernel": c.kernel,
                "Measured": (f"{t.date}{', cached' if c.cached else ''}" if t else ""),
                "Error": c.error,
            }
        )
    table = pd.DataFrame(rows)
    order = {"chosen": 0, NOT_CHOSEN: 1, "refused": 2}
    ranked = table.assign(_o=table["Status"].map(order.__getitem__)).sort_values(
        ["_o", "Median (µs)"], kind="stable"
    )
    return ranked.drop(columns="_o").reset_index(drop=True)


REFORMATS = ["Tensor", "From", "To", "Tactic", "Median (µs)", "Spread (µs)", "Readers"]


def reformat_rows(tuned: Tuned) -> pd.DataFrame:
    """One row a tensor that is rewritten to another layout, with who asks for it."""
    rows: list[tuple[object, ...]] = []
    for r in tuned.reformats:
        t = r.winner.timing
        times = (t.median_us, t.spread_us) if t else (None, None)
        name = r.winner.title
        rows.append((r.tensor, str(r.source), str(r.target), name, *times, ", ".join(r.readers)))
    return pd.DataFrame(rows, columns=REFORMATS)


def formats_text(tactic: Tactic | None) -> str:
    """``NCHW, NCHW → HWC``: layouts of a tactic's inputs, then of its outputs."""
    if tactic is None:
        return ""
    inputs, outputs = (", ".join(map(str, f)) for f in (tactic.inputs, tactic.outputs))
    return f"{inputs} → {outputs}" if inputs else outputs


def _precision(tactic: Tactic | None) -> str:
    if tactic is None:
        return ""
    return tactic.arithmetic + (" (emulated)" if tactic.emulated else "")


def _mark(candidate: Candidate, winner: Candidate) -> str:
    """What qualifies a timing; empty for one to be taken as it stands."""
    t = candidate.timing
    if t is None:
        return ""
    marks: list[str] = []
    chosen = winner.timing if candidate.eligible and candidate is not winner else None
    if chosen is not None and not t.distinguishable(chosen):
        marks.append("≈ chosen")
    elif chosen is not None and t.likely_us < chosen.likely_us:
        if formats_of(candidate) != formats_of(winner):
            marks.append("its layouts")
        elif in_float32(candidate) and (candidate.error or 0.0) > (winner.error or 0.0):
            marks.append("less exact")
        elif winner.source in OUR_KERNELS and candidate.source not in OUR_KERNELS:
            marks.append("no early start")
    if t.noisy:
        marks.append("noisy")
    if t.cut_off:
        marks.append("cut off")
    return ", ".join(marks)
