"""Task accuracy of the digits models in every precision, on one device.

    python benchmarks/digits_accuracy.py OUT.json [--device gpu] [--level 2]

400 test images, one batch; INT8 and FP8 calibrated (entropy, the default) on 200 others. Prints a
table; the JSON holds a row a model and precision: percent right, points lost against float32, how
many layers of those that could run in the precision, and whose tactics ran. Exit status: 1 if a
precision loses more than LARGEST_LOSS points, or fails.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

import workbench as wb
from workbench.builder import build
from workbench.bundle import bundled
from workbench.datatypes import DataType
from workbench.errors import WorkbenchError
from workbench.files import write_atomically
from workbench.reports import classification_accuracy, coverage

MODELS = ("digits_cnn", "digits_inception", "digits_vit")
PRECISIONS = {
    "FP32": (DataType.FLOAT, False),
    "TF32": (DataType.FLOAT, True),
    "FP16": (DataType.HALF, False),
    "BF16": (DataType.BF16, False),
    "INT8": (DataType.INT8, False),
    "FP8": (DataType.FP8, False),
    "INT4 weights": (DataType.INT4, False),
}
"""The type asked for everywhere, and whether float32 factors may be rounded to TF32."""
LARGEST_LOSS = 1.0
Row = dict[str, Any]


def measured(model: str, precision: str, device: str, level: int) -> Row:
    """One row. Raises a WorkbenchError."""
    kind, tf32 = PRECISIONS[precision]
    data = np.load(bundled("datasets", "digits.npz"))
    images, labels = data["test_images"], data["test_labels"]
    config = wb.BuilderConfig()
    config.builder_optimization_level = level
    config.default_precision = kind
    if not tf32:
        config.clear_flag(wb.BuilderFlag.TF32)
    profile = wb.OptimizationProfile()
    profile.set_shape("image", (1, 1, 8, 8), images.shape, images.shape)
    config.add_optimization_profile(profile)
    begun = time.perf_counter()
    state = build(
        bundled("datasets", f"{model}.onnx"),
        config,
        device=device,
        calibration={"image": data["calibration_images"]},
    )
    seconds = time.perf_counter() - begun
    assert state.plan_bytes is not None and state.tuned is not None
    engine = wb.Runtime(device).deserialize(state.plan_bytes)
    return {
        "accuracy": classification_accuracy(engine, images, labels, batch=len(images)),
        "coverage": str(coverage(state.tuned, kind)),
        "steps": dict(Counter(s.tactic.source for s in engine.plan.steps)),
        "build_s": round(seconds, 1),
        "device": str(state.device),
    }


def main() -> int:
    """Every model in every precision."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="gpu", choices=("gpu", "cpu"))
    parser.add_argument("--level", type=int, default=2, help="builder_optimization_level")
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--precisions", nargs="+", default=tuple(PRECISIONS), choices=PRECISIONS)
    options = parser.parse_args()
    # Float32 is always among them, and first: the others are compared with it.
    precisions = [p for p in PRECISIONS if p == "FP32" or p in options.precisions]
    rows: list[Row] = []
    for model in options.models:
        base: float | None = None
        for precision in precisions:
            row: Row = {"model": model, "precision": precision}
            try:
                row |= measured(model, precision, options.device, options.level)
                base = row["accuracy"] if base is None else base
                row["lost"] = round(base - row["accuracy"], 4)
                told = f"{row['accuracy']:6.2f} %  lost {row['lost']:5.2f}  {row['coverage']}"
            except WorkbenchError as e:
                row["failed"] = told = f"{type(e).__name__}: {e}"
            rows.append(row)
            print(f"{model:<17} {precision:<13} {told}  {row.get('steps', '')}", flush=True)
            table = {
                "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
                "version": wb.__version__,
                "level": options.level,
                "rows": rows,
            }
            write_atomically(options.out, (json.dumps(table, indent=1) + "\n").encode())
    return int(any("failed" in r or r["lost"] > LARGEST_LOSS for r in rows))


if __name__ == "__main__":
    sys.exit(main())
