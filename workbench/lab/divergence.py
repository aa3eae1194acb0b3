"""Divergence: where a build's values first leave the float model's, layer by layer, by taps."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.builder import BuildState
from workbench.config import BuilderConfig
from workbench.datatypes import DataType
from workbench.lab.sensitivity import tapped_quality
from workbench.lab.trials import PrecisionTrials
from workbench.network import Layer
from workbench.precision import resolve

TOLERANCE = 0.1
"""Relative difference from which a layer counts as diverged: 20 dB of noise below the signal."""


@dataclass(frozen=True, eq=False)
class LayerDivergence:
    """A layer's value in the build beside its value in the float model.

    read: relative difference of the worst of its inputs, as far as they can be tapped. built: the
    type that it is built in. not_finite: values that became NaN or infinite.
    """

    layer: str
    op: str
    nodes: tuple[str, ...]
    built: DataType
    relative_l2: float
    sqnr_db: float
    cosine: float
    read: float
    not_finite: int

    @property
    def introduced(self) -> float:
        """What this layer adds to the difference that it reads; 0 where it adds nothing."""
        if self.relative_l2 == self.read:
            return 0.0
        return max(0.0, self.relative_l2 - self.read)


@dataclass(frozen=True, eq=False)
class Divergence:
    """Every layer that can be tapped, in the network's order.

    first: the first layer whose difference exceeds the tolerance, or None. first_not_finite: the
    first with NaN or infinite values where the float model has none.
    """

    rows: tuple[LayerDivergence, ...]
    tolerance: float
    samples: int

    @property
    def first(self) -> LayerDivergence | None:
        return next((r for r in self.rows if not r.relative_l2 <= self.tolerance), None)

    @property
    def first_not_finite(self) -> LayerDivergence | None:
        return next((r for r in self.rows if r.not_finite), None)

    @property
    def worst(self) -> LayerDivergence | None:
        """The layer that adds most."""
        return max(self.rows, key=lambda r: r.introduced, default=None)


def find_divergence(
    trials: PrecisionTrials,
    config: BuilderConfig,
    *,
    tolerance: float = TOLERANCE,
    built: BuildState | None = None,
) -> Divergence:
    """Build the config and compare every layer with the float model, on the samples kept.

    The plan is the one that is delivered: inner values are read by taps. built: the config's
    build, where there is one already.
    """
    found = tapped_quality(trials, built or trials.build(config))
    types = {d.layer: d.precision for d in resolve(trials.network, config)}
    rows: list[LayerDivergence] = []
    for layer in trials.network.layers:
        if layer.name not in found:
            continue
        quality = found[layer.name]
        read = max((found[x].relative_l2 for x in _sources(layer, frozenset(found))), default=0.0)
        rows.append(
            LayerDivergence(
                layer.name,
                layer.op,
                layer.origin,
                types.get(layer.name, DataType.FLOAT),
                quality.relative_l2,
                quality.sqnr_db,
                quality.cosine,
                read,
                quality.not_finite,
            )
        )
    samples = max((q.samples for q in found.values()), default=0)
    return Divergence(tuple(rows), tolerance, samples)


def _sources(layer: Layer, known: frozenset[str]) -> set[str]:
    """The nearest layers before this one whose values are known."""
    found: set[str] = set()
    todo, seen = [t for t in layer.inputs if t is not None], set[str]()
    while todo:
        made = todo.pop().producer
        if made is None or made.name in seen:
            continue
        seen.add(made.name)
        if made.name in known:
            found.add(made.name)
        else:
            todo.extend(t for t in made.inputs if t is not None)
    return found
