"""The matcher: every way in which a pattern fits at a layer, and the nearest miss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import Protocol

from workbench.network import Layer, Tensor
from workbench.records import Remedy
from workbench.rewrite.mending import MOST_SWAPS, move_up, store
from workbench.rewrite.pattern import Element, Variable


@dataclass(frozen=True, eq=False)
class Match:
    """Layers that fit a rule.

    layers: every matched layer, anchor first, then in the network's order. root: the last in the
    flow of data, where the search began. tensors: the pattern's variables. named: the elements
    that have a name. anchor: the element called ``anchor``, else the first that carries work.
    """

    layers: tuple[Layer, ...]
    root: Layer
    tensors: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    named: Mapping[str, Layer] = field(default_factory=dict[str, Layer])
    anchor: Layer | None = None

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def layer(self, name: str) -> Layer:
        """The layer that matched the element of this name."""
        return self.named[name]

    @property
    def place(self) -> tuple[str, ...]:
        """Names of the matched layers, anchor first."""
        return tuple(x.name for x in self.layers)

    @property
    def inner(self) -> tuple[Tensor, ...]:
        """Outputs of the matched layers, the root's left out."""
        return tuple(t for x in self.layers if x is not self.root for t in x.outputs)


@dataclass(frozen=True, eq=False)
class Miss:
    """A pattern that fitted in part.

    layers: what fitted, root first. reason, code: what did not. found: the layer in its place;
    tensor: the one between the two. mend: the edit that would make it fit, where one exists.
    """

    layers: tuple[Layer, ...]
    reason: str
    code: str = "other_layer"
    found: Layer | None = None
    tensor: Tensor | None = None
    mend: Remedy | None = None


class Finder(Protocol):
    """Finds a rule's matches at a layer: a compiled pattern, or a search of one's own.

    operators: values of ``Layer.op`` at which it can find any, None for all.
    depth: a change this many layers upstream (less one) may change what it finds.
    size: most layers in one match.
    """

    @property
    def operators(self) -> frozenset[str] | None: ...
    @property
    def depth(self) -> int: ...
    @property
    def size(self) -> int: ...

    def find(self, layer: Layer) -> Iterator[Match]:
        """Every match with this root, in a fixed order."""
        ...

    def nearest_miss(self, layer: Layer) -> Miss | None:
        """Where no match has this root: what came nearest, if it came near."""
        ...


@dataclass(frozen=True, eq=False)
class _Bound:
    """What a partial match has bound so far; extended by copying."""

    elements: Mapping[int, Layer]
    layers: tuple[Layer, ...]
    tensors: Mapping[str, Tensor]
    named: Mapping[str, Layer]
    miss: Miss | None = None


@dataclass(frozen=True, eq=False)
class PatternFinder:
    """A pattern as a Finder."""

    pattern: Element

    @property
    def operators(self) -> frozenset[str] | None:
        return self.pattern.operators

    @property
    def depth(self) -> int:
        return self.pattern.depth

    @property
    def size(self) -> int:
        return self.pattern.size

    def find(self, layer: Layer) -> Iterator[Match]:
        """Every match with this root, the first order of commutative operands first."""
        if not self.pattern.accepts(layer):
            return
        seen: set[tuple[Layer, ...]] = set()
        for bound in _Search(0).layer(self.pattern, layer, _Bound({}, (), {}, {})):
            match = _as_match(bound)
            key = (*match.layers, *match.named.values())
            if key not in seen:
                seen.add(key)
                yield match

    def nearest_miss(self, layer: Layer) -> Miss | None:
        """The first of ``misses``."""
        return next(iter(self.misses(layer)), None)

    def misses(self, layer: Layer) -> tuple[Miss, ...]:
        """Where no match has this root: the ways in which all of it but one part fits.

        At most one for each layer that stands in the wrong place.
        """
        if not self.pattern.accepts(layer):
            return ()
        found: dict[Layer | Tensor | None, Miss] = {}
        for bound in _Search(1).layer(self.pattern, layer, _Bound({}, (), {}, {})):
            if bound.miss is None:
                return ()
            miss = replace(bound.miss, layers=bound.layers)
            found.setdefault(miss.found or miss.tensor, miss)
        return tuple(found.values())


def _as_match(bound: _Bound) -> Match:
    ordered = sorted(bound.layers, key=lambda x: x.place)
    chosen = [bound.named["anchor"]] if "anchor" in bound.named else ordered
    anchor = next((x for x in chosen if _has_anchor(x)), None)
    rest = [x for x in ordered if x is not anchor]
    layers = (anchor, *rest) if anchor is not None else tuple(rest)
    return Match(layers, bound.layers[0], bound.tensors, bound.named, anchor)


