"""tune: every layer's candidates, then one choice of tactics and layouts for the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice, product

import numpy as np

from workbench.body import Body, HostType, TensorType
from workbench.config import BuilderConfig, OptimizationProfile
from workbench.datatypes import DataType
from workbench.devices import Device
from workbench.dimensions import evaluate_shape, symbols_of
from workbench.errors import NetworkError, NoTacticError
from workbench.formats import FORMATS, LINEAR, Format
from workbench.network import Layer, NetworkDefinition, Tensor
from workbench.optimization_profile import pinned_sizes
from workbench.records import Progress, Refusal
from workbench.sampling import sample_inputs
from workbench.selection.candidate import Candidate
from workbench.selection.candidates import Workshop
from workbench.selection.choice import LayerChoice, ReformatChoice, Tuned
from workbench.selection.composing import composed_candidates, part_problems
from workbench.selection.finals import finals
from workbench.selection.layer_problem import LayerProblem, bodies_at, constants_of
from workbench.selection.overwriting import Overwriting
from workbench.selection.pbqp import Matrix, Solution, solve
from workbench.selection.ranking import fastest, formats_of, menu
from workbench.selection.trial import Trial
from workbench.storage import VIEWABLE, no_views
from workbench.tactics.host import HOST
from workbench.tactics.launch import reformat_body
from workbench.tactics.view import VIEW
from workbench.timing import Timing, TimingCache

LATER_SIZES = (64, 8, 2, 1)
"""Sizes at which a layer is tuned where only the data decides it: the first that its rule takes."""
MOST_FITTINGS = 256
"""Combinations of sizes that are tried before such a layer is left to the host."""
UNTIMED_REFORMAT = 0.25
"""Cost of a reformat at level 0, where a layer's cost is its candidate's rank."""


def tune(
    network: NetworkDefinition,
    device: Device,
    config: BuilderConfig,
    cache: TimingCache,
    requested: Mapping[str, DataType],
) -> Tuned:
    """Choose a tactic for every layer and a layout for every edge.

    requested: precision asked for, by layer name. Raises NoTacticError naming each layer that
    nothing can run, with every refusal; BuildCancelled when the monitor says stop.
    """
    tuning = _Tuning(network, device, config, cache)
    with tuning.shop.timing_alone():
        return tuning.run(requested)


class _Tuning:
    def __init__(
        self, network: NetworkDefinition, device: Device, config: BuilderConfig, cache: TimingCache
    ) -> None:
        self.network = network
        self.config = config
        self.shop = Workshop(device, config, cache)
        self.cache = cache
        profiles = config.optimization_profiles or (OptimizationProfile(),)
        self.later = later_symbols(network)
        later = dict.fromkeys(self.later, LATER_SIZES[0])
        self.bindings = [
            {**later, **p.bindings(network, which)} for p in profiles for which in range(3)
        ]
        self.opt = {**later, **profiles[0].bindings(network, 1)}
        pinned = pinned_sizes(profiles, network)
        self.no_view = {f: no_views(network, f, pinned) for f in FORMATS}
        self.shop.order[VIEW.name] = -1
        self._reformats: dict[tuple[TensorType, Format, Format], Candidate | None] = {}

    def run(self, requested: Mapping[str, DataType]) -> Tuned:
        hits = self.cache.hits
        layers, overwriting = self.network.layers, Overwriting(self.network)
        groups: dict[tuple[tuple[str, ...], str, DataType], list[Layer]] = {}
        for layer in layers:
            sizes = tuple(bodies_at(layer.body, self.opt, self.bindings))
            key = (sizes, self._decided(layer), layer.precision)
            groups.setdefault(key, []).append(layer)
        found: dict[str, tuple[Candidate, ...]] = {}
        failures: list[tuple[Layer, tuple[Candidate, ...]]] = []
        monitor = self.config.progress_monitor
        problems = {key: self._problem(group[0]) for key, group in groups.items()}
        asked = [p for p in problems.values() if p is not None]
        self.shop.precompile(asked, (q for p in asked for q in part_problems(self.shop, p)))
        with Progress(monitor, "Tune", len(groups)) as progress:
            for key, group in groups.items():
                candidates = self._candidates(group[0], problems[key])
                for layer in group:
                    able = overwriting.allowed(layer, candidates)
                    found[layer.name] = (*self._view_candidates(layer), *able)
                if not any(c.eligible for c in found[group[0].name]):
                    failures.append((group[0], candidates))
                progress.step()
        if failures:
            raise _nothing_runs(failures)
        return self._select(layers, found, requested, hits)

    def _candidates(self, layer: Layer, problem: LayerProblem | None) -> tuple[Candidate, ...]:
        if problem is None:
            return (self._host_candidate(layer),)
        trial = Trial(self.shop, problem)
        fused = finals(trial, self.shop.candidates(problem, trial=trial))
        composed = finals(trial, composed_candidates(trial, fused, self.reformat), beside=fused)
        found = self.shop.contract(problem, (*fused, *composed))
        able = self.shop.device.kind == "cpu" or any(c.eligible for c in found)
        return found if able else (*found, self._host_candidate(layer))

    def _problem(self, layer: Layer) -> LayerProblem | None:
        """What the sources are asked; None where only the host can run the layer."""
        if layer.on_host:
            return None
        opt_sizes, all_sizes = self.opt, self.bindings
        if set(layer.body.symbols) & self.later:
            given = self._fitting(layer.body)
            if given is None:
                return None
            opt_sizes = {**opt_sizes, **given}
            all_sizes = [{**b, **given} for b in all_sizes]
        shapes = tuple(bodies_at(layer.body, opt_sizes, all_sizes).values())
        given, decided = constants_of(layer), self._decided(layer)
        return LayerProblem(layer.name, shapes[0], shapes, given, layer.precision, decided)

    def _decided(self, layer: Layer) -> str:
        return self.shop.deciding.digest(layer.body, constants_of(layer))

    def _fitting(self, body: Body) -> dict[str, int] | None:
        """Sizes for what only the data decides, at which the Body can be run at all.

        Sizes that the layer's other operands have are tried, too: a product wants equal ones.
        """
        open_sizes = [s for s in body.symbols if s in self.later]
        shapes = [d for i in body.inputs for d in i.type.shape]
        own = dict.fromkeys(d for d in shapes if isinstance(d, int) and d > 0)
        menu = list(dict.fromkeys((LATER_SIZES[0], *own, *LATER_SIZES[1:])))
        for sizes in islice(product(menu, repeat=len(open_sizes)), MOST_FITTINGS):
            given = dict(zip(open_sizes, sizes, strict=True))
            bound = body.substitute({**self.opt, **given})
            try:
                bound.evaluate(sample_inputs(bound, seed=0))
            except (NetworkError, ValueError, IndexError):
                continue
            return given
        return None

    def _view_candidates(self, layer: Layer) -> tuple[Candidate, ...]:
        """The layer without a kernel, in each layout that allows it; or why LINEAR doesn't."""
        if layer.op not in VIEWABLE or layer.is_fused or layer.on_host:
            return ()
        layouts = [f for f in FORMATS if not self.no_view[f][layer.name]]
        if not layouts:
            refusal = Refusal(self.no_view[LINEAR][layer.name], VIEW.name, code="view")
            return (Candidate(VIEW.name, VIEW.name, None, refusal=refusal),)
        tactics = [VIEW.tactic(layer.body, f) for f in layouts]
        timed = self.config.builder_optimization_level > 0
        nothing = Timing(0.0, 0.0, 0.0, 0, "") if timed else None
        return tuple(Candidate(VIEW.name, t.title, t, nothing, 0.0, "no kernel") for t in tactics)

    def _host_candidate(self, layer: Layer) -> Candidate:
        """The host's interpreter; on a GPU only where the config allows the copies."""
        tactic = HOST.tactic(layer.body)
        refusal = None
        if self.shop.device.kind != "cpu" and not self.config.allow_host_layers:
            refusal = Refusal(
                "only the host can run it, and its operands would be copied there and back"
                if layer.on_host
                else "no kernel of the device runs it; the host would, with copies there and back",
                HOST.name,
                remedy="set allow_host_layers=True, or build for the CPU",
                code="host_layer",
            )
        return Candidate(HOST.name, tactic.title, tactic, kernel="interpreter", refusal=refusal)

    # -- reformats ------------------------------------------------------------------------
    def reformat(self, type_: TensorType, source: Format, target: Format) -> Candidate | None:
        """The fastest tactic that rewrites a tensor (sizes bound) to another layout, or None."""
        key = (type_, source, target)
        if key not in self._reformats:
            self._reformats[key] = self._best_reformat(type_, source, target)
        return self._reformats[key]

    def _best_reformat(self, type_: TensorType, source: Format, target: Format) -> Candidate | None:
        body = reformat_body(type_)
        trial = Trial(self.shop, LayerProblem("reformat", body, (body,), {}, type_.dtype))
        tried: list[Candidate] = []
        for s in self.shop.sources:
            offer = s.reformat(type_, source, target)
            if isinstance(offer, Refusal):
                continue
            if self.shop.not_worth_compiling(offer, tried, trial.layer) is None:
                tried.append(trial.candidate(s, offer))
        able = [c for c in finals(trial, tried) if c.eligible]
        return fastest(able, self.shop.order) if able else None

    def _reformat_cost(self, type_: TensorType, source: Format, target: Format) -> float:
        if source == target:
            return 0.0
        best = self.reformat(type_, source, target)
        if best is None:
            return np.inf
        return best.timing.likely_us if best.timing else UNTIMED_REFORMAT

    # -- selection ------------------------------------------------------------------------
    def _select(
        self,
        layers: Sequence[Layer],
        found: Mapping[str, tuple[Candidate, ...]],
        requested: Mapping[str, DataType],
        hits: int,
    ) -> Tuned:
        menus = [menu(found[x.name], self.shop.order) for x in layers]
        nodes, edges = self._costs(layers, menus)
        solution = solve(nodes, edges)
        picks = [m[c] for m, c in zip(menus, solution.choices, strict=True)]
        chosen = [
            self._layer_choice(x, found[x.name], pick, requested)
            for x, pick in zip(layers, picks, strict=True)
        ]
        return Tuned(
            tuple(chosen),
            self._reformat_choices(layers, picks),
            solution.cost,
            solution.exact,
            solution.lower_bound,
            self._single_formats(layers, menus, nodes, edges),
            self.shop.timed,
            self.shop.checked,
            self.cache.hits - hits,
            tuple(s.name for s in self.shop.sources),
            self.shop.remarks(chosen),
        )

    def _costs(
        self, layers: Sequence[Layer], menus: Sequence[Sequence[Candidate]]
    ) -> tuple[list[Matrix], dict[tuple[int, int], Matrix]]:
        index = {x.name: i for i, x in enumerate(layers)}
        nodes = [
            np.array([c.timing.likely_us if c.timing else float(k) for k, c in enumerate(m)])
            for m in menus
        ]
        edges: dict[tuple[int, int], Matrix] = {}
        for i, layer in enumerate(layers):
            for slot, tensor in enumerate(_dynamic(layer)):
                type_ = self._bound_type(tensor)
                wants = [formats_of(c)[0][slot] for c in menus[i]]
                if tensor.producer is None:
                    costs = [self._reformat_cost(type_, LINEAR, w) for w in wants]
                    nodes[i] = nodes[i] + np.array(costs)
                    continue
                p = index[tensor.producer.name]
                gives = self._gives(tensor, menus[p])
                matrix = np.array(
                    [[self._reformat_cost(type_, g, w) for w in wants] for g in gives]
                )
                edges[p, i] = edges[p, i] + matrix if (p, i) in edges else matrix
            for tensor in layer.outputs:
                if tensor.is_network_output:
                    gives = self._gives(tensor, menus[i])
                    type_ = self._bound_type(tensor)
                    costs = [self._reformat_cost(type_, g, LINEAR) for g in gives]
                    nodes[i] = nodes[i] + np.array(costs)
        return nodes, edges

    def _gives(self, tensor: Tensor, offered: Sequence[Candidate]) -> list[Format]:
        assert tensor.producer is not None
        slot = tensor.producer.outputs.index(tensor)
        return [formats_of(c)[1][slot] for c in offered]

    def _bound_type(self, tensor: Tensor) -> TensorType:
        if isinstance(tensor.type, HostType):
            return tensor.type
        return TensorType(tensor.dtype, evaluate_shape(tensor.shape, self.opt))

    def _single_formats(
        self,
        layers: Sequence[Layer],
        menus: Sequence[Sequence[Candidate]],
        nodes: Sequence[Matrix],
        edges: Mapping[tuple[int, int], Matrix],
    ) -> dict[str, float]:
        """Best total when every layer that can use a layout uses only that one (or linear)."""
        totals: dict[str, float] = {}
        for layout in FORMATS:
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

    def _layer_choice(
        self,
        layer: Layer,
        candidates: tuple[Candidate, ...],
        pick: Candidate,
        requested: Mapping[str, DataType],
    ) -> LayerChoice:
        others = [c for c in candidates if c.eligible and c is not pick and c.timing]
        runner = min(others, key=lambda c: c.timing.median_us if c.timing else 0.0, default=None)
        return LayerChoice(
            layer.name,
            layer.type,
            layer.operator_names,
            layer.origin,
            requested.get(layer.name, layer.precision),
            layer.precision,
            candidates,
            candidates.index(pick),
            candidates.index(runner) if runner else None,
            _composed(candidates, pick),
            not (runner and runner.timing and pick.timing)
            or pick.timing.distinguishable(runner.timing),
        )

    def _reformat_choices(
        self, layers: Sequence[Layer], picks: Sequence[Candidate]
    ) -> tuple[ReformatChoice, ...]:
        formats = {x.name: formats_of(c) for x, c in zip(layers, picks, strict=True)}
        wanted: dict[tuple[str, Format], list[str]] = {}
        tensors: dict[str, Tensor] = {}
        for layer in layers:
            for slot, tensor in enumerate(_dynamic(layer)):
                target = formats[layer.name][0][slot]
                wanted.setdefault((tensor.name, target), []).append(layer.name)
                tensors[tensor.name] = tensor
        for tensor in self.network.outputs:
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


def later_symbols(network: NetworkDefinition) -> frozenset[str]:
    """Size symbols that no input's shape binds: only the data decides them."""
    known = set(network.symbols)
    ranked = (t for t in network.tensors.values() if not isinstance(t.type, HostType))
    return frozenset(s for t in ranked for d in t.shape for s in symbols_of(d) - known)


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


def _nothing_runs(failures: Sequence[tuple[Layer, tuple[Candidate, ...]]]) -> NoTacticError:
    lines: list[str] = []
    refusals: list[Refusal] = []
    for layer, candidates in failures:
        own = [replace(c.refusal, place=c.title) for c in candidates if c.refusal]
        refusals.extend(own)
        why = " | ".join(dict.fromkeys(map(str, own))) or "no source offered a tactic"
        lines.append(f"{layer.name} ({'+'.join(layer.operator_names)}): {why}")
    return NoTacticError(
        f"no tactic runs {len(failures)} kinds of layer: " + "\n  ".join(lines),
        place="Tune",
        remedy="allow more tactic sources, more workspace, or another precision",
        refusals=refusals,
    )
