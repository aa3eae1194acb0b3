"""Every tactic tried for one layer: prepared, checked against the reference, timed, or refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from typing import Any

from workbench.body import Array, Body
from workbench.checks import Expected, bit_equal, expect, sample_inputs
from workbench.config import BuilderConfig, BuilderFlag, MemoryPoolType
from workbench.datatypes import DataType
from workbench.devices import Buffer, Device
from workbench.errors import TimingCacheError
from workbench.formats import Format
from workbench.records import Refusal
from workbench.selection.layer_problem import LayerProblem
from workbench.tactics import COMPILED_FOR_LONG_LAYERS, sources_for
from workbench.tactics.deciding import Deciding
from workbench.tactics.launch import bind, run_once, upload
from workbench.tactics.protocol import Call, CompilesAhead, Problem, Tactic, TacticSource
from workbench.timing import Entry, Timing, TimingCache, measure

TACTICS_BY_LEVEL = (4, 4, 8, 24, 64, 1 << 30)
"""Tactics timed a layer at builder_optimization_level 0 to 5, unless max_num_tactics says."""
COMPILES_ANYWAY_LEVEL = 4
"""From this level on, COMPILED_FOR_LONG_LAYERS are tried for every layer, however fast."""
WORTH_COMPILING_US = 100.0
"""Below that level: a layer that another source runs faster than this has too little to gain."""
PASSING = frozenset({"compile", "plan", "workspace"})
"""Codes of refusals that may pass: a compiler died, memory was short, the limit was another.

