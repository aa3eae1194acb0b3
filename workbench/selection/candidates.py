"""Every tactic tried for one layer: prepared, checked against the reference, timed, or refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property
from itertools import permutations

from workbench.body import Array, Body
from workbench.config import BuilderConfig, BuilderFlag, MemoryPoolType
from workbench.datatypes import DataType
from workbench.devices import Device
from workbench.errors import ConfigError
from workbench.formats import formats_on
from workbench.records import Refusal
from workbench.selection.budget import (
    TACTICS_BY_LEVEL,
    TRIES_ALL_LEVEL,
    in_turns,
    outclassed,
)
from workbench.selection.candidate import Candidate
from workbench.selection.choice import LayerChoice
from workbench.selection.layer_problem import Key, LayerProblem, reformat_problem
from workbench.selection.one_item import is_itemwise
from workbench.selection.portability import compiled_for, cost_us, portable
from workbench.selection.ranking import MOST_FOR_EXACTNESS, ROUNDING
from workbench.selection.trial import Trial
from workbench.tactics import (
    COMPILED_AT_THE_END,
    COMPILED_FOR_EXACTNESS,
    COMPILED_FOR_LONG_LAYERS,
    SOURCES,
    sources_for,
)
from workbench.tactics.blas_threads import blas_threads, limited_to
from workbench.tactics.deciding import Deciding
from workbench.tactics.placing import in_places
from workbench.tactics.protocol import CompilesAhead, Problem, Tactic, TacticSource
from workbench.timing import Steadiness, TimingCache, steadiness

COMPILES_ANYWAY_LEVEL = 4
"""From this level on, COMPILED_FOR_LONG_LAYERS are tried for every layer, however fast."""
WORTH_COMPILING_US = 30.0
"""Below that level: a layer that another source runs faster than this has too little to gain."""
WORTH_EXACTNESS = 4 * ROUNDING
"""Nor has a last product whose error is below this: sums in short chains have half of it."""


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
        self.parts: dict[Key, tuple[Candidate, ...]] = {}
        self._shares: dict[object, Mapping[str, int]] = {}
        self.stream = device.stream()
        allowed = config.tactic_sources
        _check_names(allowed)
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

    def remarks(self, choices: Sequence[LayerChoice]) -> tuple[str, ...]:
        """What a reader of the choices' times should know."""
        found: list[str] = []
        if self.timed and self.steadiness.busy:
            found.append(f"{self.steadiness}; what was timed is marked noisy")
        level, cost = self.config.hardware_compatibility_level, cost_us(choices)
        if cost:
            found.append(f"{level.name} costs {cost:.0f} µs: faster tactics run on this GPU alone")
        return tuple(found)

    def problem(self, body: Body, constants: Mapping[str, Array]) -> Problem:
        return Problem(
            body,
            constants,
            self.device,
            self.threads,
            self.config.get_memory_pool_limit(MemoryPoolType.WORKSPACE),
            self.config.get_flag(BuilderFlag.TF32),
            self.config.hardware_compatibility_level,
        )

    def precompile(
        self, layers: Iterable[LayerProblem], parts: Iterable[LayerProblem] = ()
    ) -> None:
        """Compile all layers' kernels in parallel, reformats' too, and wait: timings run alone.

        parts: pieces of fused layers, for which nothing is compiled slowly.
        """
        if not self.compiles_ahead:
            return
        ahead = [s for s in self.sources if isinstance(s, CompilesAhead)]
        ahead.sort(key=lambda s: not s.slow)  # what takes longest begins first
        jobs = {p.key: (p, True) for p in parts} | {p.key: (p, False) for p in layers}
        tensors = dict.fromkeys(t for p, _ in jobs.values() for t in p.tensors)
        formats = formats_on(self.device.kind)
        started: list[Future[bytes]] = []
        for source in ahead:
            for layer, part in jobs.values():
                if not (part and source.slow):
                    offers = source.candidates(self.problem(layer.opt, layer.constants))
                    most = self._limits(layer, part=part)[source.name]
                    started += self._compiling(source, layer, offers, most)
            for t in tensors:
                offers = [source.reformat(t, a, b) for a, b in permutations(formats, 2)]
                started += self._compiling(source, reformat_problem(t), offers, len(offers))
        wait(started)  # what failed is refused, with its reason, when it is prepared

    def timing_alone(self) -> AbstractContextManager[None]:
        """On a CPU, BLAS on as few threads as its tactics use: it computes the references.

        Its threads spin for 25 ms, on processors that the next tactic is timed on: one in two
        threads seemed to take 600 µs longer.
        """
        if self.device.kind != "cpu":
            return nullcontext()
        return limited_to(blas_threads(self.threads))

    def in_places(self) -> AbstractContextManager[None]:
        """While a tactic is timed: a CPU's threads where they run in a long run."""
        return in_places(self.threads) if self.device.kind == "cpu" else nullcontext()

    @property
    def compiles_ahead(self) -> bool:
        """Whether several tactics are tried a layer: level 0 takes the first that runs."""
        return self.config.builder_optimization_level > 0

    def _compiling(
        self,
        source: CompilesAhead,
        layer: LayerProblem,
        offers: Sequence[Tactic | Refusal],
        most: int,
    ) -> list[Future[bytes]]:
        """Start compiling the first ``most``, which will be tried, at every size of the layer."""
        if not self.compiles_ahead:
            return []
        tactics = [t for t in offers if isinstance(t, Tactic)][:most]
        untimed = [t for t in tactics if not self.is_cached(t, layer)]
        single = None if self.checks_last_item(layer) else layer.single
        bodies = {b.signature: b for b in (*layer.shapes, single) if b is not None}
        return [
            f
            for b in bodies.values()
            for f in source.precompile(self.problem(b, layer.constants), untimed)
        ]

    def is_cached(self, tactic: Tactic, layer: LayerProblem) -> bool:
        return self.uses_cache and self.cache.holds(self.key(tactic, layer), checked=self.checks)

    @property
    def uses_cache(self) -> bool:
        """Whether known timings are taken, and new ones kept; level 0 times nothing."""
        disabled = self.config.get_flag(BuilderFlag.DISABLE_TIMING_CACHE)
        return self.config.builder_optimization_level > 0 and not disabled

    @property
    def checks(self) -> bool:
        """Whether outputs are compared with the reference."""
        return self.config.verify != "none"

    def checks_last_item(self, layer: LayerProblem) -> bool:
        """Whether a large layer runs whole and one item is compared: where kernels are compiled.

        Otherwise they would be compiled again for one item, and others checked than will run.
        """
        return self.device.kind == "gpu" and is_itemwise(layer.smallest)

    def key(self, tactic: Tactic, layer: LayerProblem) -> str:
        """What the cache knows by what became of a tactic at all of a layer's sizes."""
        own = compiled_for(tactic.source, self.config.hardware_compatibility_level)
        decided = f"{layer.decided} {own}" if own else layer.decided
        return self.cache.key(tactic, layer.opt, self.threads, decided, layer.other_sizes)

    @cached_property
    def steadiness(self) -> Steadiness:
        """How evenly the device runs a fixed kernel, found before the first timing."""
        return steadiness(self.device)

    def _limits(self, layer: LayerProblem, *, part: bool = False) -> Mapping[str, int]:
        """Tactics of each source that are tried for a layer: by the level, or max_num_tactics."""
        most, level = self.config.max_num_tactics, self.config.builder_optimization_level
        if most < 0:
            level = max(level - 1, 0) if part and level < COMPILES_ANYWAY_LEVEL else level
            return dict.fromkeys((s.name for s in self.sources), TACTICS_BY_LEVEL[level])
        key = (layer.key, part)
        if key not in self._shares:
            problem = self.problem(layer.opt, layer.constants)
            asked = [s for s in self.sources if not (part and _compiles_slowly(s))]
            offers = {s.name: s.candidates(problem) for s in asked}
            counts = {n: sum(isinstance(t, Tactic) for t in o) for n, o in offers.items()}
            self._shares[key] = in_turns(counts, most)
        return self._shares[key]

    def _untried(self, limit: int, *, part: bool) -> Refusal:
        """Why a tactic beyond the limit was not tried."""
        most = self.config.max_num_tactics
        if most >= 0:
            reason = f"not tried: max_num_tactics is {most}, {limit} of this source's came before"
            return Refusal(reason, remedy="raise max_num_tactics", code="max_num_tactics")
        level = self.config.builder_optimization_level
        return Refusal(
            f"not tried: level {level} tries {limit} tactics a source"
            + (" of a fused layer's part" if part else ""),
            remedy="raise builder_optimization_level, or set max_num_tactics",
            code="max_num_tactics",
        )

    def candidates(
        self, layer: LayerProblem, *, trial: Trial | None = None, part: bool = False
    ) -> tuple[Candidate, ...]:
        """Every tactic that the sources offer for this layer, and every refusal.

        trial: of this layer, where more of its tactics are tried later. part: it is a piece of a
        fused layer, timed for comparison: nothing is compiled slowly.
        """
        found = [Candidate(r.place, r.place, None, refusal=r) for r in self.missing]
        problem = self.problem(layer.opt, layer.constants)
        trial = trial or Trial(self, layer)
        limits = self._limits(layer, part=part)
        for source in self.sources:
            tried = 0
            if part and _compiles_slowly(source):
                reason = Refusal("not compiled for a part of a fused layer", code="not_compiled")
                found.append(Candidate(source.name, source.name, None, refusal=reason))
                continue
            offers = source.candidates(problem)
            if isinstance(source, CompilesAhead):
                wait(self._compiling(source, layer, offers, limits[source.name]))
            for offer in offers:
                if isinstance(offer, Refusal):
                    found.append(Candidate(source.name, source.name, None, refusal=offer))
                    continue
                unneeded = self._emulates_in_vain(layer, offer, found)
                unneeded = unneeded or self.not_worth_compiling(offer, found, layer)
                if unneeded is None:
                    # What is outclassed counts: no further one takes its place, and is compiled.
                    tried += 1
                    if tried > limits[source.name]:
                        unneeded = self._untried(limits[source.name], part=part)
                    elif 0 < self.config.builder_optimization_level < TRIES_ALL_LEVEL:
                        unneeded = outclassed(offer, found)
                if unneeded is not None:
                    found.append(Candidate(source.name, offer.title, offer, refusal=unneeded))
                    continue
                made = trial.candidate(source, offer)
                found.append(portable(made, self.config.hardware_compatibility_level))
                if self.config.builder_optimization_level == 0 and self._settles(layer, found[-1]):
                    return self.contract(layer, found)
        return self.contract(layer, found)

    def not_worth_compiling(
        self, offer: Tactic, found: Sequence[Candidate], layer: LayerProblem
    ) -> Refusal | None:
        """Why a kernel is not compiled: the layer runs so fast by others that little is to gain.

        Only what computes in the same precision, and is not more emulated than the offer, counts.
        One whose timing is known is taken: a build before this one held it to be worth it, by
        first timings of the others that were better in the end.
        """
        level = self.config.builder_optimization_level
        if offer.source not in COMPILED_FOR_LONG_LAYERS or level >= COMPILES_ANYWAY_LEVEL:
            return None
        if self.is_cached(offer, layer) or _is_for_exactness(offer, found, layer):
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

    def _emulates_in_vain(
        self, layer: LayerProblem, offer: Tactic, found: Sequence[Candidate]
    ) -> Refusal | None:
        """Why an emulated kernel is not tried: ``contract`` would refuse it beside a native one."""
        if not offer.emulated or self.config.builder_optimization_level >= COMPILES_ANYWAY_LEVEL:
            return None
        native = any(_is_native(c, layer) for c in found)
        return _emulated(layer, "not tried: ") if native else None

    def _settles(self, layer: LayerProblem, candidate: Candidate) -> bool:
        """Level 0 takes the first tactic that prepares, passes its check and keeps the type."""
        tactic = candidate.tactic
        return candidate.eligible and tactic is not None and tactic.precision is layer.built

    def contract(self, layer: LayerProblem, found: Sequence[Candidate]) -> tuple[Candidate, ...]:
        """Refuse what would not run in the built type; emulation only where nothing is native."""
        native = any(_is_native(c, layer) for c in found)
        kept: list[Candidate] = []
        for c in found:
            if c.eligible and c.tactic is not None:
                if c.tactic.precision is not layer.built:
                    reason = f"runs in {c.tactic.precision.value}, built as {layer.built.value}"
                    c = replace(c, refusal=Refusal(reason, code="precision"))
                elif c.tactic.emulated and native:
                    c = replace(c, refusal=_emulated(layer))
            kept.append(c)
        return tuple(kept)


