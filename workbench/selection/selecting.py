"""One choice for the whole network: tactics and layouts together, and what the choice says of each.

A kernel of ours may be launched while the one before it, if that is ours, too, still ends
(``gpu_launch``). What this saves, no tactic's own time shows; it depends on the whole run. So there
are several selections, of which whole runs decide: by the tactics' times alone, and as if each pair
of such neighbours saved so many microseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from workbench.body import HostType, TensorType
from workbench.datatypes import DataType
from workbench.dimensions import evaluate_shape
from workbench.formats import LINEAR, Format, formats_on
from workbench.network import Layer, Tensor
from workbench.selection.candidate import Candidate
from workbench.selection.candidates import Workshop
from workbench.selection.choice import LayerChoice, ReformatChoice, Tuned
from workbench.selection.pbqp import Edges, Matrix, Solution, add_costs, cost_of, solve
from workbench.selection.ranking import (
    Reformat,
    formats_of,
    launched_early,
    menu,
    node_us,
    reformat_us,
)

SAVED_US = (0.5, 1.2)
"""What a pair of neighbours of ours may save, as further selections assume."""
WORTH_TRYING = 0.01
"""Part of the kernels' time that further pairs must promise to save, at LARGEST_SAVING_US each."""
LARGEST_SAVING_US = 2.0