They are told, but not kept with the timings: the next build tries again.
"""


@dataclass(frozen=True)
class Candidate:
    """One tactic of one layer and what became of it.

    timing: None when it was refused, or not timed (level 0). worst: its largest error as a
    fraction of the bound. eligible: whether the selection may choose it; if not, ``refusal``
    says why.
    """

    source: str
    title: str
    tactic: Tactic | None
    timing: Timing | None = None
    worst: float | None = None
    kernel: str = ""
    workspace_bytes: int = 0
    refusal: Refusal | None = None
    cached: bool = False

    @property
    def eligible(self) -> bool:
        return self.tactic is not None and self.refusal is None

    def rank(self, order: Mapping[str, int]) -> tuple[int, str, str]:
        """What decides between tactics that time cannot tell apart."""
        return (order.get(self.source, len(order)), self.title, str(self.tactic))


class Workshop:
    """Prepares, checks and times tactics on one device under one config.

    timed, checked: how many were measured and compared anew (not from the cache).
    """

    def __init__(self, device: Device, config: BuilderConfig, cache: TimingCache) -> None:
        self.device = device
        self.config = config
        self.cache = cache
        self.threads = config.num_threads or getattr(device, "threads", 1)
        self.timed = 0
        self.checked = 0
        self.deciding = Deciding()
        self.parts: dict[tuple[str, str, DataType], tuple[Candidate, ...]] = {}
        self._stream = device.stream()
        allowed = config.tactic_sources
        self.sources: tuple[TacticSource, ...] = ()
        self.missing: tuple[Refusal, ...] = ()
        # The config's order is the order in which the sources are asked.
        given = sources_for(device.kind)
        for s in sorted(given, key=lambda s: _place(s.name, allowed)):
            reason = s.unavailable()
            if allowed is not None and s.name not in allowed:
                reason = Refusal("not among the tactic sources set in the config", s.name)
            if reason is None:
                self.sources = (*self.sources, s)
            else:
                self.missing = (*self.missing, replace(reason, place=s.name))
        self.order = {s.name: i for i, s in enumerate(self.sources)}

    def problem(self, body: Body, constants: Mapping[str, Array]) -> Problem:
        return Problem(
            body,
            constants,
            self.device,
            self.threads,
            self.config.get_memory_pool_limit(MemoryPoolType.WORKSPACE),
            self.config.get_flag(BuilderFlag.TF32),
        )

    def precompile(self, layers: Iterable[LayerProblem], parts: Iterable[LayerProblem]) -> None:
        """Compile the kernels of all layers in parallel, and wait: timings want to be alone.

        parts: pieces of fused layers, for which nothing is compiled slowly.
        """
        ahead = [s for s in self.sources if isinstance(s, CompilesAhead)]
        quick = [s for s in ahead if not s.slow]
        ahead.sort(key=lambda s: not s.slow)  # what takes longest begins first
        jobs = {p.key: (p, quick) for p in parts} | {p.key: (p, ahead) for p in layers}
        started: list[Future[bytes]] = []
        for source in ahead:
            for layer, sources in jobs.values() if self.compiles_ahead else ():
                if source in sources:
                    offers = source.candidates(self.problem(layer.opt, layer.constants))
                    started += self._compiling(source, layer, offers)
        wait(started)  # what failed is refused, with its reason, when it is prepared

    @property
    def compiles_ahead(self) -> bool:
        """Whether several tactics are tried a layer: level 0 takes the first that runs."""
        return self.config.builder_optimization_level > 0

    def _compiling(
        self, source: CompilesAhead, layer: LayerProblem, offers: Sequence[Tactic | Refusal]
    ) -> list[Future[bytes]]:
        """Start compiling what will be tried, at every size at which it is prepared."""
        if not self.compiles_ahead:
            return []
        tactics = [t for t in offers if isinstance(t, Tactic)][: self._limit]
        untimed = [t for t in tactics if not self.is_cached(t, layer)]
        bodies = {b.signature: b for b in (*layer.shapes, layer.single) if b is not None}
        return [
            f
            for b in bodies.values()
            for f in source.precompile(self.problem(b, layer.constants), untimed)
        ]

    def is_cached(self, tactic: Tactic, layer: LayerProblem) -> bool:
        return self.uses_cache and self.cache.holds(self.key(tactic, layer))

    @property
    def uses_cache(self) -> bool:
        """Whether known timings are taken, and new ones kept; level 0 times nothing."""
        disabled = self.config.get_flag(BuilderFlag.DISABLE_TIMING_CACHE)
        return self.config.builder_optimization_level > 0 and not disabled

    def key(self, tactic: Tactic, layer: LayerProblem) -> str:
        """What the cache knows a layer's timing by."""
        return self.cache.key(tactic, layer.opt, self.threads, layer.decided)

    @property
    def _limit(self) -> int:
        """Tactics that are tried a layer and source."""
        limit = self.config.max_num_tactics
        return limit if limit >= 0 else TACTICS_BY_LEVEL[self.config.builder_optimization_level]

    def candidates(self, layer: LayerProblem, *, part: bool = False) -> tuple[Candidate, ...]:
        """Every tactic that the sources offer for this layer, and every refusal.

        part: it is a piece of a fused layer, timed for comparison: nothing is compiled slowly.
        """
        found = [Candidate(r.place, r.place, None, refusal=r) for r in self.missing]
        problem = self.problem(layer.opt, layer.constants)
        trial = Trial(self, layer)
        limit = self._limit
        for source in self.sources:
            tried = 0
            if part and isinstance(source, CompilesAhead) and source.slow:
                reason = Refusal("not compiled for a part of a fused layer", code="not_compiled")
                found.append(Candidate(source.name, source.name, None, refusal=reason))
                continue
            offers = source.candidates(problem)
            if isinstance(source, CompilesAhead):
                wait(self._compiling(source, layer, offers))
            for offer in offers:
                if isinstance(offer, Refusal):
                    found.append(Candidate(source.name, source.name, None, refusal=offer))
                    continue
                unneeded = self.not_worth_compiling(offer, found)
                if unneeded is not None:
                    found.append(Candidate(source.name, offer.title, offer, refusal=unneeded))
                    continue
                if tried >= limit:
                    reason = Refusal(f"not tried: {limit} tactics a source", code="max_num_tactics")
                    found.append(Candidate(source.name, offer.title, offer, refusal=reason))
                    continue
                tried += 1
                found.append(trial.candidate(source, offer))
                if self.config.builder_optimization_level == 0 and self._settles(layer, found[-1]):
                    return self.contract(layer, found)
        return self.contract(layer, found)

    def not_worth_compiling(self, offer: Tactic, found: Sequence[Candidate]) -> Refusal | None:
        """Why a kernel is not compiled: the layer runs so fast by others that little is to gain.

        Only what computes in the same precision, and is not more emulated than the offer, counts.
        """
        level = self.config.builder_optimization_level
        if offer.source not in COMPILED_FOR_LONG_LAYERS or level >= COMPILES_ANYWAY_LEVEL:
            return None
        rivals = [
            (c.timing.median_us, c.source)
            for c in found
            if c.eligible and c.timing and c.tactic and c.source not in COMPILED_FOR_LONG_LAYERS
            if c.tactic.precision is offer.precision
            if offer.emulated or not c.tactic.emulated
        ]
        best_us, best = min(rivals, default=(float("inf"), ""))
        if best_us >= WORTH_COMPILING_US:
            return None
        return Refusal(
            f"not compiled: {best} takes {best_us:.1f} µs; a generated kernel is worth its "
            f"compilation from {WORTH_COMPILING_US:.0f} µs",
            remedy=f"set builder_optimization_level to {COMPILES_ANYWAY_LEVEL} to time it anyway",
            code="not_compiled",
        )

    def _settles(self, layer: LayerProblem, candidate: Candidate) -> bool:
        """Level 0 takes the first tactic that prepares, passes its check and keeps the type."""
        tactic = candidate.tactic
        return candidate.eligible and tactic is not None and tactic.precision is layer.built

    def contract(self, layer: LayerProblem, found: Sequence[Candidate]) -> tuple[Candidate, ...]:
        """Refuse what would not run in the built type; emulation only where nothing is native."""
        native = any(
            c.eligible and c.tactic and not c.tactic.emulated and c.tactic.precision is layer.built
            for c in found
        )
        kept: list[Candidate] = []
        for c in found:
            if c.eligible and c.tactic is not None:
                if c.tactic.precision is not layer.built:
                    reason = f"runs in {c.tactic.precision.value}, built as {layer.built.value}"
                    c = replace(c, refusal=Refusal(reason, code="precision"))
                elif c.tactic.emulated and native:
                    reason = f"emulates {layer.built.value}; another tactic runs it natively"
                    c = replace(c, refusal=Refusal(reason, code="emulated"))
            kept.append(c)
        return tuple(kept)


