"""Sizes that a model names apart and that must be equal, or be numbers, for any run to succeed.

An exporter that is not told which free axes belong together names each on its own. Layers tell
more: a product's inner sizes are one, and an input that a kernel of 3 channels reads has 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain

from workbench import dimensions
from workbench.body import HostType
from workbench.dimensions import Dim, Shape, SymbolicDim
from workbench.network import Layer, NetworkDefinition

Pairs = Iterator[tuple[Dim, Dim]]


def forced_sizes(network: NetworkDefinition) -> dict[str, Dim]:
    """Symbols of the inputs, and what each must be: a number, or a sum of symbols that stay.

    Of two symbols the one that comes first in the inputs stays.
    """
    found: dict[str, Dim] = {}
    order = {name: place for place, name in enumerate(network.symbols)}
    if not order:
        return found
    for layer in network.layers:
        for a, b in _equal(layer):
            gap = dimensions.substitute(a - b, found) if a != b else 0
            if isinstance(gap, SymbolicDim) and (solution := _solved(gap, order)) is not None:
                found = {k: dimensions.substitute(v, solution) for k, v in found.items()}
                found.update(solution)
    return found


def _solved(gap: SymbolicDim, order: Mapping[str, int]) -> dict[str, Dim] | None:
    """The last symbol of ``gap`` = 0, by the others; None where that is not plain.

    Plain: up to a common factor, a sum in which the symbol stands alone and the others make
    a size that is never negative. Symbols of sizes that only the data decides are left alone.
    """
    plain = dimensions.without_common_factor(gap)
    if not set(plain.atoms) <= set(order):
        return None
    for name in sorted(plain.atoms, key=lambda s: -order[s]):
        factor = plain.terms.get((name,), 0)
        size = -factor * (plain - factor * dimensions.symbol(name))
        if abs(factor) == 1 and name not in dimensions.symbols_of(size) and _is_size(size):
            return {name: size}
    return None


def _is_size(size: Dim) -> bool:
    """Whether no term is negative."""
    terms = size.terms.values() if isinstance(size, SymbolicDim) else (size,)
    return all(c >= 0 for c in terms)


def _equal(layer: Layer) -> Pairs:
    """The pairs of sizes that differ in no run that the layer can do."""
    rule = None if layer.operator is None else _RULES.get(layer.operator.name)
    tensors = chain(layer.inputs, layer.outputs)
    if rule is None or any(t is not None and isinstance(t.type, HostType) for t in tensors):
        return iter(())
    return rule(layer)


def _shapes(layer: Layer) -> list[Shape]:
    return [t.shape for t in layer.inputs if t is not None]


def _product(layer: Layer) -> Pairs:
    a, b = _shapes(layer)[:2]
    yield a[-1], b[-2:][0]


def _gemm(layer: Layer) -> Pairs:
    a, b = _shapes(layer)[:2]
    yield a[0 if layer.attributes["transA"] else 1], b[1 if layer.attributes["transB"] else 0]


def _convolution(layer: Layer) -> Pairs:
    x, w = _shapes(layer)[:2]
    yield x[1], w[1] * layer.attributes["group"]


def _transposed_convolution(layer: Layer) -> Pairs:
    x, w = _shapes(layer)[:2]
    yield x[1], w[0]


def _concatenation(layer: Layer) -> Pairs:
    first, *others = _shapes(layer)
    axis = layer.attributes["axis"] % len(first)
    for other in others:
        yield from (pair for k, pair in enumerate(zip(first, other, strict=True)) if k != axis)


def _reshaping(layer: Layer) -> Pairs:
    (x, _), (y,) = _shapes(layer), layer.outputs
    yield dimensions.volume(x), dimensions.volume(y.shape)


_RULES: Mapping[str, Callable[[Layer], Pairs]] = {
    "MatMul": _product,
    "Gemm": _gemm,
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "Concat": _concatenation,
    "Reshape": _reshaping,
}
