"""``workbench search``: which layers to keep in a wider type so that accuracy holds."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from workbench.builder import run_stages, start
from workbench.cli.build import profile_of, refuse_missing_shapes
from workbench.cli.text import say, table
from workbench.config import BuilderConfig
from workbench.datatypes import PRECISIONS, DataType
from workbench.errors import ConfigError
from workbench.files import check_target, read_npz, write_atomically
from workbench.lab import PrecisionTrials, compare_settings, find_minimal_fix
from workbench.lab.quality import METRICS
from workbench.records import CallbackMonitor, Stage
from workbench.reports.trials import front_rows, search_rows

NAME = "search"
HELP = "find the layers to keep in a wider type so that accuracy holds; writes a config"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``workbench search``."""
    parser.add_argument("model", help="an ONNX file")
    parser.add_argument("--tolerance", type=float, required=True, help="the most that may be lost")
    parser.add_argument(
        "--metric",
        choices=[m for m in METRICS if m != "task"],
        default="cosine",
        help="what is lost: points of accuracy or agreement, 1 - cosine, or relative L2",
    )
    parser.add_argument(
        "--precision",
        default="INT8",
        choices=[k.info.label for k in PRECISIONS],
        help="to lower to",
    )
    parser.add_argument(
        "--keep-in",
        default="FP32",
        choices=[k.info.label for k in PRECISIONS],
        help="the type of the layers that are kept",
    )
    parser.add_argument("--calibration", metavar="NPZ", required=True, help="an npz of inputs")
    parser.add_argument(
        "--samples", metavar="NPZ", help="to compare on; default: the calibration's"
    )
    parser.add_argument(
        "--labels", metavar="NAME", help="array of class numbers in the npz of what is compared on"
    )
    parser.add_argument(
        "--settings", action="store_true", help="try every calibrator and channel scaling first"
    )
    parser.add_argument(
        "--front", action="store_true", help="measure latency against the loss, too"
    )
    parser.add_argument("--record", metavar="FILE", help="trials so far; a stopped search goes on")
    parser.add_argument("--save-config", metavar="FILE", help="the JSON of the configuration found")
    parser.add_argument("--device", default="cpu", help="cpu, gpu or gpu:<index>")
    parser.add_argument("--shapes", action="append", default=[], metavar="INPUT=MIN,OPT,MAX")
    parser.add_argument("--level", type=int, default=3, help="builder optimization level, 0 to 5")
    parser.add_argument("--threads", type=int, help="threads a CPU kernel may use")


def main(options: argparse.Namespace) -> int:
    """The search, question by question; writes the config where one is asked for."""
    for path in filter(None, (options.save_config, options.record)):
        check_target(Path(path))
    trials = _trials(options)
    kind, to = DataType.of(options.precision), DataType.of(options.keep_in)
    monitor = CallbackMonitor(_tell)
    base = None
    if options.settings:
        found = compare_settings(trials, kind, metric=options.metric, monitor=monitor)
        for row in found:
            say(f"  {row}")
        base = found[0].applied(trials.config)
    fix = find_minimal_fix(
        trials,
        options.tolerance,
        metric=options.metric,
        kind=kind,
        to=to,
        base=base,
        front=options.front,
        monitor=monitor,
    )
    say("\n" + table(search_rows(fix)))
    if fix.front:
        say("\n" + table(front_rows(fix.front)))
    say(f"\n{fix}")
    if fix.resumed:
        say(f"{fix.resumed} of them from {options.record}")
    if options.save_config:
        config = {**fix.trial.config, "builder_optimization_level": options.level}
        data = json.dumps(config, indent=1).encode() + b"\n"
        write_atomically(Path(options.save_config), data)
        say(f"{options.save_config}: wb.BuilderConfig.from_json(Path(...).read_text()) builds it")
    return 0


def _tell(phase: str, done: int, total: int) -> None:
    if phase in ("Search", "Settings", "Front") and done:
        say(f"  {phase}: {done}" + (f" of {total}" if phase != "Search" else ""))


def _trials(options: argparse.Namespace) -> PrecisionTrials:
    config = BuilderConfig()
    config.builder_optimization_level, config.num_threads = options.level, options.threads
    if options.shapes:
        config.add_optimization_profile(profile_of(options.shapes))
    else:
        parsed = run_stages(start(options.model, config), until=Stage.PARSE)
        refuse_missing_shapes(options, parsed.network)
    return PrecisionTrials(
        options.model,
        config,
        device=options.device,
        calibration=options.calibration,
        samples=options.samples,
        labels=_labels(options),
        record=options.record,
    )


def _labels(options: argparse.Namespace) -> Any:
    """The samples' class numbers, from the file that they are in."""
    if not options.labels:
        return None
    path = Path(options.samples or options.calibration)
    arrays = read_npz(path)
    if options.labels not in arrays:
        raise ConfigError(
            f"it has no array '{options.labels}' (it has {', '.join(arrays)})",
            place=str(path),
            remedy="name the array of class numbers",
        )
    return np.asarray(arrays[options.labels])
