"""``workbench build``: an ONNX model to a plan file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from workbench.builder import STAGES, BuildState, run_stages, start, weak_types
from workbench.calibration import load_data
from workbench.cli.text import say, stage_line, table, wrapped
from workbench.config import (
    PERCENTILE,
    WEAK_FLAGS,
    BuilderConfig,
    BuilderFlag,
    Calibrator,
    OptimizationProfile,
)
from workbench.datatypes import CALIBRATED, PRECISIONS, DataType
from workbench.devices import Device, open_device
from workbench.dimensions import Shape, symbols_of
from workbench.errors import CalibrationError, ConfigError
from workbench.files import check_target, write_atomically
from workbench.gpu_targets import HardwareCompatibilityLevel
from workbench.network import NetworkDefinition
from workbench.records import Stage, StageRecord
from workbench.reports import ledger_summary, short_layer_rows, short_tactic_rows
from workbench.timing import TimingCache

NAME = "build"
HELP = "build a plan file from an ONNX model"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``workbench build``."""
    build_options(parser)
    parser.add_argument("--save-plan", metavar="FILE", help="default: the model's name with .plan")


def build_options(parser: argparse.ArgumentParser) -> None:
    """The options that decide what is built, and on which device."""
    parser.add_argument("model", help="an ONNX file")
    parser.add_argument("--device", default="cpu", help="cpu, gpu or gpu:<index>")
    parser.add_argument(
        "--precision", default="FP32", help="of every layer: FP32, BF16, FP16, INT8"
    )
    parser.add_argument(
        "--layer-precision",
        action="append",
        default=[],
        metavar="PATTERN=TYPE",
        help="of the nodes that match a shell-style pattern; repeat as needed",
    )
    parser.add_argument("--calibration", metavar="NPZ", help="an npz, or 'random' (labelled so)")
    parser.add_argument("--calibrator", default="entropy", choices=[c.value for c in Calibrator])
    parser.add_argument(
        "--percentile", type=float, default=PERCENTILE, help="what the percentile calibrator keeps"
    )
    parser.add_argument(
        "--calibration-cache",
        metavar="FILE",
        help="ranges, read if it is there and else written; TensorRT's text caches are read, too",
    )
    parser.add_argument(
        "--equalize", action="store_true", help="cross-layer equalisation before calibration"
    )
    parser.add_argument(
        "--smooth", type=float, metavar="ALPHA", help="smooth scaling of activations into weights"
    )
    parser.add_argument(
        "--shapes",
        action="append",
        default=[],
        metavar="INPUT=MIN,OPT,MAX",
        help="such as image=1x1x8x8,8x1x8x8,64x1x8x8",
    )
    parser.add_argument(
        "--weak",
        nargs="+",
        choices=sorted(f.value for f in WEAK_FLAGS),
        default=(),
        help="weak typing (TensorRT ≤ 10): types that the tuner may choose by time",
    )
    parser.add_argument("--timing-cache", metavar="FILE", help="read before and merged after")
    parser.add_argument("--level", type=int, default=3, help="builder optimization level, 0 to 5")
    parser.add_argument("--threads", type=int, help="threads a CPU kernel may use")
    parser.add_argument(
        "--aux-streams", type=int, default=0, help="streams on which a GPU may run branches"
    )
    parser.add_argument(
        "--compatibility",
        default=HardwareCompatibilityLevel.NONE.value,
        choices=[x.value for x in HardwareCompatibilityLevel],
        help="the other GPUs that the plan must load on",
    )


def main(options: argparse.Namespace) -> int:
    """Stages, layers and ledger while it builds; writes the plan file."""
    target = Path(options.save_plan or Path(options.model).with_suffix(".plan").name)
    config, device, cache = prepared(options, target)
    state = built(options, config, device)
    assert state.tuned is not None and state.plan_bytes is not None
    say("\n" + table(short_layer_rows(state.tuned, state.decisions)))
    say("\n" + table(short_tactic_rows(state.tuned)))
    nodes = len(state.network.model_nodes)
    layers = state.network.num_layers
    ledger = ledger_summary(state.log, nodes=nodes, layers=layers, tuned=state.tuned)
    say("\n" + wrapped(ledger, indent=15))
    write_atomically(target, state.plan_bytes)
    if options.timing_cache:
        cache.save(options.timing_cache)
    say(f"\n{target}: {len(state.plan_bytes):,} bytes, SHA-256 {state.sha256}")
    return 0


