"""``workbench demo``: the main job, end to end, on a real trained model."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workbench.body import Array
from workbench.builder import STAGES, BuildState
from workbench.bundle import bundled
from workbench.cli.text import duration, heading, say, stage_line, table, wrapped
from workbench.datatypes import DataType
from workbench.devices import open_device
from workbench.errors import BuildError, ConfigError
from workbench.files import check_target, make_folder, write_atomically
from workbench.records import Stage, StageRecord
from workbench.reports import (
    accuracy_rows,
    classification_accuracy,
    coverage,
    ledger_summary,
    profile_rows,
    short_layer_rows,
    short_tactic_rows,
)
from workbench.runtime import Profile
from workbench.session import Session, SetDefaultPrecision, SetProfile
from workbench.timing import TimingCache

NAME = "demo"
HELP = "build, measure, export and check a real model's engine, stage by stage"
PRECISIONS = {
    "cpu": (DataType.INT8, DataType.FLOAT, DataType.BF16),
    "gpu": (DataType.HALF, DataType.FLOAT),
}
"""What is built on each kind of device; the first is shown and exported. The GPU sources have no
INT8 kernels yet."""
BATCH = 32
"""Images a run that tactics are timed for; the profile goes from 1 to twice as many."""
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
    parser.add_argument(
        "--timing-cache",
        metavar="FILE",
        help="read before and merged after, so that a second run times nothing and gives the same "
        "plan; default: none is read, MODEL.timing.json is written beside the plan",
    )


def main(options: argparse.Namespace) -> int:
    """A build per precision, their comparison, and the plan checked in a bare process."""
    began = time.perf_counter()
    folder = Path(options.output)
    make_folder(folder)
    digits = dict(np.load(bundled("datasets", "digits.npz"), allow_pickle=False))
    session = _session(options, digits)
    device = session.device
    say(f"Device: {device}; {', '.join(device.fingerprint.features)}")
    say(
        f"Model:  {session.name}.onnx, {len(session.parsed.network.model_nodes)} nodes; "
        f"{len(digits['calibration_labels'])} images of handwritten digits to calibrate, "
        f"{len(digits['test_labels'])} others to test"
    )
    main_kind, *others = PRECISIONS[device.kind]
    states = {main_kind: _build(session, main_kind)}
    say(heading("The same in other precisions, to compare"))
    states |= {kind: _build_briefly(session, kind) for kind in others}
    session.do(SetDefaultPrecision(main_kind))
    state = states[main_kind]
    _print_layers(main_kind.info.label, state)
    rows = _print_comparison(states, digits)
    say(
        heading(f"Ledger of the {main_kind.info.label} build: what was rewritten, and what was not")
    )
    nodes = len(state.networks[Stage.PARSE].model_nodes)
    layers = state.network.num_layers
    ledger = ledger_summary(state.log, nodes=nodes, layers=layers, tuned=state.tuned)
    say(wrapped(ledger, indent=15))
    say(heading("Plan"))
    plan = folder / f"{session.name}.plan"
    digest = session.export_plan(plan)
    say(f"{plan}: {plan.stat().st_size:,} bytes, SHA-256 {digest}")
    _save_timings(session, options, folder)
    images = digits["test_images"][:BATCH]
    _check_in_bare_process(plan, state, images)
    profile = _print_profile(state, images)
    _report(session, state, folder, rows, profile)
    say(f"\nDone in {time.perf_counter() - began:.1f} s.")
    return 0


def _session(options: argparse.Namespace, digits: dict[str, Array]) -> Session:
    """The model with its calibration data, a profile of 1 to 64 images, and the timings given."""
    names = sorted(p.stem for p in bundled("datasets").glob("*.onnx"))
    if options.model not in names:
        raise ConfigError(
            f"no bundled model is called '{options.model}'",
            place="--model",
            remedy=f"use {', '.join(names)}; your own model: workbench build FILE",
        )
    if options.timing_cache:
        check_target(Path(options.timing_cache))
    device = open_device(options.device)
    cache = TimingCache(device.fingerprint)
    if options.timing_cache:
        cache = TimingCache.load(options.timing_cache, device.fingerprint)
    session = Session(
        bundled("datasets", f"{options.model}.onnx"),
        device=device,
        calibration={"image": digits["calibration_images"]},
        timing_cache=cache,
    )
    shape = session.parsed.network.inputs[0].shape[1:]
    session.do(SetProfile("image", (1, *shape), (BATCH, *shape), (2 * BATCH, *shape)))
    return session


def _build(session: Session, kind: DataType) -> BuildState:
    """Build in one precision, with a line a stage."""
    say(heading(f"Build of {session.name} in {kind.info.label}"))
    session.do(SetDefaultPrecision(kind))
    number = 0

    def tell(record: StageRecord) -> None:
        nonlocal number
        number += 1
        say(stage_line(record, number, len(STAGES)))

    return session.run(tell=tell)


def _build_briefly(session: Session, kind: DataType) -> BuildState:
    """Build in one precision, with a line in all; stages that are the same are not run again."""
    session.do(SetDefaultPrecision(kind))
    began = time.perf_counter()
    say(f"{kind.info.label}: building ... ", end="")
    state = session.run()
    tuned = state.tuned
    assert tuned is not None and state.plan_bytes is not None
    say(
        f"{duration(time.perf_counter() - began)}: {len(tuned.layers)} layers, "
        f"{tuned.timed} tactics timed, {tuned.cached} from the cache, {tuned.total_us:.0f} µs, "
        f"plan of {len(state.plan_bytes) / 1024:.0f} KiB"
    )
    return state


def _print_layers(label: str, state: BuildState) -> None:
    tuned = state.tuned
    assert tuned is not None
    say(heading(f"Layers of the {label} engine: precision requested, built and executed"))
    rows = short_layer_rows(tuned, state.decisions)
    say(table(rows))
    notes = [
        "Q, DQ: QuantizeLinear, DequantizeLinear; 2·DQ: two of them. No request: the builder added "
        "the layer.",
        "Fusion gain: the time of the operators run one by one (COMPOSED), less the layer's.",
    ]
    if any("*" in r for r in rows["Requested"]):
        notes.insert(1, "*: not built as requested; the ledger says why.")
    say(wrapped("\n".join(notes)))
    say(heading(f"Tactics chosen among all that were timed, at batch {BATCH}"))
    say(table(short_tactic_rows(tuned)))
    notes = [
        "1T: on one thread; [HWC], [CHW16]: layout in memory, linear where none is named; ≈: too "
        "close to tell apart.",
        "A runner-up may be faster by itself: the choice is made for all layers together, with the "
        "reformats between them.",
    ]
    say(wrapped("\n".join(notes)))


def _print_comparison(states: dict[DataType, BuildState], digits: dict[str, Array]) -> pd.DataFrame:
    """Coverage and accuracy of each build; returns the rows of accuracy, FP32 first."""
    labels = digits["test_labels"]
    say(heading(f"Accuracy on {len(labels)} held-out images, and coverage"))
    ordered = sorted(states, key=lambda kind: -kind.itemsize)
    accuracies = {
        kind.info.label: classification_accuracy(
            states[kind].engine(), digits["test_images"], labels, batch=2 * BATCH
        )
        for kind in ordered
    }
    covered: dict[str, str] = {}
    for kind in ordered:
        tuned = states[kind].tuned
        assert tuned is not None
        covered[kind.info.label] = str(coverage(tuned, kind))
    rows = accuracy_rows(accuracies, len(labels), covered)
    say(table(rows, width=80))
    return rows


def _save_timings(session: Session, options: argparse.Namespace, folder: Path) -> None:
    if options.timing_cache:
        target = Path(options.timing_cache)
        session.cache.save(target)
    else:
        # Not merged with what lies there: these are the timings of the plan beside it.
        target = folder / f"{session.name}.timing.json"
        write_atomically(target, session.cache.serialize())
    count = len(session.cache.entries)
    say(f"{target}: {count} timings; --timing-cache {target} gives the same plan again")


def _print_profile(state: BuildState, images: Array) -> Profile:
    profile = state.engine().create_execution_context().profile({"image": images})
    say(heading(f"Profile at batch {BATCH}: layers and residual sum to the end-to-end time"))
    columns = ["Layer", "Executed", "Kernel", "Median (µs)", "Share (%)"]
    say(table(profile_rows(profile), columns))
    remark = f"; {profile.remark}" if profile.remark else ""
    say(f"End to end: median {profile.end_to_end_us:.1f} µs, {BATCH} images{remark}")
    say("The residual is what launching costs, less what warm caches save; it may be negative.")
    return profile


def _check_in_bare_process(plan: Path, state: BuildState, images: Any) -> None:
    """Load the plan where only the runtime can be imported; outputs must be bit-equal."""
    inputs = {"image": images}
    outputs = state.engine().create_execution_context().run(inputs)
    with tempfile.TemporaryDirectory() as folder:
        given, wanted = Path(folder) / "inputs.npz", Path(folder) / "expected.npz"
        np.savez(given, **inputs)
        np.savez(wanted, **outputs)
        command = [sys.executable, "-c", _BARE, str(plan)]
        command += ["--inputs", str(given), "--expect", str(wanted)]
        command += ["--device", state.device.kind]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise BuildError(
            f"the bare process says: {(result.stdout + result.stderr).strip()}", place=str(plan)
        )
    say(f"Loaded in a bare process (onnx, pandas, Plotly blocked): {result.stdout.strip()}")


def _report(session: Session, state: BuildState, folder: Path, accuracy: Any, profile: Any) -> None:
    # The widgets' figures are imported here, because only a report needs Plotly.
    from widgets.html_report import write_report

    path = folder / f"{session.name}.html"
    write_report(state, path, accuracy=accuracy, profile=profile)
    say(f"\nReport: {path} ({path.stat().st_size / 1e6:.1f} MB, opens offline)")
