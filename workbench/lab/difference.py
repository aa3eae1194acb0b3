"""diff_fusions: which fusions differ between two builds of a model, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workbench.builder import BuildState
from workbench.errors import BuildError
from workbench.network import Layer
from workbench.records import Attempt, Stage
from workbench.rewrite import why_not_fused


@dataclass(frozen=True)
class FusionDifference:
    """The same nodes of the model, in different layers.

    nodes: of the model. before, after: their layers in each build, as ``name: operators``.
    reasons: the refused attempts that keep layers apart in the build that has more of them.
    """

    nodes: tuple[str, ...]
    before: tuple[str, ...]
    after: tuple[str, ...]
    reasons: tuple[Attempt, ...]

    def __str__(self) -> str:
        change = f"{', '.join(self.before)} → {', '.join(self.after)}"
        because = "; ".join(dict.fromkeys(a.reason for a in self.reasons))
        return f"{change}: {because}" if because else change


def diff_fusions(before: BuildState, after: BuildState) -> tuple[FusionDifference, ...]:
    """Where the networks after Fuse differ, in the model's order. Raises BuildError before Fuse.

    Layers that a stage inserted (Cast, Q, DQ) are compared as part of the layers that took them in.
    """
    old, new = _fused(before), _fused(after)
    found: list[FusionDifference] = []
    for nodes in _groups([*old, *new]):
        a = [x for x in old if nodes & set(x.origin)]
        b = [x for x in new if nodes & set(x.origin)]
        if sorted(map(_content, a)) == sorted(map(_content, b)):
            continue
        split, layers = (after, b) if len(b) >= len(a) else (before, a)
        order = {n: i for i, n in enumerate(after.network.model_nodes)}
        found.append(
            FusionDifference(
                tuple(sorted(nodes, key=lambda n: order.get(n, len(order)))),
                tuple(map(_title, a)),
                tuple(map(_title, b)),
                _reasons(split, layers),
            )
        )
    return tuple(found)


def _fused(state: BuildState) -> list[Layer]:
    if Stage.FUSE not in state.networks:
        raise BuildError("Fuse has not run", place=state.name, remedy="build up to Fuse first")
    return [x for x in state.networks[Stage.FUSE].layers if x.origin]


def _groups(layers: Sequence[Layer]) -> list[set[str]]:
    """The model's nodes, grouped by sharing a layer in any of the networks; in order."""
    group_of: dict[str, set[str]] = {}
    for layer in layers:
        joined: set[str] = set(layer.origin)
        for node in layer.origin:
            joined |= group_of.get(node, set())
        for node in joined:
            group_of[node] = joined
    return list({id(g): g for g in group_of.values()}.values())


def _content(layer: Layer) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(sorted(layer.origin)), layer.operator_names


def _title(layer: Layer) -> str:
    return f"{layer.name}: {'+'.join(layer.operator_names)}"


def _reasons(state: BuildState, layers: Sequence[Layer]) -> tuple[Attempt, ...]:
    """What keeps these layers apart."""
    network, attempts = state.networks[Stage.FUSE], state.log.attempts
    found: dict[Attempt, None] = {}
    for producer in layers:
        readers = dict.fromkeys(u for t in producer.outputs for u in t.users if u in layers)
        for reader in readers:
            answer = why_not_fused(network, attempts, producer.name, reader.name)
            found.update(dict.fromkeys(a for a in answer.attempts if a.missing < 2))
    return tuple(found)
