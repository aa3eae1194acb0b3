"""The tactics of one layer: each prepared, compared with the reference, run twice and timed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from workbench.body import Array, Body
from workbench.checks import Expected, bit_equal, expect, sample_inputs
from workbench.config import BuilderFlag, MemoryPoolType
from workbench.devices import Buffer
from workbench.errors import TimingCacheError
from workbench.formats import Format
from workbench.records import Refusal
from workbench.selection.candidate import Candidate
from workbench.selection.layer_problem import LayerProblem
from workbench.selection.one_item import operands_with_last, run_last
from workbench.tactics.launch import bind, run_once, stored_bytes, upload
from workbench.tactics.protocol import Call, Launch, Problem, Tactic
from workbench.tactics.workspace import over_limit
from workbench.timing import Entry, Timing, measure

if TYPE_CHECKING:
    from workbench.selection.candidates import Workshop

PASSING = frozenset({"compile", "plan", "workspace"})
"""Codes of refusals that may pass: a compiler died, memory was short, the limit was another.

They are told, but not kept with the timings: the next build tries again.
"""


TIMED_AGAIN = ("cpu",)
"""Kinds of devices whose tactics are timed again in turns: launches are kept for them."""
_Checked = tuple[float, float | None, str]
"""Largest error as a fraction of the bound, relative error, and what is wrong or nothing."""


class Trial:
    """The tactics of one layer, tried one after another; the best so far cuts off the hopeless."""

    def __init__(self, shop: Workshop, layer: LayerProblem) -> None:
        self.shop = shop
        self.layer = layer
        self.best_us = float("inf")
        self._single = layer.single
        self._last = layer.single is not None and shop.checks_last_item(layer)
        self._references: dict[tuple[str, bool, bool], Expected] = {}
        self._inputs: dict[str, dict[str, Array]] = {}
        self._buffers: dict[tuple[str, tuple[Format, ...]], tuple[Buffer, ...]] = {}
        self._unordered: dict[str, Buffer] = {}
        self.launches: dict[Tactic, Launch] = {}
        """Of the tactics that were timed here and may be again."""
        self._results: dict[tuple[Format, ...], tuple[Buffer, ...]] = {}
        # Where tactics write while they are timed, by layouts: they take turns.

    def candidate(self, source: Any, tactic: Tactic) -> Candidate:
        """One tactic's outcome, from the cache where it is known."""
        shop = self.shop
        use_cache = shop.uses_cache
        key = shop.key(tactic, self.layer)
        entry = shop.cache.query(key, checked=shop.checks) if use_cache else None
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
            entry.error,
        )

    def retimed(self, tactic: Tactic, timing: Timing) -> None:
        """Keep a better timing of a tactic tried before."""
        key = self.shop.key(tactic, self.layer)
        if self.shop.uses_cache:
            self.shop.cache.update(key, replace(self.shop.cache.entries[key], timing=timing))

    def _refusal(self, entry: Entry) -> Refusal | None:
        limit = self.shop.config.get_memory_pool_limit(MemoryPoolType.WORKSPACE)
        if entry.failure:
            code = "quarantined" if entry.quarantined else "refused"
            return Refusal(entry.failure, code=code)
        return over_limit(entry.workspace_bytes, limit)

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
        worst = error = None
        if self.shop.checks:
            worst, error, failure = self._check(tactic, self._checked(source, tactic, calls))
            if failure:
                return replace(entry, worst=worst, failure=failure, quarantined=True)
        timing = None
        if self.shop.config.builder_optimization_level > 0:
            problem = self.shop.problem(self.layer.opt, self.layer.constants)
            call = next(c for b, c in calls if b is self.layer.opt)
            stream = self.shop.stream
            inputs = self._timed_on(tactic, problem)
            over = tactic.overwrites
            outputs = self._results.get(tactic.outputs) if over is None else (inputs[over],)
            bound = bind(call, tactic, problem, stream, inputs, outputs)
            if over is None:
                self._results[tactic.outputs] = bound.outputs
            busy = self.shop.steadiness.busy
            with self.shop.in_places():
                timing = measure(
                    bound.launch,
                    self.shop.device,
                    iterations=self.shop.config.avg_timing_iterations,
                    best_us=self.best_us,
                    stream=stream,
                    threads=problem.threads,
                )
            timing = replace(timing, noisy=timing.noisy or busy)
            self.shop.timed += 1
            if self.shop.device.kind in TIMED_AGAIN and not timing.cut_off:
                self.launches[tactic] = bound.launch
        return replace(entry, timing=timing, worst=worst, error=error)

    def _checked(
        self, source: Any, tactic: Tactic, calls: Sequence[tuple[Body, Call]]
    ) -> list[tuple[Body, Call]]:
        """The calls whose outputs are compared with the reference."""
        if self._last and tactic.overwrites is None:
            return [(b, c) for b, c in calls if b is self.layer.smallest]
        if self._single is not None:
            one = source.prepare(tactic, self.shop.problem(self._single, self.layer.constants))
            if isinstance(one, Call):
                return [(self._single, one)]
        checked = self.layer.check_at
        if self.shop.config.builder_optimization_level == 0:
            checked = (min(checked, key=lambda b: b.flops),)
        where = {id(b) for b in checked}
        return [(b, c) for b, c in calls if id(b) in where]

    def _check(self, tactic: Tactic, calls: Sequence[tuple[Body, Call]]) -> _Checked:
        worst, errors = 0.0, list[float]()
        for body, call in calls:
            problem = self.shop.problem(body, self.layer.constants)
            last = self._last and body is self.layer.smallest and tactic.overwrites is None
            inputs = self._buffers_for(tactic, problem, last=last)
            run = run_last if last else run_once
            outputs = run(call, tactic, problem, inputs)
            expected = self._reference_for(body, tactic.tf32, last=last)
            result = expected.check(outputs)
            worst = max(worst, result.worst)
            if not result.passed:
                where = f"the last item of {sizes_text(body)}" if last else sizes_text(body)
                return worst, None, f"wrong result at {where}: {result.message}"
            error = expected.error(outputs)
            errors += [] if error is None else [error]
            if tactic.deterministic:
                again = run(call, tactic, problem, inputs)
                if not bit_equal(outputs, again):
                    return worst, None, "two runs differ, yet it is declared deterministic"
        self.shop.checked += 1
        return worst, max(errors, default=None), ""

    def _inputs_for(self, body: Body) -> dict[str, Array]:
        key = body.signature
        if key not in self._inputs:
            drawn = sample_inputs(body, seed=0, constants=self.layer.constants)
            self._inputs[key] = {i.name: drawn[i.name] for i in body.dynamic_inputs}
        return self._inputs[key]

    def _buffers_for(
        self, tactic: Tactic, problem: Problem, *, last: bool = False
    ) -> tuple[Buffer, ...]:
        """The sampled inputs on the device, in the tactic's layouts; no kernel writes to them.

        last: only the last item needs to be in order.
        """
        key = (problem.body.signature, tactic.inputs)
        if key not in self._buffers:
            fill = operands_with_last if last else upload
            self._buffers[key] = fill(tactic, problem, self._inputs_for(problem.body))
        return self._buffers[key]

    def _timed_on(self, tactic: Tactic, problem: Problem) -> tuple[Buffer, ...]:
        """Operands for timing: those of the check, else samples in the order they were drawn in.

        What is timed only needs values of the right range, in no order: layouts share buffers. A
        tactic that overwrites an input has its own.
        """
        body = problem.body
        if tactic.overwrites is not None:
            return upload(tactic, problem, self._inputs_for(body))
        if (body.signature, tactic.inputs) in self._buffers:
            return self._buffers_for(tactic, problem)
        drawn = self._inputs_for(body)
        for i, layout in zip(body.dynamic_inputs, tactic.inputs, strict=True):
            if stored_bytes(i.type, layout) != drawn[i.name].nbytes:  # padded
                return self._buffers_for(tactic, problem)
            if i.name not in self._unordered:
                buffer = problem.device.allocate(drawn[i.name].nbytes)
                problem.device.upload(drawn[i.name], buffer)
                self._unordered[i.name] = buffer
        return tuple(self._unordered[i.name] for i in body.dynamic_inputs)

    def _reference_for(self, body: Body, tf32: bool, *, last: bool = False) -> Expected:
        drawn = self._inputs_for(body)
        if last:
            assert self._single is not None
            body, drawn = self._single, {n: a[-1:] for n, a in drawn.items()}
        key = (body.signature, tf32, last)
        if key not in self._references:
            self._references[key] = expect(body, {**drawn, **self.layer.constants}, tf32=tf32)
        return self._references[key]


def sizes_text(body: Body) -> str:
    """The shapes of a bound Body's dynamic inputs, for messages."""
    return ", ".join(str(i.type) for i in body.dynamic_inputs)
