"""A transformer's sentence embeddings in static INT8, beside ONNX Runtime's own quantizer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnxruntime import quantization as peer

import workbench as wb
from workbench.bundle import bundled
from workbench.lab import PrecisionTrials, find_minimal_fix

MODEL = bundled("datasets", "sentence_encoder.onnx")
INT8 = wb.DataType.INT8
HELD = 0.98


def sentences(split: str, count: int) -> dict[str, np.ndarray]:
    ids = np.load(bundled("datasets", "sentences.npz"))[f"{split}_input_ids"][:count]
    return {"input_ids": ids.astype(np.int64), "attention_mask": (ids > 0).astype(np.int64)}


def test_the_labs_search_keeps_the_cosine_in_int8() -> None:
    config = wb.BuilderConfig()
    config.builder_optimization_level, config.num_threads, config.verify = 0, 1, "none"
    profile = wb.OptimizationProfile()
    for name in ("input_ids", "attention_mask"):
        profile.set_shape(name, (1, 24), (32, 24), (32, 24))
    config.add_optimization_profile(profile)
    trials = PrecisionTrials(
        MODEL, config, calibration=sentences("calibration", 32), samples=sentences("test", 32)
    )
    fix = find_minimal_fix(trials, 1 - HELD, metric="cosine", kind=INT8)
    assert fix.trial.quality.cosine >= HELD
    assert fix.trial.executed >= 0.75 * fix.trial.products
    assert f"of {fix.trial.products} products in INT8" in fix.trial.coverage


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_onnx_runtimes_static_symmetric_int8_loses_far_more(tmp_path: Path) -> None:
    class Reader(peer.CalibrationDataReader):
        left = iter([sentences("calibration", 32)])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.left, None)

    target = tmp_path / "int8.onnx"
    peer.quantize_static(
        str(MODEL),
        str(target),
        Reader(),
        quant_format=peer.QuantFormat.QDQ,
        per_channel=True,
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
    )
    exact, found = (
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(
            None, sentences("test", 32)
        )[0]
        for path in (MODEL, target)
    )
    lengths = np.linalg.norm(exact, axis=1) * np.linalg.norm(found, axis=1)
    assert np.mean((exact * found).sum(1) / lengths) < 0.9
