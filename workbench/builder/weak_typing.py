"""Weak typing, as TensorRT had it up to version 10: the tuner chooses each layer's type by time.

The network is tuned whole in FP32 and in each type that a flag allows. A selection over those times
and over what conversions between the types cost gives every layer its type; if a network of one
type throughout is faster than the mixture, that one wins. The choice then stands in the graph as
Cast and Q/DQ like any request, and what is delivered is strongly typed. Nothing here looks at
accuracy: neither did TensorRT.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from workbench import precision
from workbench.body import Body, BodyInput, Node, TensorType
from workbench.builder.state import BuildState
from workbench.config import WEAK_FLAGS, BuilderConfig, BuilderFlag
from workbench.datatypes import DataType
from workbench.dimensions import evaluate_shape
from workbench.errors import ConfigError
from workbench.operators import operator_named
from workbench.precision import PrecisionDecision
from workbench.records import Attempt, ProgressMonitor, Stage
from workbench.selection import Tuned
from workbench.selection.candidates import Workshop
from workbench.selection.layer_problem import LayerProblem
from workbench.selection.pbqp import solve

WEAK: Mapping[BuilderFlag, DataType] = {
    BuilderFlag.FP16: DataType.HALF,
    BuilderFlag.BF16: DataType.BF16,
    BuilderFlag.INT8: DataType.INT8,
}
"""The flags of weak typing, and the type that each allows beside FP32."""
RunStages = Callable[..., BuildState]


@dataclass(frozen=True)
class TypeChoice:
    """Layers that are fused together in some type, the time in each, and the type chosen.

    times_us: by type; types that none of the layers can run in are left out.
    """

    nodes: tuple[str, ...]
    chosen: DataType
    times_us: Mapping[DataType, float]

    def __str__(self) -> str:
        times = ", ".join(f"{k.info.label} {us:.2f} µs" for k, us in self.times_us.items())
        return f"{self.chosen.info.label} of {times}"


@dataclass(frozen=True, eq=False)
class WeakTyping:
    """What the tuner chose. TensorRT ≤ 10.

    totals_us: of the network tuned whole, by type; ``mixed`` is the selection. delivered: the name
    of the fastest of them. requests: (node, type) pairs that say the same strongly typed.
    """

    choices: tuple[TypeChoice, ...]
    totals_us: Mapping[str, float]
    delivered: str
    requests: tuple[tuple[str, DataType], ...]

    def strongly_typed(self, config: BuilderConfig) -> BuilderConfig:
        """The config that builds the same plan without weak typing."""
        made = config.clone()
        made.flags = made.flags - WEAK_FLAGS
        made.precisions = (*self.requests, *made.precisions)
        return made

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The choices for the ledger."""
        return tuple(
            Attempt("weak_typing", c.nodes, True, stage=Stage.PRECISION, detail=str(c))
            for c in self.choices
        )


def weak_types(config: BuilderConfig) -> tuple[DataType, ...]:
    """The types that flags allow the tuner to choose; empty where typing is strong."""
    return tuple(kind for flag, kind in WEAK.items() if flag in config.flags)


def choose_by_time(state: BuildState, run_stages: RunStages) -> WeakTyping:
    """Tune the network in every allowed type and choose. state: after Profiles.

    Nodes that the config names keep their type. Raises ConfigError at level 0, which times nothing,
    and for a default precision other than FP32.
    """
    config = state.config
    if config.builder_optimization_level == 0:
        raise ConfigError(
            "weak typing chooses by time, and level 0 measures none",
            place="BuilderFlag",
            remedy="set config.builder_optimization_level to 1 or more",
        )
    if config.default_precision is not DataType.FLOAT:
        raise ConfigError(
            f"the default precision is {config.default_precision.info.label}, and flags leave the "
            "choice to the tuner",
            place="BuilderFlag",
            remedy="clear the flags, or leave default_precision at FP32",
        )
    return _Chooser(state, run_stages, (DataType.FLOAT, *weak_types(config))).run()


