"""Record builds on this machine's GPU: ``python benchmarks/gpu/record_models.py FOLDER JOB...``.

A job is MODEL:BATCH:PRECISION, such as ``resnet50:32:FP16`` or ``digits_cnn:32:INT8``. Models are
the bundled ones, with their calibration images, and those of models.py, which need torch, with
random calibration data. Each writes FOLDER/MODEL_bBATCH_PRECISION.json.gz, which the lessons
replay, labelled, where there is no GPU. The exit status is 1 if something failed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from workbench.bundle import bundled
from workbench.cli import main as workbench

BUNDLED = ("digits_cnn", "digits_inception", "digits_vit")
CALIBRATED = ("INT8", "FP8")
RANGE = 64
"""Largest batch of a bundled model's profile."""


def bundled_model(name: str, batch: int, folder: Path) -> list[str]:
    """The command line's words for a bundled model; the last two give the calibration data."""
    data = bundled("datasets", "digits.npz")
    digits = np.load(data)
    np.savez(folder / "inputs.npz", image=digits["test_images"][:batch])
    shapes = ",".join(f"{n}x1x8x8" for n in (1, batch, max(batch, RANGE)))
    return [
        str(bundled("datasets", f"{name}.onnx")),
        *("--shapes", f"image={shapes}"),
        *("--inputs", str(folder / "inputs.npz")),
        *("--calibration", str(data)),
    ]


def large_model(name: str, batch: int, folder: Path) -> list[str]:
    """The same for a model of models.py, made here from its seed."""
    from models import MODELS, export, make

    module, inputs = make(name, batch)
    path = folder / f"{name}.onnx"
    export(module, inputs, MODELS[name].output, path)
    np.savez(folder / "inputs.npz", **{n: t.numpy() for n, t in inputs.items()})
    return [str(path), "--inputs", str(folder / "inputs.npz"), "--calibration", "random"]


def main() -> int:
    """Run every job; each file is written as soon as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("jobs", nargs="+", help="MODEL:BATCH:PRECISION")
    parser.add_argument("--level", type=int, default=3, help="builder_optimization_level")
    parser.add_argument("--device", default="gpu")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    failed = 0
    for job in options.jobs:
        name, batch, precision = job.split(":")
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            make = bundled_model if name in BUNDLED else large_model
            given = make(name, int(batch), Path(folder))
            target = options.folder / f"{name}_b{batch}_{precision.lower()}.json.gz"
            if precision not in CALIBRATED:
                given = given[:-2]
            asked = ["--device", options.device, "--precision", precision, "-o", str(target)]
            status = workbench(["record", *given, *asked, "--level", str(options.level)])
        failed |= status
        print(f"{job}: exit status {status}, {time.perf_counter() - began:.1f} s", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
