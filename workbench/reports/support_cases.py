"""Samples: what ONNX's own node cases say of each operator, by parsing them.

They come with the onnx package. Nothing is written down here: what a source runs and what a
case is refused for is asked anew.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
from onnx import ModelProto, numpy_helper
from onnx.backend.test.loader import load_model_tests

from workbench.body import Body, HostType
from workbench.devices import CpuDevice, Device, Fingerprint
from workbench.dimensions import is_static
from workbench.network import Layer, NetworkDefinition
from workbench.onnx_parser import OnnxParser
from workbench.onnx_parser.functions import domain
from workbench.onnx_parser.schemas import operator_key
from workbench.operators import OPERATORS
from workbench.records import Refusal
from workbench.tactics import sources_for
from workbench.tactics.cublas_lt.product import product_of
from workbench.tactics.cudnn.described import graphs_of
from workbench.tactics.numpy_source import NUMPY
from workbench.tactics.nvrtc import NVRTC
from workbench.tactics.nvrtc.kernels import generates, kernel, variants
from workbench.tactics.protocol import Problem, TacticSource
from workbench.tactics.terms import Constants

ASKED = 12
"""Distinct Bodies of an operator that the sources are asked about."""


@dataclass
class Sample:
    """What the cases of one operator show.

    own: layers of its own cases. others: of cases of other operators. Of each distinct Body one.
    becomes: operators of the layers that a model of this one node becomes. refusals: reasons of
    its nodes that were refused, in order.
    """

    own: list[Layer] = field(default_factory=list[Layer])
    others: list[Layer] = field(default_factory=list[Layer])
    becomes: dict[str, None] = field(default_factory=dict[str, None])
    refusals: dict[str, None] = field(default_factory=dict[str, None])

    @property
    def layers(self) -> list[Layer]:
        """Its own first."""
        return [*self.own, *self.others]


@cache
def samples() -> Mapping[str, Sample]:
    """Operator (``domain::name`` outside ai.onnx) -> what its cases show. Takes a minute."""
    found: dict[str, Sample] = defaultdict(Sample)
    seen: set[tuple[str, str]] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the package's own data: overflowing casts, log(0)
        cases = load_model_tests(kind="node")
    for case in cases:
        if "_expanded" not in case.name and case.model is not None:
            known = _with_known_sizes(case.model, next(iter(case.data_sets or ()), ((), ()))[0])
            _read(case.model, found, seen)
            if known is not None:
                _add_layers(known, _parsed(known)[0], found, seen)
    return found


def _with_known_sizes(model: ModelProto, inputs: Sequence[Any]) -> ModelProto | None:
    """The model with the inputs that decide sizes as constants, as they stand in real ones."""
    given = dict(zip((v.name for v in model.graph.input), inputs, strict=False))
    decided = {
        v
        for n in model.graph.node
        if (o := OPERATORS.get(operator_key(domain(n.domain), n.op_type))) is not None
        for i, v in enumerate(n.input)
        if i in o.structural and isinstance(given.get(v), np.ndarray | np.generic)
    }
    if not decided:
        return None
    known = ModelProto()
    known.CopyFrom(model)
    del known.graph.input[:]
    known.graph.input.extend(v for v in model.graph.input if v.name not in decided)
    known.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(given[n]), n) for n in sorted(decided)
    )
    return known


def _parsed(model: ModelProto) -> tuple[NetworkDefinition, OnnxParser]:
    network = NetworkDefinition()
    parser = OnnxParser(network)
    parser.parse(model.SerializeToString())
    return network, parser


def _read(model: ModelProto, found: dict[str, Sample], seen: set[tuple[str, str]]) -> None:
    network, parser = _parsed(model)
    for i in range(parser.num_errors):
        reason = parser.get_error(i)
        if reason.rule != "operator":
            found[reason.node_operator].refusals.setdefault(reason.desc)
    _add_layers(model, network, found, seen)
    nodes = {operator_key(domain(n.domain), n.op_type) for n in model.graph.node}
    if len(model.graph.node) == 1:
        found[nodes.pop()].becomes.update((x.op, None) for x in network.layers)


def _add_layers(
    model: ModelProto,
    network: NetworkDefinition,
    found: dict[str, Sample],
    seen: set[tuple[str, str]],
) -> None:
    nodes = {operator_key(domain(n.domain), n.op_type) for n in model.graph.node}
    for layer in network.layers:
        assert layer.operator is not None
        key = layer.operator.key
        if (key, layer.body.signature) not in seen:
            seen.add((key, layer.body.signature))
            sample = found[key]
            (sample.own if key in nodes else sample.others).append(layer)


def kernels_for(layers: Sequence[Layer], device: Device) -> tuple[str, ...]:
    """Names of the CPU's sources with a kernel for one of these layers, in order.

    The NumPy source runs every Body by its reference; it counts where it has more than that.
    """
    return _with_kernel("cpu", layers, device)


def gpu_kernels_for(key: str, layers: Sequence[Layer], device: Device) -> tuple[str, ...]:
    """Names of the GPU's sources with a kernel for one of an operator's layers, in order.

    They say from the Body alone what they generate or call, without a GPU. Where no case has such a
    layer, NVRTC counts if it has a rule for the operator.
    """
    if not layers:
        return (NVRTC.name,) if generates(key) else ()
    return _with_kernel("gpu", layers, device)


def _with_kernel(kind: str, layers: Sequence[Layer], device: Device) -> tuple[str, ...]:
    bodies = [b for x in layers if not x.on_host for b in _asked(x.body)]
    usable = [b for b in bodies if _is_bound(b)][: 2 * ASKED]
    sources = sources_for(kind)
    return tuple(s.name for s in sources if any(_has_kernel(s, b, device) for b in usable))


def _asked(body: Body) -> tuple[Body, ...]:
    """As the case has it, and with every input but the first as a weight."""
    first, *others = body.inputs or (None,)
    if first is None or not others:
        return (body,)
    stored = (first, *(replace(i, constant=True) for i in others))
    return body, replace(body, inputs=stored)


class _Described(CpuDevice):
    """A GPU that is only named: enough for a source that generates code for it."""

    kind = "gpu"

    @property
    def fingerprint(self) -> Fingerprint:
        return Fingerprint("gpu", "compute capability 9.0", ("sm_90",))


def _is_bound(body: Body) -> bool:
    types = body.types.values()
    return all(not isinstance(t, HostType) and is_static(t.shape) for t in types)


def _has_kernel(source: TacticSource, body: Body, device: Device) -> bool:
    if source.name == "NVRTC":
        offered = variants(body)
        if isinstance(offered, Refusal):
            return False
        return any(not isinstance(kernel(body, v), Refusal) for v in offered)
    constants = {
        i.name: np.ones(i.type.shape, i.type.dtype.numpy) for i in body.inputs if i.constant
    }
    if source.name == "CUBLAS_LT":
        return not isinstance(product_of(body, Constants(body, constants)), Refusal)
    if source.name == "CUDNN":
        return not isinstance(graphs_of(Problem(body, constants, device)), Refusal)
    if source.name in ("TRITON", "WGMMA"):
        device = _Described()
    offers = source.candidates(Problem(body, constants, device))
    tactics = [t for t in offers if not isinstance(t, Refusal)]
    return any(source is not NUMPY or t.name != "reference" for t in tactics)
