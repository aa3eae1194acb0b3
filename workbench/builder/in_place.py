"""Which of two tactics is faster in its place: where a run has left a layer's weights and inputs.

A tactic is timed alone, again and again: it finds its weights in the last cache. A large model's
run has pushed them out by the time they are wanted again; a kernel that reads ahead then wins over
one that does not. So what is close when timed alone, and takes long, is decided by whole runs: one
of the selection, one with every layer's rival, in turns, each step timed.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

from workbench.assemble import assemble, memory_stage
from workbench.builder.state import BuildState
from workbench.builder.whole_runs import kernels_text, remembered
from workbench.runtime import Engine
from workbench.runtime.binding import Binder
from workbench.runtime.early_starts import decidable, drawn_inputs
from workbench.runtime.launching import Launcher
from workbench.runtime.memory import ContextMemory
from workbench.selection import Tuned
from workbench.selection.choice import LayerChoice
from workbench.selection.ranking import formats_of, least_error, priced_us
from workbench.tactics.placing import in_places
from workbench.tactics.protocol import tactic_to_json
from workbench.timing import Entry, Timing

LEVEL = 3
"""builder_optimization_level from which on this is done."""
WORTH_US = 100.0
"""Time of a layer from which on: the weights of shorter ones stay in a cache, or are few."""
NEAR = 1.1
"""Times as long, alone, that a rival may take."""
GAIN = 0.02
"""Part of the layers' time that a rival must save to be taken instead."""
COMPARED_US, LEAST_RUNS, MOST_RUNS = 1e6, 5, 25
"""Time that the runs of both take together, within bounds."""

Group = tuple[str, ...]
"""What layers of the same Body, tactic and rival have in common; they are decided together."""


def in_place(state: BuildState, tuned: Tuned) -> Tuned:
    """The selection with those rivals that were faster in their places; remembered in the cache."""
    if state.device.kind != "cpu" or state.config.builder_optimization_level < LEVEL:
        return tuned
    rivals = {k: r for k, c in enumerate(tuned.layers) if (r := _rival(c)) is not None}
    if not rivals:
        return tuned
    groups: dict[Group, list[int]] = {}
    for k, rival in rivals.items():
        groups.setdefault(_group(state, tuned.layers[k], rival), []).append(k)
    parts = list(groups.values())
    other = _with(tuned, rivals)

    def measured() -> Entry:
        runs = [_Runs(state, t) for t in (tuned, other)]
        if not all(r.decidable for r in runs):
            return Entry(None, failure="sizes are known only when it runs")
        own, theirs = _in_turns(runs, tuned)
        faster = [
            n
            for n, part in enumerate(parts)
            if _us(theirs, part) * _price(tuned.layers[part[0]], rivals[part[0]])
            < (1 - GAIN) * _us(own, part)
        ]
        whole = Timing.of([sum(row) for row in own])
        return Entry(whole, kernel=" ".join(map(str, faster)))

    names = [kernels_text(state, tuned), kernels_text(state, other), str(state.config.num_threads)]
    taken = remembered(state, "IN_PLACE", names, measured).kernel.split()
    faster = {k: rivals[k] for n in taken for k in parts[int(n)]}
    if not faster:
        return tuned
    remark = f"{len(faster)} layers are faster in their places by what was close when timed alone"
    found = _with(tuned, faster)
    return replace(found, remarks=(*found.remarks, remark))


def _rival(choice: LayerChoice) -> int | None:
    """The best of another source in the same layouts, if it is close and the layer takes long."""
    winner = choice.winner
    if winner.timing is None or winner.timing.median_us < WORTH_US:
        return None
    able = [
        (k, c)
        for k, c in enumerate(choice.candidates)
        if c.eligible and c.timing and formats_of(c) == formats_of(winner)
    ]
    least = least_error([c for _, c in able])
    others = [(priced_us(c, least), k) for k, c in able if c.source != winner.source]
    us, rival = min(others, default=(float("inf"), -1))
    return rival if us <= NEAR * priced_us(winner, least) else None


def _price(choice: LayerChoice, rival: int) -> float:
    """What a microsecond of a rival costs for its error, as a multiple of the winner's."""
    pair = choice.candidates[rival], choice.winner
    least = least_error(pair)
    costs = [priced_us(c, least) / c.timing.likely_us for c in pair if c.timing]
    return costs[0] / costs[1]


def _group(state: BuildState, choice: LayerChoice, rival: int) -> Group:
    tactics = choice.winner.tactic, choice.candidates[rival].tactic
    texts = [json.dumps(tactic_to_json(t), sort_keys=True) for t in tactics if t is not None]
    return (state.network.layer(choice.layer).body.signature, *texts)


def _with(tuned: Tuned, rivals: Mapping[int, int]) -> Tuned:
    """The selection where these layers, by number, run these candidates."""
    layers, total = list(tuned.layers), tuned.total_us
    for k, rival in rivals.items():
        before = layers[k]
        after = before.candidates[rival]
        composed = rival if after.source == "COMPOSED" else before.composed
        layers[k] = replace(before, chosen=rival, runner_up=before.chosen, composed=composed)
        total += (layers[k].median_us or 0.0) - (before.median_us or 0.0)
    return replace(tuned, layers=tuple(layers), total_us=total)


class _Runs:
    """Runs of a selection at the first profile's opt sizes, on random inputs."""

    def __init__(self, state: BuildState, tuned: Tuned) -> None:
        draft = assemble(state.name, state.network, tuned, state.config, state.device)
        engine = Engine(memory_stage(draft)[0], state.device)
        self.device, self.threads = state.device, engine.plan.threads
        self.decidable = decidable(engine)
        if not self.decidable:
            return
        memory, launcher = ContextMemory(engine, engine.plan.profiles[0]), Launcher(engine)
        inputs = dict(drawn_inputs(engine))
        memory.put(inputs, launcher.own)
        bound = Binder(engine, memory, launcher).present({n: a.shape for n, a in inputs.items()})
        self.places = {s.name: k for k, s in enumerate(engine.plan.steps)}
        self.launches = bound.launches

    def steps_us(self, names: Sequence[str]) -> list[float]:
        """Microseconds of each of these layers in one run."""
        with in_places(self.threads):
            found = self.device.steps_us(self.launches)
        return [found[self.places[n]] for n in names]


def _in_turns(runs: Sequence[_Runs], tuned: Tuned) -> tuple[list[list[float]], list[list[float]]]:
    """Each layer's microseconds in several runs of both, after one that does not count."""
    names = [c.layer for c in tuned.layers]
    first = sum(sum(r.steps_us(names)) for r in runs)
    rounds = max(LEAST_RUNS, min(MOST_RUNS, int(COMPARED_US / first)))
    pairs = [[r.steps_us(names) for r in runs] for _ in range(rounds)]
    return [own for own, _ in pairs], [theirs for _, theirs in pairs]


def _us(rows: Sequence[Sequence[float]], layers: Sequence[int]) -> float:
    """What these layers take together, the median of all runs."""
    return statistics.median(sum(row[k] for k in layers) for row in rows)