def prepared(
    options: argparse.Namespace, target: Path
) -> tuple[BuilderConfig, Device, TimingCache]:
    """What a build begins with. Raises FileError where what is written at its end could not be."""
    config = configured(options)
    for path in filter(None, (target, options.timing_cache, options.calibration_cache)):
        check_target(Path(path))
    device = open_device(options.device, threads=options.threads)
    say(f"Device: {device}; {', '.join(device.fingerprint.features)}")
    cache = TimingCache(device.fingerprint)
    if options.timing_cache:
        cache = TimingCache.load(options.timing_cache, device.fingerprint)
    config.timing_cache = cache
    return config, device, cache


def built(options: argparse.Namespace, config: BuilderConfig, device: Device) -> BuildState:
    """Every stage, a line each; what is missing is told in this command's own options."""
    lines = 0

    def tell(record: StageRecord) -> None:
        nonlocal lines
        lines += 1
        say(stage_line(record, lines, len(STAGES)))

    state = run_stages(start(options.model, config, device=device), until=Stage.PARSE, tell=tell)
    refuse_missing_shapes(options, state.network)
    kinds = {config.default_precision, *(kind for _, kind in config.precisions)}
    kinds |= set(weak_types(config))
    cache = Path(options.calibration_cache) if options.calibration_cache else None
    cached = cache is not None and cache.exists()
    ranged = [k.info.label for k in CALIBRATED if k in kinds]
    if ranged and options.calibration is None and not cached:
        raise CalibrationError(
            f"{ranged[0]} is requested and there is no calibration data",
            place=str(options.model),
            remedy="give --calibration FILE.npz, or --calibration random to try it",
        )
    if options.calibration is not None:
        data = load_data(options.calibration, state.network)
        state = replace(state, calibration_data=data.batches, calibration_label=data.label)
    state = replace(state, calibration_cache=cache)
    return run_stages(state, tell=tell)


def refuse_missing_shapes(options: argparse.Namespace, network: NetworkDefinition) -> None:
    """Raises ConfigError where an input is dynamic and no ``--shapes`` are given."""
    dynamic = [t for t in network.inputs if symbols_of(t.shape)]
    if dynamic and not options.shapes:
        given = [f"--shapes {t.name}={_example(t.shape)}" for t in dynamic]
        raise ConfigError(
            f"the shape of input {', '.join(f'{t.name} {t.type}' for t in dynamic)} is dynamic",
            place=str(options.model),
            remedy=f"give its smallest, usual and largest, such as {' '.join(given)}",
        )


def _example(shape: Shape) -> str:
    """``1x1x8x8,8x1x8x8,32x1x8x8`` for a dynamic batch."""
    sizes = [[(1, 8, 32)[k] if symbols_of(d) else d for d in shape] for k in range(3)]
    return ",".join("x".join(map(str, s)) for s in sizes)


def configured(options: argparse.Namespace) -> BuilderConfig:
    """The BuilderConfig that the options ask for. Raises ConfigError."""
    config = BuilderConfig()
    config.default_precision = _datatype(options.precision)
    for text in options.layer_precision:
        pattern, _, kind = text.rpartition("=")
        if not pattern:
            raise ConfigError(f"{text!r} is not PATTERN=TYPE", place="--layer-precision")
        config.set_precision(pattern, kind)
    config.calibrator = Calibrator(options.calibrator)
    config.percentile = options.percentile
    config.equalize_channels, config.smooth_alpha = options.equalize, options.smooth
    config.builder_optimization_level = options.level
    config.num_threads = options.threads
    config.max_aux_streams = options.aux_streams
    config.hardware_compatibility_level = HardwareCompatibilityLevel(options.compatibility)
    if options.shapes:
        config.add_optimization_profile(profile_of(options.shapes))
    if options.weak:
        config.flags = config.flags | {BuilderFlag(f) for f in options.weak}
    return config


def profile_of(texts: Sequence[str]) -> OptimizationProfile:
    """The profile of ``INPUT=MIN,OPT,MAX`` texts. Raises ConfigError."""
    profile = OptimizationProfile()
    for text in texts:
        name, _, shapes = text.partition("=")
        try:
            low, mid, high = (tuple(map(int, s.split("x"))) for s in shapes.split(","))
        except ValueError:
            raise ConfigError(
                f"{text!r} is not INPUT=MIN,OPT,MAX",
                place="--shapes",
                remedy="write sizes joined by x, such as image=1x1x8x8,8x1x8x8,64x1x8x8",
            ) from None
        profile.set_shape(name, low, mid, high)
    return profile


def _datatype(name: str) -> DataType:
    kind = DataType.of(name)
    if kind not in PRECISIONS:
        raise ConfigError(f"{name} cannot be requested", place="--precision")
    return kind
