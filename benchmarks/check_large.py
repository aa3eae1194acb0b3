"""Large models through the Studio against ONNX Runtime: ``benchmarks/check_large.py FOLDER``.

FOLDER is what ``python datasets/export_large.py FOLDER`` made. For each model: build in FP32
through ``Studio(path, calibration=...)``, run one calibration sample, and compare every output with
ONNX Runtime's, relative to the largest magnitude. Exit status 1 if one differs by more than 1e-4.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from widgets import Studio
from workbench.reports import coverage
from workbench.session import SetOption, SetProfile

MODELS = ("resnet50", "squeezenet", "mobilenetv2", "bert")
LIMIT = 1e-4


def main() -> int:
    """Exit status: 1 if a model's outputs differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--level", type=int, default=1, help="builder optimization level")
    parser.add_argument("--save", type=Path, help="write the table as JSON")
    parser.add_argument("--models", nargs="*", default=MODELS)
    options = parser.parse_args()
    rows = [check(options.folder, name, options.level) for name in options.models]
    if options.save:
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        data = {"date": today, "onnxruntime": onnxruntime.__version__, "models": rows}
        options.save.write_text(json.dumps(data, indent=1) + "\n")
    return int(any(r["relative_error"] > LIMIT for r in rows))


def check(folder: Path, name: str, level: int) -> dict[str, Any]:
    """One model's row."""
    path = folder / f"{name}.onnx"
    samples = dict(np.load(folder / f"{name}.npz"))
    began = time.perf_counter()
    studio = Studio(str(path), calibration=str(path.with_suffix(".npz")))
    session = studio.session
    for t in session.parsed.network.inputs:
        shape = (1, *samples[t.name].shape[1:])
        session.do(SetProfile(t.name, shape, shape, shape))
    session.do(SetOption("builder_optimization_level", level))
    state = session.run()
    seconds = time.perf_counter() - began
    x = {k: v[:1] for k, v in samples.items()}
    ours = state.engine().create_execution_context().run(x)
    peer = onnxruntime.InferenceSession(path)
    theirs = dict(zip([o.name for o in peer.get_outputs()], peer.run(None, x), strict=True))
    error = max(float(np.abs(ours[k] - v).max() / np.abs(v).max()) for k, v in theirs.items())
    assert state.tuned is not None
    nodes = len(state.network.model_nodes)
    row = {
        "model": name,
        "device": str(state.device),
        "nodes": nodes,
        "layers": state.network.num_layers,
        "relative_error": error,
        "build_s": round(seconds, 1),
        "level": level,
        "coverage": str(coverage(state.tuned, session.config.default_precision)),
    }
    print(row, flush=True)
    return row


if __name__ == "__main__":
    sys.exit(main())
