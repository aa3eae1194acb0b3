"""A stage's rewrites one by one: the network after any number of them."""

from __future__ import annotations

from dataclasses import dataclass

from workbench import fusions, passes
from workbench.builder import BuildState
from workbench.builder.edits import edited
from workbench.builder.state import before_stage
from workbench.errors import BuildError
from workbench.network import NetworkDefinition
from workbench.records import Attempt, Stage
from workbench.rewrite import replay

KEPT = 16
"""Rewrites between two networks that are kept for replaying from."""


@dataclass(frozen=True)
class Edge:
    """A tensor between two layers."""

    producer: str
    reader: str
    tensor: str

    def __str__(self) -> str:
        return f"{self.producer} → {self.reader}"


class RewriteSteps:
    """The applied rewrites of Fold or Fuse in a build, replayed up to any of them.

    applied: in order. Raises BuildError where the stage has not run, or rewrites nothing.
    """

    def __init__(self, state: BuildState, stage: Stage) -> None:
        if stage not in (Stage.FOLD, Stage.FUSE):
            raise BuildError(f"{stage.value} rewrites nothing", place=state.name)
        if stage not in state.networks:
            raise BuildError(f"{stage.value} has not run", place=state.name)
        self.state, self.stage = state, stage
        self.applied: tuple[Attempt, ...] = tuple(a for a in state.log[stage].attempts if a.applied)
        self._start = edited(before_stage(state, stage), stage)
        self._kept = {0: self._start}

    def network(self, count: int) -> NetworkDefinition:
        """The network after the first ``count`` rewrites."""
        if count == len(self.applied):
            return self.state.networks[self.stage].clone()
        done = max(n for n in self._kept if n <= count)
        network = self._kept[done].clone()
        while done < count:
            upto = min(count, (done // KEPT + 1) * KEPT)
            self.repeat(network, done, upto)
            done = upto
            if not done % KEPT:
                self._kept[done] = network.clone()
        return network

    def repeat(self, network: NetworkDefinition, done: int, upto: int) -> None:
        """Make rewrites number ``done`` + 1 to ``upto`` on the network after ``done`` of them."""
        rules = passes.RULES if self.stage is Stage.FOLD else fusions.FUSIONS
        replay(network, self.applied[done:upto], rules)

    @property
    def edges(self) -> tuple[Edge, ...]:
        """Every tensor between two layers before the stage's first rewrite."""
        return edges_of(self._start)


def edges_of(network: NetworkDefinition) -> tuple[Edge, ...]:
    """Every tensor between two layers, in the network's order."""
    return tuple(
        Edge(layer.name, user.name, tensor.name)
        for layer in network.layers
        for tensor in layer.outputs
        for user in tensor.users
    )
