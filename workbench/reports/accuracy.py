"""Task accuracy of engines on labelled data."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from workbench.body import Array
from workbench.runtime import Engine


def classification_accuracy(
    engine: Engine, images: Array, labels: Array, *, batch: int = 64
) -> float:
    """Percentage of rows whose largest output is at the label's index.

    The engine has one input and one output; the last batch may be smaller than ``batch``.
    """
    context = engine.create_execution_context()
    names = {t.kind: t.name for t in engine.io_tensors}
    right = 0
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        logits = context.run({names["input"]: part})[names["output"]]
        right += int(np.sum(np.argmax(logits, axis=-1) == labels[start : start + batch]))
    return 100.0 * right / len(labels)


def accuracy_rows(
    accuracies: Mapping[str, float], samples: int, covered: Mapping[str, str]
) -> pd.DataFrame:
    """Columns: Precision, Accuracy (%), Change (points), Coverage, Test samples.

    The first is the base. covered: by precision, how many layers of those that could really run in
    it (``str(coverage(tuned, kind))``): an accuracy says nothing without.
    """
    base = next(iter(accuracies.values()))
    return pd.DataFrame(
        [(name, value, value - base, covered[name], samples) for name, value in accuracies.items()],
        columns=["Precision", "Accuracy (%)", "Change (points)", "Coverage", "Test samples"],
    )
