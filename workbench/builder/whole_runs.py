"""Which of several selections runs fastest as a whole: each as a plan, in one CUDA graph.

Times of single kernels leave out what launching one after the other costs or saves.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

from workbench.assemble import assemble, memory_stage
from workbench.builder.state import BuildState
from workbench.config import BuilderFlag
from workbench.errors import TimingCacheError
from workbench.runtime import Engine
from workbench.runtime.early_starts import EarlyStarts, decidable, early_starts, kernels_of
from workbench.runtime.graph_check import graph_refusal
from workbench.selection import Tuned
from workbench.tactics.protocol import tactic_to_json
from workbench.timing import Entry, Timing

GAIN = 0.01
"""Part of the first selection's time that another must save to be taken instead."""


def by_whole_runs(state: BuildState, tuned: Tuned) -> Tuned:
    """The selection whose plan runs fastest; what was decided before is taken from the cache."""
    selections = (tuned, *tuned.alternatives)
    if len(selections) == 1:
        return tuned
    told: list[str] = []

    def measured() -> Entry:
        timings = [_whole_run(state, s) for s in selections]
        times = [t.median_us for t in timings if t is not None]
        if len(times) < len(selections):
            return Entry(None, kernel="0", failure="no CUDA graph records all of them")
        told.append(f"whole runs took {', '.join(f'{us:.0f}' for us in times)} µs")
        best = times.index(min(times))
        best = best if times[best] < (1 - GAIN) * times[0] else 0
        return Entry(timings[best], kernel=str(best))

    names = [kernels_text(state, s) for s in selections]
    entry = remembered(state, "WHOLE_RUNS", names, measured)
    best = int(entry.kernel)
    said = told[0] if told else entry.failure or "as whole runs decided before"
    remark = f"{said}: selection {best + 1} of {len(selections)} is taken"
    taken = selections[best]
    return replace(taken, alternatives=(), remarks=(*taken.remarks, remark))


def early_starts_of(state: BuildState, engine: Engine) -> EarlyStarts:
    """Which steps of an engine let the next one start early, timed or from the cache."""
    if not state.config.builder_optimization_level or not decidable(engine):
        return EarlyStarts()
    found: list[EarlyStarts] = []

    def measured() -> Entry:
        found.append(early_starts(engine))
        steps = " ".join(map(str, found[0].steps))
        return Entry(found[0].timing, failure=found[0].refusal, kernel=steps)

    entry = remembered(state, "EARLY_STARTS", kernels_of(engine), measured)
    steps = tuple(map(int, entry.kernel.split()))
    return found[0] if found else EarlyStarts(steps, entry.timing, refusal=entry.failure)


def remembered(
    state: BuildState, what: str, names: Sequence[str], measure: Callable[[], Entry]
) -> Entry:
    """What the timing cache knows of these kernels together, or else what is measured now."""
    config, key = state.config, state.cache.key_of(what, names)
    uses_cache = not config.get_flag(BuilderFlag.DISABLE_TIMING_CACHE)
    known = state.cache.query(key) if uses_cache else None
    if known is not None:
        return known
    if config.get_flag(BuilderFlag.ERROR_ON_TIMING_CACHE_MISS):
        raise TimingCacheError(
            f"no timing of whole runs ({what})",
            place=state.name,
            remedy="build once without ERROR_ON_TIMING_CACHE_MISS, with the same cache",
        )
    found = measure()
    if uses_cache:
        state.cache.update(key, found)
    return found


def kernels_text(state: BuildState, selection: Tuned) -> str:
    """All that decides a selection's kernels, but for sizes that are the profiles'."""
    shapes = [sorted(p.shapes.items()) for p in state.config.optimization_profiles]
    steps = [
        (tactic_to_json(c.winner.tactic), state.network.layer(c.layer).body.signature)
        for c in selection.layers
        if c.winner.tactic is not None
    ]
    return json.dumps([shapes, steps, state.config.max_aux_streams], sort_keys=True)


def _whole_run(state: BuildState, selection: Tuned) -> Timing | None:
    """None where no one CUDA graph records it."""
    draft = assemble(state.name, state.network, selection, state.config, state.device)
    engine = Engine(memory_stage(draft)[0], state.device)
    return None if graph_refusal(engine) else early_starts_of(state, engine).timing