def _is_for_exactness(offer: Tactic, found: Sequence[Candidate], layer: LayerProblem) -> bool:
    """Whether a kernel's smaller error is worth compiling it, however little time it saves.

    found: what was tried before it; only what is fast enough to be chosen counts.
    """
    named = (offer.source, offer.name)
    if offer.precision is not DataType.FLOAT:
        return False
    if named in COMPILED_FOR_EXACTNESS:
        return True
    if named not in COMPILED_AT_THE_END or not layer.last_product:
        return False
    timed = [(c.timing.likely_us, c.error) for c in found if c.eligible and c.timing]
    within = MOST_FOR_EXACTNESS * min((us for us, _ in timed), default=0.0)
    errors = [e for us, e in timed if us <= within and e is not None]
    return min(errors, default=0.0) > WORTH_EXACTNESS


def _is_native(candidate: Candidate, layer: LayerProblem) -> bool:
    """Whether a tactic that passed computes in the built type by the device's own arithmetic."""
    tactic = candidate.tactic
    native = tactic is not None and not tactic.emulated and tactic.precision is layer.built
    return candidate.eligible and native


def _emulated(layer: LayerProblem, told: str = "") -> Refusal:
    reason = f"{told}emulates {layer.built.value}; another tactic runs it natively"
    return Refusal(reason, code="emulated")


def _compiles_slowly(source: TacticSource) -> bool:
    return isinstance(source, CompilesAhead) and source.slow


def _check_names(allowed: tuple[str, ...] | None) -> None:
    """Raises ConfigError for a name that no tactic source of any device has."""
    known = [s.name for s in SOURCES]
    unknown = [n for n in allowed or () if n not in known]
    if unknown:
        raise ConfigError(
            f"no tactic source is named {', '.join(map(repr, unknown))}",
            place="tactic_sources",
            remedy=f"use some of {', '.join(known)}",
        )


def _place(source: str, allowed: tuple[str, ...] | None) -> int:
    return allowed.index(source) if allowed is not None and source in allowed else 0
