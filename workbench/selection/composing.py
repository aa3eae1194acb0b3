"""COMPOSED: each fused layer's Body as its parts run one by one, each by its best tactic.

An inner selection, once per pair of boundary layouts that the fused tactics use. So a fusion can
lose, nothing fails to build because a fused form lacks a kernel, and the table shows the gain.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from workbench.body import TensorType
from workbench.formats import LINEAR, Format
from workbench.records import Refusal
from workbench.selection.candidate import Candidate
from workbench.selection.candidates import Workshop
from workbench.selection.finals import finals
from workbench.selection.layer_problem import LayerProblem
from workbench.selection.pbqp import Edges, Matrix, add_costs, solve
from workbench.selection.ranking import Reformat, formats_of, menu, node_us, reformat_us
from workbench.selection.trial import Trial
from workbench.tactics import source_named
from workbench.tactics.composed import Part, composed_tactic, part_of, split
from workbench.tactics.protocol import Tactic

Boundary = tuple[tuple[Format, ...], tuple[Format, ...]]
NAME = "COMPOSED"
MOST_BOUNDARIES = 3
"""Pairs of boundary layouts tried, the fused tactics' fastest first."""


def composed_candidates(
    trial: Trial, fused: Sequence[Candidate], reformat: Reformat
) -> tuple[Candidate, ...]:
    """COMPOSED once per boundary, timed as a whole; empty for a layer of one operator.

    trial: the layer's, with its operands and its reference. At level 0, and for a Body that reads
    no data, it is only built when no fused tactic runs.
    """
    shop, layer = trial.shop, trial.layer
    if len(layer.opt.operator_names) < 2:
        return ()
    settled = shop.config.builder_optimization_level == 0 or not layer.opt.dynamic_inputs
    if settled and any(c.eligible for c in fused):
        return ()
    return _Composer(trial, reformat).candidates(fused)


def part_problems(shop: Workshop, layer: LayerProblem) -> tuple[LayerProblem, ...]:
    """What will be timed for COMPOSED; empty where it is built only if nothing else runs."""
    if len(layer.opt.operator_names) < 2 or not layer.opt.dynamic_inputs:
        return ()
    return tuple(part_problem(shop, layer, p) for p in split(layer.opt))


def part_problem(shop: Workshop, layer: LayerProblem, part: Part) -> LayerProblem:
    """A piece of a fused layer, at every size at which the layer must work."""
    names = {i.name for i in part.body.inputs if i.constant}
    constants = {n: a for n, a in layer.constants.items() if n in names}
    bodies = {part.body.signature: part.body}
    for body in layer.shapes:
        bound = part_of(body, part.nodes).body
        bodies.setdefault(bound.signature, bound)
    return LayerProblem(
        f"{layer.name} ({' + '.join(part.body.operator_names)})",
        part.body,
        tuple(bodies.values()),
        constants,
        part.body.compute_type,
        shop.deciding.digest(part.body, constants),
    )


class _Composer:
    def __init__(self, trial: Trial, reformat: Reformat) -> None:
        self.trial, self.reformat = trial, reformat
        self.shop, self.layer = trial.shop, trial.layer
        self.parts = split(self.layer.opt)

    def candidates(self, fused: Sequence[Candidate]) -> tuple[Candidate, ...]:
        menus: list[list[Candidate]] = []
        for part in self.parts:
            found = self._part_candidates(part)
            able = menu(found, self.shop.order)
            if not able:
                why = "; ".join(str(c.refusal) for c in found if c.refusal)
                names = " + ".join(part.body.operator_names)
                return (self._refused(Refusal(f"its part {names} has no tactic: {why}")),)
            menus.append(able)
        times = [c.timing.likely_us for c in fused if c.eligible and c.timing]
        self.trial.best_us = min(times, default=float("inf"))
        made: dict[Tactic, Candidate] = {}
        for boundary in self._boundaries(fused):
            tactic = self._compose(menus, boundary)
            if isinstance(tactic, Refusal):
                return (*made.values(), self._refused(tactic))
            if tactic not in made:
                made[tactic] = self.trial.candidate(source_named(NAME), tactic)
        return tuple(made.values())

    def _refused(self, refusal: Refusal) -> Candidate:
        return Candidate(NAME, NAME, None, refusal=refusal)

    def _part_candidates(self, part: Part) -> tuple[Candidate, ...]:
        problem = part_problem(self.shop, self.layer, part)
        if problem.key not in self.shop.parts:
            trial = Trial(self.shop, problem)
            found = self.shop.candidates(problem, trial=trial, part=True)
            self.shop.parts[problem.key] = finals(trial, found)
        return self.shop.parts[problem.key]

    def _boundaries(self, fused: Sequence[Candidate]) -> list[Boundary]:
        linear: Boundary = (
            (LINEAR,) * len(self.layer.opt.dynamic_inputs),
            (LINEAR,) * len(self.layer.opt.outputs),
        )
        timed = [c for c in fused if c.eligible and c.timing]
        timed.sort(key=lambda c: c.timing.likely_us if c.timing else 0.0)
        wanted = dict.fromkeys(formats_of(c) for c in timed)
        first = list(wanted)[: MOST_BOUNDARIES - 1]
        return list(dict.fromkeys([*first, linear]))

    def _compose(
        self, menus: Sequence[Sequence[Candidate]], boundary: Boundary
    ) -> Tactic | Refusal:
        nodes, edges = self._costs(menus, boundary)
        choices = [m[c] for m, c in zip(menus, solve(nodes, edges).choices, strict=True)]
        tactics = [c.tactic for c in choices if c.tactic is not None]
        return composed_tactic(
            self.layer.opt,
            self.parts,
            tactics,
            reformat=self._reformat_tactic,
            inputs=boundary[0],
            outputs=boundary[1],
        )

    def _reformat_tactic(
        self, type_: TensorType, source: Format, target: Format
    ) -> Tactic | Refusal:
        best = self.reformat(type_, source, target)
        if best is None or best.tactic is None:
            return Refusal(f"nothing rewrites {type_} from {source} to {target}")
        return best.tactic

    def _costs(
        self, menus: Sequence[Sequence[Candidate]], boundary: Boundary
    ) -> tuple[list[Matrix], Edges]:
        body = self.layer.opt
        given = dict(zip((i.name for i in body.dynamic_inputs), boundary[0], strict=True))
        wanted = dict(zip(body.outputs, boundary[1], strict=True))
        writer = {v: p for p, part in enumerate(self.parts) for v in part.body.outputs}
        nodes = [np.array([node_us(k, c) for k, c in enumerate(m)]) for m in menus]
        edges: Edges = {}
        for p, part in enumerate(self.parts):
            for slot, i in enumerate(part.body.dynamic_inputs):
                wants = [formats_of(c)[0][slot] for c in menus[p]]
                source = writer.get(i.name)
                if source is None:
                    costs = [reformat_us(self.reformat, i.type, given[i.name], w) for w in wants]
                    nodes[p] = nodes[p] + np.array(costs)
                    continue
                k = self.parts[source].body.outputs.index(i.name)
                gives = [formats_of(c)[1][k] for c in menus[source]]
                matrix = np.array(
                    [[reformat_us(self.reformat, i.type, g, w) for w in wants] for g in gives]
                )
                add_costs(edges, (source, p), matrix)
            for slot, name in enumerate(part.body.outputs):
                if name in wanted:
                    gives = [formats_of(c)[1][slot] for c in menus[p]]
                    costs = [
                        reformat_us(self.reformat, body.types[name], g, wanted[name]) for g in gives
                    ]
                    nodes[p] = nodes[p] + np.array(costs)
        return nodes, edges
