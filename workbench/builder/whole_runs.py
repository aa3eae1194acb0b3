"""Which of several selections runs fastest as a whole: each as a plan, in one CUDA graph.

Times of single kernels leave out what launching one after the other costs or saves.
"""

from __future__ import annotations

import json
from dataclasses import replace

from workbench.assemble import assemble, memory_stage
from workbench.builder.state import BuildState
from workbench.runtime import Engine
from workbench.runtime.early_starts import early_starts
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
    key = state.cache.key_of("WHOLE_RUNS", [_text(state, s) for s in selections])
    known = state.cache.query(key)
    if known is not None:
        return _taken(selections, int(known.kernel), "as whole runs decided before")
    timings: list[Timing] = []
    for selection in selections:
        timing = _whole_run(state, selection)
        if timing is None:
            return _taken(selections, 0, "")
        timings.append(timing)
    best = min(range(len(timings)), key=lambda k: timings[k].median_us)
    if timings[best].median_us > (1 - GAIN) * timings[0].median_us:
        best = 0
    state.cache.update(key, Entry(timings[best], kernel=str(best)))
    told = ", ".join(f"{t.median_us:.0f}" for t in timings)
    return _taken(selections, best, f"whole runs of {len(timings)} selections took {told} µs")


def _taken(selections: tuple[Tuned, ...], index: int, remark: str) -> Tuned:
    """One selection without its alternatives."""
    taken = selections[index]
    said = f"{remark}; taken: number {index + 1}" if remark else ""
    return replace(taken, alternatives=(), remarks=(*taken.remarks, *([said] if said else [])))


def _text(state: BuildState, selection: Tuned) -> str:
    """All that decides a selection's kernels, but for sizes that are the profiles'."""
    shapes = [sorted(p.shapes.items()) for p in state.config.optimization_profiles]
    steps = [
        (tactic_to_json(c.winner.tactic), state.network.layer(c.layer).body.signature)
        for c in selection.layers
        if c.winner.tactic is not None
    ]
    return json.dumps([shapes, steps], sort_keys=True)


def _whole_run(state: BuildState, selection: Tuned) -> Timing | None:
    """None where no one CUDA graph records it."""
    draft = assemble(state.name, state.network, selection, state.config, state.device)
    engine = Engine(memory_stage(draft)[0], state.device)
    return None if graph_refusal(engine) else early_starts(engine, state.cache).timing
