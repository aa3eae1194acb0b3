"""Which layers may write their output over an input: it must be nobody else's any more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from workbench.body import HostType
from workbench.dimensions import symbols_of
from workbench.network import Layer, NetworkDefinition, Tensor
from workbench.records import Refusal
from workbench.selection.candidate import Candidate
from workbench.storage import VIEWABLE


class Overwriting:
    """The order in which a network's tensors are read for the last time."""

    def __init__(self, network: NetworkDefinition) -> None:
        self._place = {x.name: k for k, x in enumerate(network.layers)}
        self._known = set(network.symbols)

    def allowed(self, layer: Layer, candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
        """The candidates, those refused that would overwrite what this layer may not."""
        return tuple(self._allowed(layer, c) for c in candidates)

    def _allowed(self, layer: Layer, candidate: Candidate) -> Candidate:
        if not candidate.eligible or candidate.tactic is None:
            return candidate
        index = candidate.tactic.overwrites
        reason = "" if index is None else self.why_not(layer, index)
        return replace(candidate, refusal=Refusal(reason, code="in_place")) if reason else candidate

    def why_not(self, layer: Layer, index: int) -> str:
        """Why the first output cannot take a dynamic input's memory; empty where it can."""
        pairs = zip(layer.body.inputs, layer.operands, strict=True)
        dynamic = [t for i, t in pairs if not i.constant]
        given, made = dynamic[index], layer.outputs[0]
        if sum(t is given for t in dynamic) > 1:
            return f"it reads '{given.name}' twice"
        last = max(given.users, key=lambda x: self._place[x.name])
        if last is not layer:
            return f"'{last.name}' reads '{given.name}' later"
        for t in (given, made):
            if reason := self._shared(t):
                return reason
        return ""

    def _shared(self, tensor: Tensor) -> str:
        """Who else may have a part in a tensor's memory."""
        if tensor.is_network_input or tensor.is_network_output or tensor.is_constant:
            return f"'{tensor.name}' lies in memory that is not the engine's to reuse"
        if isinstance(tensor.type, HostType) or tensor.producer is None:
            return f"'{tensor.name}' is the host's"
        if any(not symbols_of(d) <= self._known for d in tensor.shape):
            return f"only the data decides the size of '{tensor.name}'"
        near = [x for x in (tensor.producer, *tensor.users) if x.op in VIEWABLE or x.on_host]
        return f"'{near[0].name}' may share the memory of '{tensor.name}'" if near else ""
