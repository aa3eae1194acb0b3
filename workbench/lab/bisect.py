"""bisect_rewrites: the first rewrite after which a check fails, found in log2 builds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from workbench import fusions, passes
from workbench.body import Array
from workbench.builder import BuildState, run_stages, start
from workbench.builder.edits import edited
from workbench.builder.state import Clock, after, before_stage
from workbench.calibration import load_data, random_inputs
from workbench.config import BuilderConfig, OptimizationProfile
from workbench.devices import Device
from workbench.dimensions import evaluate_shape
from workbench.errors import BuildError
from workbench.network import NetworkDefinition
from workbench.records import Attempt, Stage
from workbench.rewrite import replay
from workbench.runtime import Engine

NetworkCheck = Callable[[NetworkDefinition], bool]
EngineCheck = Callable[[Engine], bool]


@dataclass(frozen=True)
class BadRewrite:
    """The first rewrite after which the check fails.

    number: its place among the applied rewrites, from 1; of: how many there are. before, after:
    the layers concerned, as text. builds: networks or engines that were checked.
    """

    number: int
    of: int
    attempt: Attempt
    before: str
    after: str
    builds: int

    def __str__(self) -> str:
        where = ", ".join(self.attempt.place)
        head = f"rewrite {self.number} of {self.of}: {self.attempt.rule} at {where}"
        return f"{head}\nbefore:\n{self.before}\nafter:\n{self.after}"


def bisect_rewrites(
    model: Any,
    check: NetworkCheck | float,
    *,
    config: BuilderConfig | None = None,
    device: str | Device = "cpu",
    inputs: Mapping[str, Array] | None = None,
    calibration: Any = None,
) -> BadRewrite | None:
    """The first rewrite of Fold and Fuse after which the network fails the check, or None.

    check: of a network; or a tolerance: the largest difference of an output from that of the
    parsed network on ``inputs``, relative to its largest magnitude (reference evaluation).
    ``inputs`` are by default random, at the profile's opt shapes. Assumes that what is bad stays
    bad. Raises BuildError if the check fails before any rewrite.
    """
    trail = _Trail(model, config, device, calibration)
    if callable(check):
        return _bisect(trail, lambda n: check(trail.state(n).network))
    tolerance = float(check)
    given = inputs if inputs is not None else _example(trail.parsed)
    reference = trail.parsed.network.run(given)
    return _bisect(
        trail, lambda n: _apart(reference, trail.state(n).network.run(given)) <= tolerance
    )


def bisect_engines(
    model: Any,
    check: EngineCheck,
    *,
    config: BuilderConfig | None = None,
    device: str | Device = "cpu",
    calibration: Any = None,
) -> BadRewrite | None:
    """As ``bisect_rewrites``, with a check of the engine: each probe is a whole build."""
    trail = _Trail(model, config, device, calibration)
    return _bisect(trail, lambda n: check(run_stages(trail.state(n)).engine()))


class _Trail:
    """A build whose rewrites can be made up to any number."""

    def __init__(
        self, model: Any, config: BuilderConfig | None, device: str | Device, calibration: Any
    ) -> None:
        self.parsed = run_stages(start(model, config, device=device), until=Stage.PARSE)
        if calibration is not None:
            data = load_data(calibration, self.parsed.network)
            self.parsed = replace(
                self.parsed, calibration_data=data.batches, calibration_label=data.label
            )
        self.whole = run_stages(self.parsed, until=Stage.FUSE)
        self.folds = _applied(self.whole, Stage.FOLD)
        self.fuses = _applied(self.whole, Stage.FUSE)
        self.attempts = (*self.folds, *self.fuses)

    def state(self, count: int) -> BuildState:
        """The build after Fuse with the first ``count`` rewrites."""
        folds, fuses = self.folds[:count], self.fuses[: max(0, count - len(self.folds))]
        state = self.whole
        if len(folds) < len(self.folds):
            state = _with(self.parsed, Stage.FOLD, folds, passes.RULES)
            state = run_stages(state, until=Stage.CALIBRATE)
        else:
            state = before_stage(state, Stage.FUSE)
        return _with(state, Stage.FUSE, fuses, fusions.FUSIONS)


def _applied(state: BuildState, stage: Stage) -> tuple[Attempt, ...]:
    return tuple(a for a in state.log[stage].attempts if a.applied)


def _with(
    state: BuildState, stage: Stage, attempts: Sequence[Attempt], rules: Sequence[Any]
) -> BuildState:
    """The build with a stage of these rewrites alone."""
    clock, network = Clock(), edited(state, stage)
    replay(network, attempts, rules)
    return after(state, stage, network, clock, f"{len(attempts)} rewrites", tuple(attempts))


def _bisect(trail: _Trail, good: Callable[[int], bool]) -> BadRewrite | None:
    count, builds = len(trail.attempts), 2
    if good(count):
        return None
    if not good(0):
        raise BuildError(
            "the check fails before any rewrite",
            place="bisect_rewrites",
            remedy="look at the model, or at the check, first",
        )
    low, high = 0, count
    while high - low > 1:
        middle, builds = (low + high) // 2, builds + 1
        low, high = (middle, high) if good(middle) else (low, middle)
    attempt = trail.attempts[high - 1]
    before, result = trail.state(high - 1).network, trail.state(high).network
    return BadRewrite(
        high,
        count,
        attempt,
        _text(before, attempt.place),
        _text(result, attempt.created) or attempt.detail,
        builds,
    )


def _text(network: NetworkDefinition, names: Sequence[str]) -> str:
    return "\n".join(f"  {network.layer(n)!r}" for n in names if network.has_layer(n))


def _example(state: BuildState) -> dict[str, Array]:
    """Random inputs at the first profile's opt shapes."""
    profile = (state.config.optimization_profiles or (OptimizationProfile(),))[0]
    bound = profile.bindings(state.network, 1)
    shapes = {t.name: evaluate_shape(t.shape, bound) for t in state.network.inputs}
    return random_inputs(state.network, shapes)


def _apart(expected: Mapping[str, Array], found: Mapping[str, Array]) -> float:
    """Largest difference of an output, relative to its largest magnitude; inf where it is NaN."""
    worst = 0.0
    for name, array in expected.items():
        wide = array.astype(np.float64)
        scale = float(np.abs(wide).max(initial=0.0)) or 1.0
        gap = float(np.abs(found[name].astype(np.float64) - wide).max(initial=0.0)) / scale
        worst = max(worst, gap if np.isfinite(gap) else np.inf)
    return worst
