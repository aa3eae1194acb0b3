"""Trials of the bundled digits models, quick ones: nothing timed, rewrites not verified."""

from __future__ import annotations

import numpy as np

import workbench as wb
from workbench.bundle import bundled
from workbench.lab import PrecisionTrials


def digits_trials(
    model: str = "digits_cnn", *, calibration: int = 0, tests: int = 0, usual: int = 64
) -> PrecisionTrials:
    """So many calibration images, and as many labelled test images to compare on.

    Without test images the calibration's are compared. usual: batch size that is tuned for.
    """
    data = np.load(bundled("datasets", "digits.npz"))
    config = wb.BuilderConfig()
    config.verify, config.num_threads, config.builder_optimization_level = "none", 1, 0
    shapes = ((1, 1, 8, 8), (usual, 1, 8, 8), (64, 1, 8, 8))
    config.add_optimization_profile(wb.OptimizationProfile().set_shape("image", *shapes))
    images = {"image": data["calibration_images"][:calibration]}
    samples = {"image": data["test_images"][:tests]}
    return PrecisionTrials(
        bundled("datasets", f"{model}.onnx"),
        config,
        calibration=images if calibration else None,
        samples=samples if tests else None,
        labels=data["test_labels"][:tests] if tests else None,
    )