class _Chooser:
    """The uniform builds of one network, and the selection over their times."""

    def __init__(
        self, state: BuildState, run_stages: RunStages, kinds: tuple[DataType, ...]
    ) -> None:
        self.state, self.run_stages, self.kinds = state, run_stages, kinds
        self.network = state.network
        profile = state.log[Stage.PROFILES].facts["ranges"][0]
        self.sizes: dict[str, int] = dict(profile[1])
        self.decisions = {k: self._decisions(k) for k in kinds}
        self.conversions: dict[str, float] = {}

    def run(self) -> WeakTyping:
        tuned: dict[DataType, Tuned] = {}
        for kind in self.kinds:
            self.state, tuned[kind] = self._tuned(kind.info.label, kind, ())
        groups = _groups(tuned.values())
        times = [self._times(g, tuned) for g in groups]
        picked = self._selected(groups, times)
        requests = tuple((n, k) for g, k in zip(groups, picked, strict=True) for n in g)
        requests = tuple((n, k) for n, k in requests if k is not DataType.FLOAT)
        totals = {k.info.label: t.total_us for k, t in tuned.items()}
        mixed = len(set(picked)) > 1
        if mixed:
            totals["mixed"] = self._tuned("mixed", DataType.FLOAT, requests)[1].total_us
        best = min(totals, key=lambda name: totals[name])
        if best != "mixed":
            uniform = DataType.of(best)
            picked = [uniform if uniform in t else DataType.FLOAT for t in times]
            requests = self._uniform(uniform)
        choices = tuple(
            TypeChoice(tuple(g), k, t) for g, k, t in zip(groups, picked, times, strict=True)
        )
        return WeakTyping(choices, totals, best, requests)

    def _uniform(self, kind: DataType) -> tuple[tuple[str, DataType], ...]:
        if kind is DataType.FLOAT:
            return ()
        lowered = [d for d in self.decisions[kind].values() if d.precision is kind]
        return tuple((n, kind) for d in lowered for n in d.origin)

    def _decisions(self, kind: DataType) -> dict[str, PrecisionDecision]:
        """Each node's decision where ``kind`` is the default."""
        config = self.state.config.clone()
        config.default_precision = kind
        found = precision.resolve(self.network, config)
        return {n: d for d in found for n in d.origin}

    def _tuned(
        self, name: str, kind: DataType, requests: tuple[tuple[str, DataType], ...]
    ) -> tuple[BuildState, Tuned]:
        """The network tuned with this default and these requests; ranges are kept."""
        config = self.state.config.clone()
        config.flags = config.flags - WEAK_FLAGS
        config.default_precision = kind
        config.precisions = (*requests, *config.precisions)
        config.progress_monitor = _Within(config.progress_monitor, name)
        state = replace(self.state, config=config.frozen())
        done = self.run_stages(state, until=Stage.TUNE)
        assert done.tuned is not None
        return replace(self.state, calibration=done.calibration), done.tuned

    def _times(
        self, nodes: Sequence[str], tuned: Mapping[DataType, Tuned]
    ) -> dict[DataType, float]:
        """Microseconds of these nodes' layers in each type that at least one of them can have."""
        times: dict[DataType, float] = {}
        for kind, result in tuned.items():
            own = [self.decisions[kind].get(n) for n in nodes]
            if kind is DataType.FLOAT or any(d and d.precision is kind for d in own):
                layers = [c for c in result.layers if set(c.origin) & set(nodes)]
                times[kind] = sum(c.median_us or 0.0 for c in layers)
        return times

    def _selected(
        self, groups: Sequence[Sequence[str]], times: Sequence[Mapping[DataType, float]]
    ) -> list[DataType]:
        """The cheapest types: times of the groups, conversions between them."""
        index = {n: i for i, g in enumerate(groups) for n in g}
        menus = [list(t) for t in times]
        costs = [np.array([t[k] for k in m]) for t, m in zip(times, menus, strict=True)]
        edges: dict[tuple[int, int], Any] = {}
        for tensor, maker, reader in self._edges(index):
            matrix = np.array(
                [[self._conversion(tensor, a, b) for b in menus[reader]] for a in menus[maker]]
            )
            known = edges.get((maker, reader))
            edges[maker, reader] = matrix if known is None else known + matrix
        picked = solve(costs, edges).choices
        return [m[c] for m, c in zip(menus, picked, strict=True)]

    def _edges(self, index: Mapping[str, int]) -> Iterable[tuple[TensorType, int, int]]:
        for layer in self.network.layers:
            for tensor in layer.outputs:
                for user in tensor.users:
                    ends = [index.get(x.origin[0]) if x.origin else None for x in (layer, user)]
                    a, b = ends
                    if a is None or b is None or a == b or tensor.dtype is not DataType.FLOAT:
                        continue
                    shape = evaluate_shape(tensor.shape, self.sizes)
                    yield TensorType(DataType.FLOAT, shape), a, b

    def _conversion(self, type_: TensorType, made: DataType, read: DataType) -> float:
        """Microseconds of what stands between two layers of these types, through the cache."""
        if made is read:
            return 0.0
        half = (DataType.HALF, DataType.BF16)
        stored = made if made in half else DataType.FLOAT
        wanted = read if read in half else DataType.FLOAT
        total = 0.0
        if stored is not wanted:
            total += self._timed(_cast(type_.shape, stored, wanted))
        if read is DataType.INT8:
            total += self._timed(_quantize(type_.shape))
        return total

    def _timed(self, body: Body) -> float:
        """Microseconds of a conversion; edges of one shape share it."""
        if body.signature not in self.conversions:
            self.conversions[body.signature] = self._fastest(body)
        return self.conversions[body.signature]

    @cached_property
    def _shop(self) -> Workshop:
        """Where conversions are timed: one, so that its sources and stream are opened once."""
        return Workshop(self.state.device, self.state.config, self.state.cache)

    def _fastest(self, body: Body) -> float:
        given = {
            i.name: np.ones(i.type.shape, i.type.dtype.numpy) for i in body.inputs if i.constant
        }
        kind = body.compute_type
        found = self._shop.candidates(LayerProblem("conversion", body, (body,), given, kind))
        timed = [c.timing.median_us for c in found if c.eligible and c.timing]
        return min(timed, default=float("inf"))