class Selecting:
    """The layers in order, their candidates by name, and what rewriting a tensor takes.

    requested: precision asked for, by layer. sizes: of the symbols at the opt.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        outputs: Sequence[Tensor],
        found: Mapping[str, tuple[Candidate, ...]],
        requested: Mapping[str, DataType],
        shop: Workshop,
        reformat: Reformat,
        sizes: Mapping[str, int],
    ) -> None:
        self.layers, self.outputs, self.found, self.requested = layers, outputs, found, requested
        self.shop, self.reformat, self.sizes = shop, reformat, sizes

    def tuned(self, cached: int) -> Tuned:
        """The selection by the tactics' times alone, and its alternatives. cached: timings."""
        menus = [menu(self.found[x.name], self.shop.order) for x in self.layers]
        nodes, edges = self._costs(menus)
        solution = solve(nodes, edges)
        picks = [m[c] for m, c in zip(menus, solution.choices, strict=True)]
        found = Tuned(
            *self._choices(picks),
            solution.cost,
            solution.exact,
            solution.lower_bound,
            self._single_formats(menus, nodes, edges),
            self.shop.timed,
            self.shop.checked,
            cached,
            tuple(s.name for s in self.shop.sources),
        )
        found = replace(found, remarks=self.shop.remarks(found.layers))
        return replace(found, alternatives=self._alternatives(found, picks))

    def _choices(
        self, picks: Sequence[Candidate]
    ) -> tuple[tuple[LayerChoice, ...], tuple[ReformatChoice, ...]]:
        pairs = zip(self.layers, picks, strict=True)
        return tuple(self._layer_choice(x, c) for x, c in pairs), self._reformat_choices(picks)

    def _alternatives(self, first: Tuned, picks: Sequence[Candidate]) -> tuple[Tuned, ...]:
        device = self.shop.device
        if not self.shop.config.builder_optimization_level or device.kind != "gpu":
            return ()
        menus = [
            menu(self.found[x.name], self.shop.order, lambda c: launched_early(c, device))
            for x in self.layers
        ]
        nodes, edges = self._costs(menus)
        known, made = [list(picks)], list[Tuned]()
        for saved in SAVED_US:
            hoped = dict(edges)
            for pair, costs in self._savings(menus, saved).items():
                add_costs(hoped, pair, costs)
            solution = solve(nodes, hoped)
            own = [m[c] for m, c in zip(menus, solution.choices, strict=True)]
            more = self._early_pairs(own) - self._early_pairs(picks)
            if own in known or more * LARGEST_SAVING_US < WORTH_TRYING * first.total_us:
                continue
            known.append(own)
            layers, reformats = self._choices(own)
            total = cost_of(nodes, edges, solution.choices)
            made.append(
                replace(first, layers=layers, reformats=reformats, total_us=total, exact=False)
            )
        return tuple(made)

    def _early_pairs(self, picks: Sequence[Candidate]) -> int:
        early = [launched_early(c, self.shop.device) for c in picks]
        return sum(a and b for a, b in pairwise(early))

    def _savings(self, menus: Sequence[Sequence[Candidate]], saved_us: float) -> Edges:
        """Negative costs of neighbours in the order of execution."""
        early = [np.array([launched_early(c, self.shop.device) for c in m], float) for m in menus]
        return {
            (k, k + 1): -saved_us * np.outer(a, b)
            for k, (a, b) in enumerate(pairwise(early))
            if a.any() and b.any()
        }

    # -- costs ----------------------------------------------------------------------------
    def _costs(self, menus: Sequence[Sequence[Candidate]]) -> tuple[list[Matrix], Edges]:
        index = {x.name: i for i, x in enumerate(self.layers)}
        nodes = [np.array([node_us(k, c) for k, c in enumerate(m)]) for m in menus]
        edges: Edges = {}
        for i, layer in enumerate(self.layers):
            for slot, tensor in enumerate(_dynamic(layer)):
                type_ = self._bound_type(tensor)
                wants = [formats_of(c)[0][slot] for c in menus[i]]
                if tensor.producer is None:
                    costs = [reformat_us(self.reformat, type_, LINEAR, w) for w in wants]
                    nodes[i] = nodes[i] + np.array(costs)
                    continue
                p = index[tensor.producer.name]
                gives = _gives(tensor, menus[p])
                matrix = np.array(
                    [[reformat_us(self.reformat, type_, g, w) for w in wants] for g in gives]
                )
                add_costs(edges, (p, i), matrix)
            for tensor in layer.outputs:
                if tensor.is_network_output:
                    gives = _gives(tensor, menus[i])
                    type_ = self._bound_type(tensor)
                    costs = [reformat_us(self.reformat, type_, g, LINEAR) for g in gives]
                    nodes[i] = nodes[i] + np.array(costs)
        return nodes, edges

    def _bound_type(self, tensor: Tensor) -> TensorType:
        if isinstance(tensor.type, HostType):
            return tensor.type
        return TensorType(tensor.dtype, evaluate_shape(tensor.shape, self.sizes))

    def _single_formats(
        self, menus: Sequence[Sequence[Candidate]], nodes: Sequence[Matrix], edges: Edges
    ) -> dict[str, float]:
        """Best total when every layer that can use a layout uses only that one (or linear)."""
        totals: dict[str, float] = {}
        for layout in formats_on(self.shop.device.kind):
            limited: list[Matrix] = []
            for offered, node in zip(menus, nodes, strict=True):
                allowed = [_uses_only(c, layout) for c in offered]
                if not any(allowed):
                    allowed = [_uses_only(c, LINEAR) for c in offered]
                limited.append(np.where(allowed, node, np.inf))
            solution: Solution = solve(limited, edges)
            if np.isfinite(solution.cost):
                totals[layout.name] = solution.cost
        return totals

    # -- what was chosen ------------------------------------------------------------------
    def _layer_choice(self, layer: Layer, pick: Candidate) -> LayerChoice:
        candidates = self.found[layer.name]
        others = [c for c in candidates if c.eligible and c is not pick and c.timing]
        runner = min(others, key=lambda c: c.timing.median_us if c.timing else 0.0, default=None)
        return LayerChoice(
            layer.name,
            layer.type,
            layer.operator_names,
            layer.origin,
            self.requested.get(layer.name, layer.precision),
            layer.precision,
            candidates,
            candidates.index(pick),
            candidates.index(runner) if runner else None,
            _composed(candidates, pick),
            not (runner and runner.timing and pick.timing)
            or pick.timing.distinguishable(runner.timing),
        )

    def _reformat_choices(self, picks: Sequence[Candidate]) -> tuple[ReformatChoice, ...]:
        formats = {x.name: formats_of(c) for x, c in zip(self.layers, picks, strict=True)}
        wanted: dict[tuple[str, Format], list[str]] = {}
        tensors: dict[str, Tensor] = {}
        for layer in self.layers:
            for slot, tensor in enumerate(_dynamic(layer)):
                target = formats[layer.name][0][slot]
                wanted.setdefault((tensor.name, target), []).append(layer.name)
                tensors[tensor.name] = tensor
        for tensor in self.outputs:
            wanted.setdefault((tensor.name, LINEAR), []).append("the caller")
            tensors[tensor.name] = tensor
        made: list[ReformatChoice] = []
        for (name, target), readers in wanted.items():
            tensor = tensors[name]
            source = LINEAR
            if tensor.producer is not None:
                slot = tensor.producer.outputs.index(tensor)
                source = formats[tensor.producer.name][1][slot]
            if source != target:
                winner = self.reformat(self._bound_type(tensor), source, target)
                assert winner is not None
                unique = tuple(dict.fromkeys(readers))
                made.append(ReformatChoice(name, tensor.type, source, target, winner, unique))
        return tuple(made)


def _gives(tensor: Tensor, offered: Sequence[Candidate]) -> list[Format]:
    assert tensor.producer is not None
    slot = tensor.producer.outputs.index(tensor)
    return [formats_of(c)[1][slot] for c in offered]


def _composed(candidates: Sequence[Candidate], pick: Candidate) -> int | None:
    """The COMPOSED candidate that a fused kernel is compared with: the chosen, else the fastest."""
    able = [c for c in candidates if c.source == "COMPOSED" and c.timing and c.eligible]
    if pick.source == "COMPOSED":
        return candidates.index(pick)
    best = min(able, key=lambda c: c.timing.median_us if c.timing else 0.0, default=None)
    return None if best is None else candidates.index(best)


def _dynamic(layer: Layer) -> list[Tensor]:
    return [t for i, t in zip(layer.body.inputs, layer.operands, strict=True) if not i.constant]


def _uses_only(candidate: Candidate, layout: Format) -> bool:
    ins, outs = formats_of(candidate)
    return all(f == layout for f in (*ins, *outs))
