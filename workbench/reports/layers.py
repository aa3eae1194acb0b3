"""The table of layers, and the tactics tried for one of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pandas as pd

from workbench.selection import Candidate, LayerChoice, Tuned


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
            "Tactic": r.winner.title,
            "Kernel": r.winner.kernel,
            "Median (µs)": r.winner.timing.median_us if r.winner.timing else None,
            "Note": r.reason,
        }
        for r in tuned.reformats
    ]
    return pd.DataFrame(rows, columns=list(_row(tuned.layers[0])) if tuned.layers else None)


def short_layer_rows(tuned: Tuned) -> pd.DataFrame:
    """One row a layer and a reformat, narrow enough for a terminal.

    Operators are joined, with Q for QuantizeLinear and DQ for DequantizeLinear. Runs and Runner-up
    name the source and the implementation that the source chose. Times in µs, medians.
    """
    rows = [
        (
            c.layer,
            short_operators(c.operators),
            c.requested.info.label,
            c.built.info.label,
            c.executed.info.label + (" (emulated)" if c.emulated else ""),
            _kernel_of(c.winner),
            c.median_us,
            _kernel_of(c.candidates[c.runner_up]) if c.runner_up is not None else "",
            _time_of(c.candidates[c.runner_up]) if c.runner_up is not None else None,
            c.gain_us,
        )
        for c in tuned.layers
    ]
    rows += [
        (
            f"reformat {r.tensor}",
            f"{r.source} → {r.target}",
            *("",) * 3,
            _kernel_of(r.winner),
            _time_of(r.winner),
            "",
            None,
            None,
        )
        for r in tuned.reformats
    ]
    columns = ["Layer", "Operators", "Requested", "Built", "Executed", "Runs", "µs"]
    return pd.DataFrame(rows, columns=[*columns, "Runner-up", "its µs", "Fusion gain µs"])


def short_operators(operators: Sequence[str]) -> str:
    """``2·DQ+Conv+Relu+Q``: operators joined, repeats counted."""
    short = [{"QuantizeLinear": "Q", "DequantizeLinear": "DQ"}.get(o, o) for o in operators]
    runs = [(name, len(list(run))) for name, run in itertools.groupby(short)]
    return "+".join(f"{n}·{name}" if n > 1 else name for name, n in runs)


def _kernel_of(candidate: Candidate) -> str:
    return f"{candidate.source} {candidate.kernel}"


def _time_of(candidate: Candidate) -> float | None:
    return candidate.timing.median_us if candidate.timing else None


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
        "Executed": c.executed.info.label + (" (emulated)" if c.emulated else ""),
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

    Error/bound: largest error against the float64 reference, as a fraction of its bound.
    """
    rows = []
    for index, c in enumerate(choice.candidates):
        t = c.timing
        status = "chosen" if index == choice.chosen else "refused" if c.refusal else "slower"
        rows.append(
            {
                "Status": status,
                "Source": c.source,
                "Tactic": c.title,
                "Kernel": c.kernel,
                "Median (µs)": t.median_us if t else None,
                "Min (µs)": t.min_us if t else None,
                "Spread (µs)": t.spread_us if t else None,
                "Samples": t.samples if t else None,
                "Error/bound": c.worst,
                "Workspace (KiB)": c.workspace_bytes / 1024,
                "Measured": (f"{t.date}{', cached' if c.cached else ''}" if t else ""),
                "Why not": str(c.refusal) if c.refusal else "",
            }
        )
    table = pd.DataFrame(rows)
    order = {"chosen": 0, "slower": 1, "refused": 2}
    ranked = table.assign(_o=table["Status"].map(order.__getitem__)).sort_values(
        ["_o", "Median (µs)"], kind="stable"
    )
    return ranked.drop(columns="_o").reset_index(drop=True)