class _Within(ProgressMonitor):
    """A monitor that hears of a build inside another, under its name."""

    def __init__(self, outer: ProgressMonitor, name: str) -> None:
        self.outer, self.name = outer, name

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        self.outer.phase_start(f"{self.name}: {phase_name}", parent_phase, num_steps)

    def step_complete(self, phase_name: str, step: int) -> bool:
        return self.outer.step_complete(f"{self.name}: {phase_name}", step)

    def phase_finish(self, phase_name: str) -> None:
        self.outer.phase_finish(f"{self.name}: {phase_name}")


def _groups(builds: Iterable[Tuned]) -> list[list[str]]:
    """The model's nodes, together where any of the builds has them in one layer; in order."""
    group_of: dict[str, dict[str, None]] = {}
    for choice in (c for b in builds for c in b.layers):
        joined: dict[str, None] = {}
        for node in choice.origin:
            joined |= group_of.get(node, {node: None})
        for node in joined:
            group_of[node] = joined
    return list({id(g): list(g) for g in group_of.values()}.values())


def _cast(shape: Sequence[Any], source: DataType, target: DataType) -> Body:
    cast = operator_named("Cast")
    node = Node(cast, ("x",), ("y",), cast.complete({"to": target}))
    return Body((BodyInput("x", TensorType(source, tuple(shape))),), (node,), ("y",))


def _quantize(shape: Sequence[Any]) -> Body:
    row = operator_named("QuantizeLinear")
    inputs = (
        BodyInput("x", TensorType(DataType.FLOAT, tuple(shape))),
        BodyInput("scale", TensorType(DataType.FLOAT, ()), constant=True),
        BodyInput("zero", TensorType(DataType.INT8, ()), constant=True),
    )
    node = Node(row, ("x", "scale", "zero"), ("y",), row.complete({}))
    return Body(inputs, (node,), ("y",))