def _place(source: str, allowed: tuple[str, ...] | None) -> int:
    return allowed.index(source) if allowed is not None and source in allowed else 0


class Trial:
    """The tactics of one layer, tried one after another; the best so far cuts off the hopeless."""

    def __init__(self, shop: Workshop, layer: LayerProblem) -> None:
        self.shop = shop
        self.layer = layer
        self.best_us = float("inf")
        self._single = layer.single
        self._references: dict[tuple[str, bool], Expected] = {}
        self._inputs: dict[str, dict[str, Array]] = {}
        self._buffers: dict[tuple[str, tuple[Format, ...]], tuple[Buffer, ...]] = {}

    def candidate(self, source: Any, tactic: Tactic) -> Candidate:
        """One tactic's outcome, from the cache where it is known."""
        shop = self.shop
        use_cache = shop.uses_cache
        key = shop.key(tactic, self.layer)
        entry = shop.cache.query(key) if use_cache else None
        cached = entry is not None
        if entry is None:
            entry, lasting = self._tried(source, tactic)
            if use_cache and lasting:
                shop.cache.update(key, entry)
        if entry.timing is not None:
            self.best_us = min(self.best_us, entry.timing.median_us)
        return Candidate(
            source.name,
            tactic.title,
            tactic,
            entry.timing,
            entry.worst,
            entry.kernel,
            entry.workspace_bytes,
            self._refusal(entry),
            cached,
        )

    def _refusal(self, entry: Entry) -> Refusal | None:
        limit = self.shop.config.get_memory_pool_limit(MemoryPoolType.WORKSPACE)
        if entry.failure:
            code = "quarantined" if entry.quarantined else "refused"
            return Refusal(entry.failure, code=code)
        if entry.workspace_bytes > limit:
            need, have = entry.workspace_bytes / 2**20, limit / 2**20
            return Refusal(
                f"needs {need:.1f} MiB of workspace > limit {have:.1f} MiB",
                remedy="raise MemoryPoolType.WORKSPACE",
                code="workspace",
            )
        return None

    def _tried(self, source: Any, tactic: Tactic) -> tuple[Entry, bool]:
        """What became of a tactic, and whether it would become of it again."""
        config = self.shop.config
        calls = self._prepared(source, tactic)
        if isinstance(calls, Refusal):
            return Entry(None, failure=str(calls)), calls.code not in PASSING
        kernel = next(c.kernel for b, c in calls if b is self.layer.opt)
        space = max(c.workspace_bytes for _, c in calls)
        if space > config.get_memory_pool_limit(MemoryPoolType.WORKSPACE):
            return Entry(None, kernel=kernel, workspace_bytes=space), False
        if self.shop.uses_cache and config.get_flag(BuilderFlag.ERROR_ON_TIMING_CACHE_MISS):
            raise TimingCacheError(
                f"no timing of {tactic.title}",
                place=self.layer.name,
                remedy="build once without ERROR_ON_TIMING_CACHE_MISS, with the same cache",
            )
        entry = Entry(None, kernel=kernel, workspace_bytes=space)
        return self._measured(source, tactic, calls, entry), True

    def _prepared(self, source: Any, tactic: Tactic) -> list[tuple[Body, Call]] | Refusal:
        """The tactic at every size, or why not."""
        calls: list[tuple[Body, Call]] = []
        for body in self.layer.shapes:
            call = source.prepare(tactic, self.shop.problem(body, self.layer.constants))
            if isinstance(call, Refusal):
                return call
            calls.append((body, call))
        return calls

    def _measured(
        self, source: Any, tactic: Tactic, calls: Sequence[tuple[Body, Call]], entry: Entry
    ) -> Entry:
        """The entry with what checking and timing give."""
        worst = None
        if self.shop.config.verify != "none":
            worst, failure = self._check(tactic, self._checked(source, tactic, calls))
            if failure:
                return replace(entry, worst=worst, failure=failure, quarantined=True)
        timing = None
        if self.shop.config.builder_optimization_level > 0:
            problem = self.shop.problem(self.layer.opt, self.layer.constants)
            call = next(c for b, c in calls if b is self.layer.opt)
            stream = self.shop._stream  # pyright: ignore[reportPrivateUsage]
            inputs = self._buffers_for(tactic, problem)
            bound = bind(call, tactic, problem, stream, inputs)
            timing = measure(
                bound.launch,
                self.shop.device,
                iterations=self.shop.config.avg_timing_iterations,
                best_us=self.best_us,
                stream=stream,
            )
            self.shop.timed += 1
        return replace(entry, timing=timing, worst=worst)

    def _checked(
        self, source: Any, tactic: Tactic, calls: Sequence[tuple[Body, Call]]
    ) -> list[tuple[Body, Call]]:
        """The calls whose outputs are compared with the reference."""
        if self._single is not None:
            one = source.prepare(tactic, self.shop.problem(self._single, self.layer.constants))
            if isinstance(one, Call):
                return [(self._single, one)]
        checked = self.layer.check_at
        if self.shop.config.builder_optimization_level == 0:
            checked = (min(checked, key=lambda b: b.flops),)
        where = {id(b) for b in checked}
        return [(b, c) for b, c in calls if id(b) in where]

    def _check(self, tactic: Tactic, calls: Sequence[tuple[Body, Call]]) -> tuple[float, str]:
        worst = 0.0
        for body, call in calls:
            problem = self.shop.problem(body, self.layer.constants)
            inputs = self._buffers_for(tactic, problem)
            outputs = run_once(call, tactic, problem, inputs)
            result = self._reference_for(body, tactic.tf32).check(outputs)
            worst = max(worst, result.worst)
            if not result.passed:
                return worst, f"wrong result at {sizes_text(body)}: {result.message}"
            if tactic.deterministic:
                again = run_once(call, tactic, problem, inputs)
                if not bit_equal(outputs, again):
                    return worst, "two runs differ, yet it is declared deterministic"
        self.shop.checked += 1
        return worst, ""

    def _inputs_for(self, body: Body) -> dict[str, Array]:
        key = body.signature
        if key not in self._inputs:
            drawn = sample_inputs(body, seed=0, constants=self.layer.constants)
            self._inputs[key] = {i.name: drawn[i.name] for i in body.dynamic_inputs}
        return self._inputs[key]

    def _buffers_for(self, tactic: Tactic, problem: Problem) -> tuple[Buffer, ...]:
        """The sampled inputs on the device, in the tactic's layouts; no kernel writes to them."""
        key = (problem.body.signature, tactic.inputs)
        if key not in self._buffers:
            self._buffers[key] = upload(tactic, problem, self._inputs_for(problem.body))
        return self._buffers[key]

    def _reference_for(self, body: Body, tf32: bool) -> Expected:
        key = (body.signature, tf32)
        if key not in self._references:
            inputs = {**self._inputs_for(body), **self.layer.constants}
            self._references[key] = expect(body, inputs, tf32=tf32)
        return self._references[key]


def sizes_text(body: Body) -> str:
    """The shapes of a bound Body's dynamic inputs, for messages."""
    return ", ".join(str(i.type) for i in body.dynamic_inputs)
