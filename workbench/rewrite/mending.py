"""Remedies: the edits that would let a refused rewrite happen, from the tensors and layers at hand.

Each function gives a Remedy, or None where no edit of the network would do.
"""

from __future__ import annotations

from collections.abc import Sequence

from workbench.network import Layer, Tensor
from workbench.network.remedies import (
    ExpandOperand,
    Recompute,
    StoreConstant,
    SwapLayers,
    UnmarkOutput,
    not_commuting,
)
from workbench.network.substitution import computable
from workbench.records import Remedy

MOST_SWAPS = 4
"""Layers that a function may pass on its way to the product that would take it in."""


MOST_NAMED = 4
"""Layers that a reason names one by one."""


def title_of(layer: Layer) -> str:
    """A layer as a reason names it."""
    return f"{layer.op} '{layer.name}'"


def titles(layers: Sequence[Layer]) -> str:
    """A few layers as a reason names them, and how many more there are."""
    more = len(layers) - MOST_NAMED
    named = ", ".join(map(title_of, layers[:MOST_NAMED]))
    return f"{named} and {more} more" if more > 0 else named


def unmark(tensor: Tensor) -> Remedy:
    """The tensor is no output any more."""
    return Remedy(f"unmark '{tensor.name}' as an output", (UnmarkOutput(tensor.name),))


def recompute(tensor: Tensor, readers: Sequence[Layer]) -> Remedy | None:
    """Some readers get a copy of the tensor's producer."""
    maker = tensor.producer
    if maker is None or not all(n.operator.deterministic for n in maker.body.nodes):
        return None
    names = dict.fromkeys(n for r in readers for n in (r.name, *(r.origin if r.is_fused else ())))
    operands = tuple(t.name for t in maker.operands if not t.is_constant)
    return Remedy(
        f"give {titles(readers)} a copy of {title_of(maker)}",
        (Recompute(tensor.name, tuple(names), operands),),
    )


def store(tensor: Tensor) -> Remedy | None:
    """What constants alone compute is computed now."""
    if not computable(tensor):
        return None
    return Remedy(f"compute '{tensor.name}' now and store it", (StoreConstant(tensor.name),))


def expand(reader: Layer, tensor: Tensor, like: Tensor) -> Remedy | None:
    """The reader reads the tensor in the shape of another one."""
    if reader.operator is None or not _widens(tensor, like):
        return None
    index = reader.inputs.index(tensor)
    return Remedy(
        f"expand '{tensor.name}' to the shape of '{like.name}'",
        (ExpandOperand(reader.name, index, like.name),),
    )


def _widens(tensor: Tensor, like: Tensor) -> bool:
    """Whether the tensor broadcasts to the other's shape."""
    offset = len(like.shape) - len(tensor.shape)
    return offset >= 0 and all(d in (1, like.shape[a + offset]) for a, d in enumerate(tensor.shape))


def move_up(function: Layer, wanted: Layer) -> Remedy | None:
    """A function of one element goes before the layers that lie between it and another layer."""
    movers: list[Layer] = []
    given = [t for t in function.inputs if t is not None and t.value is None]
    while len(given) == 1 and len(movers) < MOST_SWAPS:
        (tensor,) = given
        layer = tensor.producer
        if layer is None or tensor.is_network_output or len(tensor.users) > 1:
            return None
        if layer is wanted:
            break
        if not_commuting(layer, function):
            return None
        movers.append(layer)
        given = [t for t in layer.inputs[:1] if t is not None]
    else:
        return None
    if not movers:
        return None
    return Remedy(
        f"move {title_of(function)} before {', '.join(map(title_of, movers))}",
        tuple(SwapLayers(m.name, function.name) for m in movers),
    )
