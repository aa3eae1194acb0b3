"""tune: every layer's candidates, then one choice of tactics and layouts for the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice, product

from workbench.body import Body, HostType, TensorType
from workbench.config import BuilderConfig, OptimizationProfile
from workbench.datatypes import DataType
from workbench.devices import Device
from workbench.dimensions import symbols_of
from workbench.errors import NetworkError, NoTacticError
from workbench.formats import LINEAR, Format, formats_on
from workbench.network import Layer, NetworkDefinition
from workbench.optimization_profile import pinned_sizes
from workbench.records import Progress, Refusal
from workbench.sampling import sample_inputs
from workbench.selection.candidate import Candidate
from workbench.selection.candidates import Workshop
from workbench.selection.choice import Tuned
from workbench.selection.composing import composed_candidates, part_problems
from workbench.selection.finals import finals
from workbench.selection.last_products import last_products
from workbench.selection.layer_problem import (
    LayerProblem,
    bodies_at,
    constants_of,
    reformat_problem,
)
from workbench.selection.overwriting import Overwriting
from workbench.selection.ranking import fastest
from workbench.selection.selecting import Selecting
from workbench.selection.trial import Trial
from workbench.storage import VIEWABLE, no_views
from workbench.tactics.host import HOST
from workbench.tactics.view import VIEW
from workbench.timing import Timing, TimingCache

LATER_SIZES = (64, 8, 2, 1)
"""Sizes at which a layer is tuned where only the data decides it: the first that its rule takes."""
MOST_FITTINGS = 256
"""Combinations of sizes that are tried before such a layer is left to the host."""


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
        self.no_view = {f: no_views(network, f, pinned) for f in formats_on(device.kind)}
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
        last = last_products(layers)
        problems = {
            key: self._problem(group[0], last_product=any(x.name in last for x in group))
            for key, group in groups.items()
        }
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
        selecting = Selecting(
            layers, self.network.outputs, found, requested, self.shop, self.reformat, self.opt
        )
        return selecting.tuned(cached=self.cache.hits - hits)

    def _candidates(self, layer: Layer, problem: LayerProblem | None) -> tuple[Candidate, ...]:
        if problem is None:
            return (self._host_candidate(layer),)
        trial = Trial(self.shop, problem)
        fused = finals(trial, self.shop.candidates(problem, trial=trial))
        composed = finals(trial, composed_candidates(trial, fused, self.reformat), beside=fused)
        found = self.shop.contract(problem, (*fused, *composed))
        able = self.shop.device.kind == "cpu" or any(c.eligible for c in found)
        return found if able else (*found, self._host_candidate(layer))

    def _problem(self, layer: Layer, *, last_product: bool) -> LayerProblem | None:
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
        kind = layer.precision
        return LayerProblem(layer.name, shapes[0], shapes, given, kind, decided, last_product)

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
        layouts = [f for f, reasons in self.no_view.items() if not reasons[layer.name]]
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
        trial = Trial(self.shop, reformat_problem(type_))
        tried: list[Candidate] = []
        for s in self.shop.sources:
            offer = s.reformat(type_, source, target)
            if isinstance(offer, Refusal):
                continue
            if self.shop.not_worth_compiling(offer, tried, trial.layer) is None:
                tried.append(trial.candidate(s, offer))
        able = [c for c in finals(trial, tried) if c.eligible]
        return fastest(able, self.shop.order) if able else None


def later_symbols(network: NetworkDefinition) -> frozenset[str]:
    """Size symbols that no input's shape binds: only the data decides them."""
    known = set(network.symbols)
    ranked = (t for t in network.tensors.values() if not isinstance(t.type, HostType))
    return frozenset(s for t in ranked for d in t.shape for s in symbols_of(d) - known)


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
