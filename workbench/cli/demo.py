"""``workbench demo``: the main job, end to end, on a real trained model."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import numpy as np

from workbench.builder import STAGES, BuildState
from workbench.bundle import bundled
from workbench.cli.text import heading, say, stage_line, table
from workbench.datatypes import DataType
from workbench.errors import BuildError
from workbench.records import Stage, StageRecord
from workbench.reports import (
    accuracy_rows,
    classification_accuracy,
    coverage,
    ledger_summary,
    profile_rows,
    short_layer_rows,
)
from workbench.session import Session, SetDefaultPrecision, SetProfile

NAME = "demo"
HELP = "build, measure, export and check a real model's engine, stage by stage"
PRECISIONS = {
    "cpu": (DataType.FLOAT, DataType.BF16, DataType.INT8),
    "gpu": (DataType.FLOAT, DataType.HALF),
}
"""What is built on each kind of device, the one that is shown and exported last. The GPU sources
have no INT8 kernels yet."""
_BARE = """
import sys
for name in ("onnx", "pandas", "plotly", "ipywidgets", "IPython"):
    sys.modules[name] = None
from workbench.runtime.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``workbench demo``."""
    parser.add_argument("--model", default="digits_cnn", help="a bundled model's name")
    parser.add_argument("--device", default="cpu", help="cpu, gpu or gpu:<index>")
    parser.add_argument("--output", default=".", help="folder for the plan and the report")


def main(options: argparse.Namespace) -> int:
    """A build per precision, their comparison, and the plan checked in a bare process."""
    began = time.perf_counter()
    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    digits = dict(np.load(bundled("datasets", "digits.npz"), allow_pickle=False))
    session = Session(
        bundled("datasets", f"{options.model}.onnx"),
        device=options.device,
        calibration={"image": digits["calibration_images"]},
    )
    say(f"Device: {session.device}")
    shape = session.parsed.network.inputs[0].shape[1:]
    session.do(SetProfile("image", (1, *shape), (32, *shape), (64, *shape)))
    accuracies: dict[str, float] = {}
    states: dict[DataType, BuildState] = {}
    for kind in PRECISIONS[session.device.kind]:
        say(heading(f"Build of {session.name} in {kind.info.label}"))
        session.do(SetDefaultPrecision(kind))
        states[kind] = session.run(tell=_Lines())
        accuracies[kind.info.label] = classification_accuracy(
            states[kind].engine(), digits["test_images"], digits["test_labels"]
        )
    shown, state = list(states.items())[-1]
    _print_build(shown.info.label, state, states)
    say(heading("Accuracy on held-out test images"))
    rows = accuracy_rows(accuracies, len(digits["test_labels"]))
    say(table(rows))
    plan = folder / f"{session.name}.plan"
    digest = session.export_plan(plan)
    say(heading("Plan"))
    say(f"{plan}: {plan.stat().st_size} bytes, SHA-256 {digest}")
    _check_in_bare_process(plan, state, digits["test_images"][:32])
    profile = (
        state.engine().create_execution_context().profile({"image": digits["test_images"][:32]})
    )
    say(heading("Profile at batch 32: the layers and the residual sum to the end-to-end time"))
    columns = ["Layer", "Executed", "Kernel", "Median (µs)", "Share (%)"]
    say(table(profile_rows(profile), columns))
    say(f"end to end: {profile.end_to_end_us:.1f} µs")
    _report(session, state, folder, rows, profile)
    say(f"\nDone in {time.perf_counter() - began:.1f} s.")
    return 0


class _Lines:
    """Prints a line per stage."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, record: StageRecord) -> None:
        self.number += 1
        say(stage_line(record, self.number, len(STAGES)))


def _print_build(label: str, state: BuildState, states: dict[DataType, BuildState]) -> None:
    assert state.tuned is not None
    say(heading(f"Layers of the {label} engine (requested, built and executed precision)"))
    say("Q: QuantizeLinear, DQ: DequantizeLinear. Fusion gain: COMPOSED's time less the winner's.")
    say(table(short_layer_rows(state.tuned), width=40))
    for kind, other in states.items():
        assert other.tuned is not None
        say(f"Coverage: {coverage(other.tuned, kind)}")
    say(heading(f"Ledger of the {label} build"))
    nodes = len(state.networks[Stage.PARSE].model_nodes)
    say(ledger_summary(state.log, nodes=nodes, layers=state.network.num_layers))


def _check_in_bare_process(plan: Path, state: BuildState, images: Any) -> None:
    """Load the plan where only the runtime can be imported; outputs must be bit-equal."""
    inputs = {"image": images}
    outputs = state.engine().create_execution_context().run(inputs)
    with tempfile.TemporaryDirectory() as folder:
        given, wanted = Path(folder) / "inputs.npz", Path(folder) / "expected.npz"
        np.savez(given, **inputs)
        np.savez(wanted, **cast(dict[str, Any], outputs))
        command = [sys.executable, "-c", _BARE, str(plan)]
        command += ["--inputs", str(given), "--expect", str(wanted)]
        command += ["--device", state.device.kind]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise BuildError(
            f"the bare process says: {(result.stdout + result.stderr).strip()}", place=str(plan)
        )
    say("Bare process (onnx, pandas, plotly blocked): " + result.stdout.strip())


def _report(session: Session, state: BuildState, folder: Path, accuracy: Any, profile: Any) -> None:
    # The widgets' figures; imported here because only a report needs Plotly.
    from widgets.html_report import write_report

    path = folder / f"{session.name}.html"
    write_report(state, path, accuracy=accuracy, profile=profile)
    say(f"Report: {path} ({path.stat().st_size / 1e6:.1f} MB, opens offline)")
