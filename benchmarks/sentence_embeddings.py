"""Sentence embeddings in static INT8: the lab's search beside ONNX Runtime's quantizer.

    python benchmarks/sentence_embeddings.py [--tolerance 0.02] [--write]

The encoder and the sentences are those of datasets/. Both calibrate on the same 128 sentences and
are judged on the same 256 others: mean cosine between the INT8 embedding and the float one. ONNX
Runtime quantizes statically, symmetric INT8, Q/DQ, weights per channel, with each of its
calibrators. The lab compares its settings with every product in INT8, then keeps as few layers as
the tolerance asks for. ``--write`` puts the result into benchmarks/results/.
"""

from __future__ import annotations

import argparse
import datetime
import json
import logging
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime import quantization as peer
from onnxruntime.quantization.shape_inference import quant_pre_process

import workbench as wb
from workbench.lab import PrecisionTrials, compare_settings, find_minimal_fix

ROOT = Path(__file__).parent.parent
MODEL = wb.bundled("datasets", "sentence_encoder.onnx")
BATCH = 64
PRODUCTS = ["MatMul", "Gemm"]


def batches(split: str) -> list[dict[str, np.ndarray]]:
    """A split's sentences as batches."""
    ids = np.load(wb.bundled("datasets", "sentences.npz"))[f"{split}_input_ids"].astype(np.int64)
    rows = [ids[i : i + BATCH] for i in range(0, len(ids), BATCH)]
    return [{"input_ids": r, "attention_mask": (r > 0).astype(np.int64)} for r in rows]


class Reader(peer.CalibrationDataReader):
    """The calibration batches, as ONNX Runtime wants them."""

    def __init__(self) -> None:
        self.left = iter(batches("calibration"))

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch, or None."""
        return next(self.left, None)


def embeddings(path: str | Path) -> np.ndarray:
    """The test sentences' embeddings in ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, b)[0] for b in batches("test")])


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Mean cosine of rows."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.mean((a * b).sum(1) / np.maximum(lengths, 1e-30)))


def of_onnx_runtime() -> dict[str, float | str]:
    """Mean cosine, or why it failed, under each calibrator: every operator, and products alone."""
    logging.getLogger().setLevel(logging.ERROR)
    exact = embeddings(MODEL)
    found: dict[str, float | str] = {}
    with tempfile.TemporaryDirectory() as folder:
        ready, target = Path(folder) / "ready.onnx", Path(folder) / "int8.onnx"
        quant_pre_process(str(MODEL), str(ready), skip_symbolic_shape=True)
        for calibrator in ("MinMax", "Entropy", "Percentile"):
            for what, operators in (("default operators", None), ("MatMul and Gemm", PRODUCTS)):
                name = f"{calibrator}, {what}"
                try:
                    peer.quantize_static(
                        str(ready),
                        str(target),
                        Reader(),
                        quant_format=peer.QuantFormat.QDQ,
                        op_types_to_quantize=operators,
                        per_channel=True,
                        calibrate_method=getattr(peer.CalibrationMethod, calibrator),
                        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
                    )
                except ValueError as e:
                    found[name] = f"fails: {e}"
                    continue
                found[name] = cosine(exact, embeddings(target))
    return found


def trials() -> PrecisionTrials:
    """The lab's trials of the encoder on the same sentences."""
    config = wb.BuilderConfig()
    config.builder_optimization_level, config.num_threads, config.verify = 0, 1, "none"
    length = batches("test")[0]["input_ids"].shape[1]
    profile = wb.OptimizationProfile()
    for name in ("input_ids", "attention_mask"):
        profile.set_shape(name, (1, length), (BATCH, length), (BATCH, length))
    config.add_optimization_profile(profile)
    return PrecisionTrials(
        MODEL, config, calibration=batches("calibration"), samples=batches("test")
    )


def main() -> None:
    """Both, as a table; written where asked."""
    parser = argparse.ArgumentParser(description="INT8 sentence embeddings.")
    parser.add_argument("--tolerance", type=float, default=0.02)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    theirs = of_onnx_runtime()
    for name, value in theirs.items():
        print(
            f"ONNX Runtime {onnxruntime.__version__}, static, {name}: {value}",
            flush=True,
        )
    ours = trials()
    settings = compare_settings(ours, metric="cosine")
    for row in settings:
        print(f"workbench, {row}", flush=True)
    fix = find_minimal_fix(
        ours, options.tolerance, metric="cosine", base=settings[0].applied(ours.config)
    )
    print(fix)
    if options.write:
        result = {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "device": str(ours.device.fingerprint),
            "onnxruntime": onnxruntime.__version__,
            "onnxruntime_cosine": theirs,
            "settings": {
                f"{s.calibrator.value}, channels {s.scaling}": 1 - s.loss for s in settings
            },
            "kept": list(fix.layers),
            "cosine": fix.trial.quality.cosine,
            "coverage": fix.trial.coverage,
            "engines": fix.evaluations,
            "tolerance": options.tolerance,
        }
        path = ROOT / "benchmarks" / "results" / "sentence_embeddings.json"
        path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
