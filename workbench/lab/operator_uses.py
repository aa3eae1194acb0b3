"""OperatorUse: an operator of a model, what its nodes became, and which tactic sources run them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from onnx import ModelProto

from workbench.body import Body, HostType
from workbench.devices import Device
from workbench.dimensions import is_static
from workbench.network import Layer, NetworkDefinition
from workbench.onnx_parser.accepted import refusal_at
from workbench.onnx_parser.functions import Flattener, domain
from workbench.onnx_parser.schemas import operator_key, schema
from workbench.onnx_parser.source import SourceNode
from workbench.onnx_parser.weights import WeightReader
from workbench.records import Refusal
from workbench.selection.layer_problem import constants_of
from workbench.tactics import sources_for
from workbench.tactics.deciding import Deciding
from workbench.tactics.protocol import Problem, TacticSource

KERNEL = "kernel"
REFERENCE = "reference"
HOST = "host"
LATER = "sizes known later"
SIZES = "sizes only"
NO_LAYER = "no layer"
SUPPORTED = "supported"
REFUSED = "refused"


@dataclass(frozen=True)
class OperatorUse:
    """One operator of a model.

    since: the version of the standard's text that its nodes follow; 0 where the standard has none.
    becomes: operators of the layers that its nodes became -> how many. sources: with a kernel ->
    for how many of ``layers``. support: ``kernel``: a tactic source has one for each of those
    layers; ``reference``: NumPy's reference runs some of them; ``host``: only the host can;
    ``sizes known later``: the data decides them, and the sources are asked then; ``sizes only``:
    its layers read no data, and are known once the sizes are; ``no layer``: its nodes became
    weights; ``supported``: of a refused model, of which no layers are made; ``refused``: of its
    nodes, ``refused`` are.
    """

    operator: str
    nodes: int
    since: int
    support: str
    becomes: Mapping[str, int]
    sources: Mapping[str, int]
    refused: int = 0
    reason: str = ""

    @property
    def layers(self) -> int:
        """Layers that its nodes became."""
        return sum(self.becomes.values())


def uses_in_file(model: ModelProto, refused: Collection[int]) -> tuple[OperatorUse, ...]:
    """Of a model that is refused. refused: indices of the nodes with a reason."""
    versions = {domain(o.domain): o.version for o in model.opset_import}
    functions = {(domain(f.domain), f.name) for f in model.functions}
    found: dict[str, OperatorUse] = {}
    for i, node in enumerate(model.graph.node):
        space = domain(node.domain)
        key = operator_key(space, node.op_type)
        version = versions.get(space, 0)
        known = found.get(key)
        if known is None:
            local = (space, node.op_type) in functions
            why = "" if local else refusal_at(key, version)
            since = 0 if local else _since(key, version)
            known = OperatorUse(key, 0, since, REFUSED if why else SUPPORTED, {}, {}, 0, why)
        bad = i in refused
        found[key] = replace(
            known,
            nodes=known.nodes + 1,
            refused=known.refused + bad,
            support=REFUSED if bad else known.support,
        )
    return _in_order(found.values())


def uses_in_network(
    model: ModelProto,
    folder: Path | None,
    network: NetworkDefinition,
    device: Device,
    sizes: Mapping[str, int],
) -> tuple[OperatorUse, ...]:
    """Of a model and the network that it was parsed into."""
    nodes = [
        n for s in Flattener(model, WeightReader(folder)).nodes(model.graph.node) for n in _all(s)
    ]
    operator_of = {n.name: n.operator for n in nodes}
    layers: dict[str, list[Layer]] = defaultdict(list)
    for layer in network.layers:
        for name in layer.origin:
            if name in operator_of:
                layers[operator_of[name]].append(layer)
    versions = {n.operator: n.version for n in nodes}
    counts = Counter(n.operator for n in nodes)
    kernels = _Kernels(device, sizes)
    return _in_order(
        _use(key, count, _since(key, versions[key]), layers[key], kernels)
        for key, count in counts.items()
    )


def uses_of_layers(
    network: NetworkDefinition, device: Device, sizes: Mapping[str, int]
) -> tuple[OperatorUse, ...]:
    """Of a network that no file describes: its layers' own operators."""
    layers: dict[str, list[Layer]] = defaultdict(list)
    for layer in network.layers:
        layers[layer.op].append(layer)
    kernels = _Kernels(device, sizes)
    return _in_order(_use(key, len(x), 0, x, kernels) for key, x in layers.items())


def _use(
    key: str, count: int, since: int, layers: Sequence[Layer], kernels: _Kernels
) -> OperatorUse:
    becomes = Counter(x.op for x in layers)
    sources: Counter[str] = Counter()
    states: set[str] = set()
    for layer in layers:
        state, names = kernels.of(layer)
        states.add(state)
        sources.update(names)
    order = (HOST, LATER, REFERENCE, KERNEL, SIZES)
    support = next((s for s in order if s in states), NO_LAYER)
    named = {s.name: sources[s.name] for s in kernels.sources if sources[s.name]}
    return OperatorUse(key, count, since, support, dict(becomes), named)


class _Kernels:
    """Which sources have a kernel for a layer, asked once for those that sources treat alike."""

    def __init__(self, device: Device, sizes: Mapping[str, int]) -> None:
        self._device, self._sizes = device, sizes
        self.sources = [s for s in sources_for(device.kind) if s.unavailable() is None]
        self._deciding = Deciding()
        self._known: dict[tuple[str, str], tuple[str, tuple[str, ...]]] = {}

    def of(self, layer: Layer) -> tuple[str, tuple[str, ...]]:
        """How the layer runs, and the sources that have a kernel for it."""
        if layer.on_host:
            return HOST, ()
        if all(t.value is not None for t in layer.outputs):
            return SIZES, ()
        body = layer.body
        key = (body.signature, self._deciding.digest(body, constants_of(layer)))
        if key not in self._known:
            bound = body.substitute(self._sizes)
            self._known[key] = self._asked(layer, bound) if _is_bound(bound) else (LATER, ())
        return self._known[key]

    def _asked(self, layer: Layer, body: Body) -> tuple[str, tuple[str, ...]]:
        problem = Problem(body, constants_of(layer), self._device)
        names = tuple(s.name for s in self.sources if _has_kernel(s, problem))
        return (KERNEL if names else REFERENCE), names


def _has_kernel(source: TacticSource, problem: Problem) -> bool:
    """NumPy's reference runs every Body: it is no kernel."""
    return any(
        not isinstance(t, Refusal) and t.name != "reference" for t in source.candidates(problem)
    )


def _is_bound(body: Body) -> bool:
    types = body.types.values()
    return all(not isinstance(t, HostType) and is_static(t.shape) for t in types)


def _all(node: SourceNode) -> Iterator[SourceNode]:
    """A node, and those of the graphs inside it."""
    yield node
    for graph in node.nested:
        for inner in graph.nodes:
            yield from _all(inner)


def _since(key: str, version: int) -> int:
    found = schema(key, version) if version else None
    return found.since if found is not None else 0


def _in_order(uses: Iterable[OperatorUse]) -> tuple[OperatorUse, ...]:
    """Refused ones first, then the most frequent."""
    return tuple(sorted(uses, key=lambda u: (u.support != REFUSED, -u.nodes, u.operator)))
