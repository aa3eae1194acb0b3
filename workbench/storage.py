"""Which tensors share memory: reshapes, splits and concatenations that need no copy.

A reshape's output is its input's memory. A Split along the outermost axis gives parts of it; a
Concat along the outermost axis is the memory that its inputs were written into. Which axis is the
outermost depends on the layout: one image's whole blocks of 16 channels lie one after another.
Tensors that share memory form a block: a root, and members at offsets in bytes within it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.body import SAME_ORDER
from workbench.devices import ALIGNMENT
from workbench.dimensions import floordiv, substitute, symbols_of
from workbench.formats import LINEAR, Format
from workbench.network import Layer, NetworkDefinition, Tensor

VIEWABLE = SAME_ORDER | {"Concat", "Split"}
"""Operators that may need no copy."""


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: ``offset`` bytes into the memory of ``root``."""

    root: str
    offset: Any = 0


class Storage:
    """Shared memory of a network's tensors in one layout, built layer by layer.

    pinned: dynamic sizes that are always the same, by their symbols.
    """

    def __init__(
        self,
        network: NetworkDefinition,
        layout: Format = LINEAR,
        pinned: Mapping[str, int] | None = None,
    ) -> None:
        self.layout, self._pinned = layout, pinned or {}
        self._known = set(network.symbols)
        self._places: dict[str, Place] = {}
        self._members: dict[str, list[str]] = {}
        self._bytes: dict[str, Any] = {}
        self._public: dict[str, bool] = {}

    def place(self, name: str) -> Place:
        """Where a tensor lies; in memory of its own unless a view said otherwise."""
        return self._places.get(name, Place(name))

    def why_no_view(self, layer: Layer) -> str:
        """Make the layer's outputs views and return nothing, or the reason why they can't be."""
        if layer.operator is None or layer.on_host:
            return "it computes"
        tensors = [t for t in (*layer.inputs[:1], *layer.outputs) if t is not None]
        if layer.op == "Concat":
            tensors = [t for t in (*layer.inputs, *layer.outputs) if t is not None]
        if any(t.is_constant for t in tensors):
            return "it reads a stored constant"
        if any(not symbols_of(d) <= self._known for t in tensors for d in t.shape):
            return "only the data decides its size"
        if not all(self.layout.holds(t.dtype, t.shape) for t in tensors):
            return f"no layout of its tensors is {self.layout}"
        for t in tensors:
            self._add(t)
        if layer.op in SAME_ORDER:
            return self._reshape(tensors[0], layer.outputs[0])
        if layer.op == "Split":
            return self._split(tensors[0], layer)
        if layer.op == "Concat":
            return self._concat(tensors[:-1], layer)
        return "it computes"

    # -- inner ----------------------------------------------------------------------------
    def _add(self, tensor: Tensor) -> None:
        name = tensor.name
        if name not in self._places:
            self._places[name] = Place(name)
            self._members[name] = [name]
            self._bytes[name] = self._nbytes(tensor)
            public = tensor.is_network_input or tensor.is_network_output
            # The caller's memory is linear; another layout is a copy, which is the engine's.
            self._public[name] = public and self.layout == LINEAR

    def _nbytes(self, tensor: Tensor) -> Any:
        return self.layout.volume(self._shape(tensor)) * tensor.dtype.itemsize

    def _shape(self, tensor: Tensor) -> tuple[Any, ...]:
        return tuple(substitute(d, self._pinned) for d in tensor.shape)

    def _scattered(self, whole: Tensor, parts: Sequence[Tensor], axis: int, which: str) -> str:
        """Why the parts along an axis are no whole pieces of memory, or nothing."""
        if any(d != 1 for d in self._outside(whole, axis)):
            return f"its parts are not contiguous: an axis lies outside the {which} one"
        block = self.layout.block if axis == 1 else 0
        if block and any(not _divides(block, self._shape(t)[1]) for t in parts):
            return f"a part does not fill its blocks of {block} channels"
        return ""

    def _outside(self, tensor: Tensor, axis: int) -> tuple[Any, ...]:
        """The stored sizes outside an axis."""
        shape = self._shape(tensor)
        if axis == 0 or self.layout == LINEAR:
            return shape[:axis]
        if self.layout.channels_last:
            return (shape[0], *(shape[2:] if axis == 1 else shape[2:axis]))
        return self.layout.physical_shape(shape)[:axis]

    def _reshape(self, source: Tensor, target: Tensor) -> str:
        if self.layout != LINEAR:
            return "another shape's layout is another one"
        at = self._places[source.name]
        if not self._public[target.name]:
            self._move(target.name, at.root, at.offset)
            return ""
        if self._public[at.root]:
            return "both ends belong to the caller"
        if at.offset or self._bytes[at.root] != self._bytes[target.name]:
            return "the caller's memory would hold only a part"
        self._move(at.root, target.name, 0)
        return ""

    def _split(self, source: Tensor, layer: Layer) -> str:
        axis = layer.attributes["axis"] % len(source.shape)
        if reason := self._scattered(source, layer.outputs, axis, "split"):
            return reason
        if any(self._public[t.name] for t in layer.outputs):
            return "a part belongs to the caller"
        at = self._places[source.name]
        offsets = _running(at.offset, (self._nbytes(t) for t in layer.outputs))
        if any(not _divides(ALIGNMENT, o) for o in offsets):
            return f"a part would not begin at a multiple of {ALIGNMENT} bytes"
        for t, offset in zip(layer.outputs, offsets, strict=True):
            self._move(t.name, at.root, offset)
        return ""

    def _concat(self, sources: list[Tensor], layer: Layer) -> str:
        target = layer.outputs[0]
        axis = layer.attributes["axis"] % len(target.shape)
        if reason := self._scattered(target, sources, axis, "joined"):
            return reason
        places = [self._places[t.name] for t in sources]
        roots = [p.root for p in places]
        if len(set(roots)) < len(roots):
            return "two operands share memory already"
        for t, p in zip(sources, places, strict=True):
            if self._public[p.root]:
                return f"'{t.name}' lies in the caller's memory"
            if p.offset or self._bytes[p.root] != self._nbytes(t):
                return f"'{t.name}' is part of another tensor"
        offsets = _running(0, (self._nbytes(t) for t in sources))
        if any(not _divides(ALIGNMENT, o) for o in offsets):
            return f"a part would not begin at a multiple of {ALIGNMENT} bytes"
        for root, offset in zip(roots, offsets, strict=True):
            self._move(root, target.name, offset)
        return ""

    def _move(self, root: str, into: str, offset: Any) -> None:
        """A whole block becomes part of another one's."""
        for name in self._members.pop(root):
            self._places[name] = Place(into, self._places[name].offset + offset)
            self._members[into].append(name)


def no_views(
    network: NetworkDefinition, layout: Format, pinned: Mapping[str, int]
) -> dict[str, str]:
    """By layer: why it needs a kernel in a layout; empty where it needs none."""
    storage = Storage(network, layout, pinned)
    return {x.name: storage.why_no_view(x) for x in network.layers}


def _running(start: Any, sizes: Iterable[Any]) -> list[Any]:
    """Where each of several parts begins."""
    found: list[Any] = []
    for size in sizes:
        found.append(start)
        start = start + size
    return found


def _divides(unit: int, size: Any) -> bool:
    """Whether a size or an offset is a multiple, whatever its symbols are."""
    return floordiv(size, unit) * unit == size
