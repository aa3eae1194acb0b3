"""Record the build of digits_cnn on this machine's GPU: ``python benchmarks/record_gpu.py OUT``.

Writes a recording per precision, which the lessons replay, labelled, where there is no GPU, and
a summary with device, versions and date.
"""

from __future__ import annotations

import datetime
import json
import platform
import sys
from pathlib import Path

import numpy as np

from workbench.builder import build
from workbench.bundle import bundled
from workbench.config import BuilderConfig, OptimizationProfile
from workbench.datatypes import DataType
from workbench.reports import classification_accuracy, coverage, record
from workbench.reports.layers import layer_rows


def main(folder: Path) -> None:
    """Recordings of FP32 and FP16, and their summary, into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    digits = dict(np.load(bundled("datasets", "digits.npz")))
    images = digits["test_images"][:32]
    summary = []
    for kind in (DataType.FLOAT, DataType.HALF):
        config = BuilderConfig()
        config.default_precision = kind
        config.add_optimization_profile(
            OptimizationProfile().set_shape("image", (1, 1, 8, 8), (32, 1, 8, 8), (64, 1, 8, 8))
        )
        state = build(
            bundled("datasets", "digits_cnn.onnx"),
            config,
            device="gpu",
            tell=lambda r: print(
                f"{r.stage.value:<10} {r.seconds:6.2f} s  {r.summary}", flush=True
            ),
        )
        assert state.tuned is not None
        engine = state.engine()
        context = engine.create_execution_context()
        profile = context.profile({"image": images}, iterations=50)
        accuracy = classification_accuracy(engine, digits["test_images"], digits["test_labels"])
        reference = state.network.run({"image": images})["logits"]
        error = float(
            np.linalg.norm(context.run({"image": images})["logits"] - reference)
            / np.linalg.norm(reference)
        )
        facts = {
            "batch": 32,
            "accuracy_percent": accuracy,
            "relative_l2_error_against_reference": error,
            "one_cuda_graph_median_us": profile.end_to_end_us,
            "coverage": str(coverage(state.tuned, kind)),
            "worst_error_over_bound": max(c.winner.worst or 0.0 for c in state.tuned.layers),
        }
        name = f"digits_cnn_{kind.info.label.lower()}_gpu.json"
        record(state, folder / name, precision=kind.info.label, profile=profile, facts=facts)
        print(layer_rows(state.tuned)[["Layer", "Executed", "Tactic", "Median (µs)"]].to_string())
        print(facts, flush=True)
        summary.append({"precision": kind.info.label, "device": str(state.device), **facts})
    import cupy

    meta = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "python": platform.python_version(),
        "cupy": cupy.__version__,
        "numpy": np.__version__,
        "builds": summary,
    }
    (folder / "digits_cnn_gpu_summary.json").write_text(json.dumps(meta, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
