"""``workbench record``: build a model, and keep what was timed in a small file."""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path

from workbench.builder import BuildState
from workbench.cli.build import build_options, built, prepared
from workbench.cli.run import random_inputs
from workbench.cli.text import say, table
from workbench.files import read_npz
from workbench.lab import measure_ceilings
from workbench.reports import arithmetic_types, layer_work, waterfall_rows
from workbench.reports.recording import record

NAME = "record"
HELP = "build a model and record every timing, for machines that lack the device"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``workbench record``: those of ``workbench build``, and what is written."""
    build_options(parser)
    parser.add_argument("-o", "--out", metavar="FILE", help="default: the model's name, .json.gz")
    parser.add_argument("--inputs", metavar="NPZ", help="arrays to profile on; default: random")
    parser.add_argument("--iterations", type=int, default=20, help="of the profile")


def main(options: argparse.Namespace) -> int:
    """Stages while it builds; then the profile, the device's ceilings, and the file."""
    target = Path(options.out or f"{Path(options.model).stem}.json.gz")
    given = read_npz(Path(options.inputs)) if options.inputs else None
    config, device, cache = prepared(options, target)
    state = built(options, config, device)
    assert state.plan is not None
    engine = state.engine()
    inputs = random_inputs(engine) if given is None else given
    profile = engine.create_execution_context().profile(inputs, iterations=options.iterations)
    sizes = engine.bindings_of({n: a.shape for n, a in inputs.items()})
    say("\n" + table(waterfall_rows(profile)))
    if profile.remark:
        say(profile.remark)
    say("\nMeasuring the device's ceilings")
    ceilings = measure_ceilings(device, arithmetic_types(layer_work(state.plan, sizes)))
    shapes = ", ".join(f"{n} {list(a.shape)}" for n, a in inputs.items())
    size = record(
        state,
        target,
        precision=_asked(state),
        profile=profile,
        sizes=sizes,
        inputs=shapes if options.inputs else f"{shapes}, random",
        ceilings=ceilings,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )
    if options.timing_cache:
        cache.save(options.timing_cache)
    say(f"\n{target}: {size:,} bytes, {len(state.plan.steps)} steps")
    return 0


def _asked(state: BuildState) -> str:
    """The precision that was requested, or all of them where layers differ."""
    kinds = [d.requested for d in state.decisions] or [state.config.default_precision]
    return ", ".join(dict.fromkeys(k.info.label for k in kinds))