def _has_anchor(layer: Layer) -> bool:
    """Whether the layer carries work that a fused layer can be named after."""
    if layer.operator is not None:
        return not layer.operator.pointwise and layer.operator.family != "quantization"
    return layer.fused is not None and layer.fused.anchor is not None


class _Search:
    """One search, which may leave out so many parts of the pattern (0 or 1)."""

    def __init__(self, allowed: int) -> None:
        self.allowed = allowed

    def layer(
        self, element: Element, layer: Layer, bound: _Bound, tensor: Tensor | None = None
    ) -> Iterator[_Bound]:
        if id(element) in bound.elements:
            if bound.elements[id(element)] is layer:
                yield bound
            return
        if layer in bound.layers or (bound.layers and layer.on_host):
            return
        if not element.accepts(layer):
            reason = f"wants {element.described}, found {layer.op} '{layer.name}'"
            if bound.layers and element.size == 1:
                mend = _moved_up(bound.layers[-1], layer, element)
                yield from self._without(
                    bound, Miss((), reason, found=layer, tensor=tensor, mend=mend)
                )
            return
        given = _operands(layer)
        if not element.anywhere and not _arity_fits(element, given):
            return
        extended = _Bound(
            {**bound.elements, id(element): layer},
            (*bound.layers, layer),
            bound.tensors,
            {**bound.named, element.name: layer} if element.name else bound.named,
            bound.miss,
        )
        for operands in _arrangements(element, given):
            yield from self._operands(element.inputs, operands, extended)

    def _operands(
        self,
        patterns: Sequence[Variable | Element],
        operands: Sequence[Tensor | None],
        bound: _Bound,
    ) -> Iterator[_Bound]:
        if not patterns:
            yield bound
            return
        for found in self._tensor(patterns[0], operands[0], bound):
            yield from self._operands(patterns[1:], operands[1:], found)

    def _tensor(
        self, pattern: Variable | Element, tensor: Tensor | None, bound: _Bound
    ) -> Iterator[_Bound]:
        if tensor is None:
            return
        if isinstance(pattern, Element):
            if tensor.producer is not None:
                yield from self.layer(pattern, tensor.producer, bound, tensor)
            return
        if bound.tensors.get(pattern.name, tensor) is not tensor:
            return
        tensors = {**bound.tensors, pattern.name: tensor}
        bound = _Bound(bound.elements, bound.layers, tensors, bound.named, bound.miss)
        known = tensor.value is not None
        if pattern.constant is None or pattern.constant is known:
            yield bound
        elif pattern.constant and tensor.producer is not None:
            reason = f"wants a constant, found '{tensor.name}'"
            made, mend = tensor.producer, store(tensor)
            yield from self._without(bound, Miss((), reason, "not_constant", made, tensor, mend))

    def _without(self, bound: _Bound, miss: Miss) -> Iterator[_Bound]:
        """The search goes on without one part of the pattern, if it still may."""
        if self.allowed and bound.miss is None:
            yield _Bound(bound.elements, bound.layers, bound.tensors, bound.named, miss)


def _moved_up(function: Layer, found: Layer, element: Element) -> Remedy | None:
    """What would bring a function of one element to the layer that the pattern wants before it."""
    layer = found
    for _ in range(MOST_SWAPS):
        first = layer.get_input(0) if layer.operator is not None else None
        if first is None or first.producer is None:
            return None
        layer = first.producer
        if element.accepts(layer):
            return move_up(function, layer)
    return None


def _operands(layer: Layer) -> list[Tensor | None]:
    """The inputs without absent ones at the end."""
    given = list(layer.inputs)
    while given and given[-1] is None:
        given.pop()
    return given


def _arity_fits(element: Element, given: Sequence[Tensor | None]) -> bool:
    wanted = len(element.inputs)
    return len(given) >= wanted if element.rest else len(given) == wanted


def _arrangements(
    element: Element, given: Sequence[Tensor | None]
) -> Iterator[Sequence[Tensor | None]]:
    """The orders in which the operands may meet the element's patterns."""
    wanted = len(element.inputs)
    if element.anywhere:
        yield from permutations(given, wanted) if wanted else iter([()])
        return
    yield given
    if element.commutative and len(given) == 2 and given[0] is not given[1]:
        yield (given[1], given[0])
