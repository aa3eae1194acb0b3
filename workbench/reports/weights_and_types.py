"""2:4 sparsity, overflow and the types that weak typing chose, as rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from workbench.builder import WeakTyping
from workbench.lab import OverflowHunt, PrunedPoint, WeightSparsity


def sparsity_rows(weights: Sequence[WeightSparsity]) -> pd.DataFrame:
    """One row a product's weight.

    Columns: Layer, Operator, Shape, Groups of four, Fitting (%), Zeros (%), Pruning loses (% of
    energy), Note. Fitting and what pruning loses are NaN where there are no groups.
    """
    rows = [
        (
            *(w.layer, w.op, "×".join(map(str, w.shape)), w.groups),
            100 * w.fitting / w.groups if w.groups else math.nan,
            *(100 * w.zeros, 100 * w.lost if w.groups else math.nan),
            w.blocker or ("2:4" if w.is_sparse else ""),
        )
        for w in weights
    ]
    columns = ["Layer", "Operator", "Shape", "Groups of four", "Fitting (%)", "Zeros (%)"]
    return pd.DataFrame(rows, columns=[*columns, "Pruning loses (% of energy)", "Note"])


def pruning_rows(curve: Sequence[PrunedPoint]) -> pd.DataFrame:
    """Columns: Layers pruned, Weights pruned (%), Right (%), Cosine, Relative L2, Samples."""
    rows = [
        (
            *(len(p.layers), p.pruned_share, p.quality.accuracy, p.quality.cosine),
            *(p.quality.relative_l2, p.quality.samples),
        )
        for p in curve
    ]
    columns = ["Layers pruned", "Weights pruned (%)", "Right (%)", "Cosine", "Relative L2"]
    return pd.DataFrame(rows, columns=[*columns, "Samples"])


def overflow_rows(hunt: OverflowHunt) -> pd.DataFrame:
    """What stops being finite, in the network's order.

    Columns: Layer, Operator, Type, Sample, Value (in the float model), Became, Limit, Cause,
    Samples hit.
    """
    rows = [
        (
            *(o.layer, o.op, o.built.info.label, o.sample, o.value, o.found, o.limit),
            *(o.cause, o.samples),
        )
        for o in hunt.overflows
    ]
    columns = ["Layer", "Operator", "Type", "Sample", "Value", "Became", "Limit", "Cause"]
    return pd.DataFrame(rows, columns=[*columns, "Samples hit"])


def headroom_rows(hunt: OverflowHunt) -> pd.DataFrame:
    """Nearest to its limit first. Columns: Layer, Largest, Sample, Limit, Share of limit."""
    rows = [
        (h.layer, h.largest, h.sample, h.limit, h.share)
        for h in sorted(hunt.headroom, key=lambda h: -h.share)
    ]
    return pd.DataFrame(rows, columns=["Layer", "Largest", "Sample", "Limit", "Share of limit"])


def weak_typing_rows(weak: WeakTyping) -> pd.DataFrame:
    """What the tuner chose (TensorRT ≤ 10). Columns: Nodes, Chosen, and µs in each type."""
    kinds = list(dict.fromkeys(k for c in weak.choices for k in c.times_us))
    rows = [
        (", ".join(c.nodes), c.chosen.info.label, *(c.times_us.get(k) for k in kinds))
        for c in weak.choices
    ]
    return pd.DataFrame(rows, columns=["Nodes", "Chosen", *(f"{k.info.label} (µs)" for k in kinds)])
