"""LayerStore: layers and tensors by name, and the links between them."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from itertools import islice

from workbench import dimensions
from workbench.body import HostType
from workbench.errors import NetworkError
from workbench.network.graph import Layer, Tensor
from workbench.network.ordering import topological_order


class LayerStore:
    """What a network holds. Reading is public; adding and unlinking are its subclasses' tools."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.tensors: dict[str, Tensor] = {}
        self._layers: dict[str, Layer] = {}
        self._order: list[Layer] | None = None
        self._inserted = 0
        self._standing_at: int | None = None
        self.model_nodes: tuple[str, ...] = ()
        self.absorbed: dict[str, str] = {}
        self.warnings: tuple[str, ...] = ()

    # -- reading --------------------------------------------------------------------------
    @property
    def layers(self) -> list[Layer]:
        """Every layer, producers first, otherwise in the order of insertion."""
        if self._order is None:
            self._order = topological_order(self._layers, self.name)
        return list(self._order)

    def layer(self, name: str) -> Layer:
        """The layer of this name. Raises NetworkError."""
        try:
            return self._layers[name]
        except KeyError:
            raise NetworkError(f"no layer is named '{name}'", place=self.name) from None

    def latest_layers(self, count: int) -> tuple[Layer, ...]:
        """The ``count`` layers that were added or renamed last, oldest first."""
        return tuple(islice(reversed(self._layers.values()), count))[::-1]

    def has_layer(self, name: str) -> bool:
        return name in self._layers

    def tensor(self, name: str) -> Tensor:
        """The tensor of this name. Raises NetworkError."""
        try:
            return self.tensors[name]
        except KeyError:
            raise NetworkError(f"no tensor is named '{name}'", place=self.name) from None

    @property
    def num_layers(self) -> int:
        return len(self._layers)

    @property
    def symbols(self) -> tuple[str, ...]:
        """Size symbols of the inputs; the others are known later, from the data."""
        ranked = (t for t in self.inputs if not isinstance(t.type, HostType))
        names = (s for t in ranked for d in t.shape for s in sorted(dimensions.symbols_of(d)))
        return tuple(dict.fromkeys(names))

    def unique(self, name: str) -> str:
        """``name``, or ``name_2``, ``name_3``... while it is taken by a tensor."""
        return _unused(name, self.tensors)

    def unique_layer(self, name: str) -> str:
        """As ``unique``, among layers."""
        return _unused(name, self._layers)

    @contextmanager
    def standing_at(self, layer: Layer) -> Generator[None]:
        """Layers added meanwhile take ``layer``'s position in ``layers``, not the end."""
        before, self._standing_at = self._standing_at, layer.place[0]
        try:
            yield
        finally:
            self._standing_at = before

    # -- inner ----------------------------------------------------------------------------
    def _new_tensor(self, tensor: Tensor) -> Tensor:
        if not tensor.name or tensor.name in self.tensors:
            raise NetworkError(f"tensor name '{tensor.name}' is empty or taken", place=self.name)
        self.tensors[tensor.name] = tensor
        return tensor

    def _place(self, position: int | None = None) -> tuple[int, int]:
        self._inserted += 1
        if position is None:
            position = self._standing_at
        return (self._inserted if position is None else position, self._inserted)

    def _insert(self, layer: Layer, made: list[Tensor]) -> Layer:
        names = set[str]()
        for t in made:
            if not t.name or t.name in self.tensors or t.name in names:
                raise NetworkError(f"tensor name '{t.name}' is empty or taken", place=layer.name)
            names.add(t.name)
        for t in made:
            self._new_tensor(t)
        layer.outputs = made
        self._layers[layer.name] = layer
        for t in layer.inputs:
            # A new layer is the last user of what it reads: no need to search them all.
            if t is not None and (not t.users or t.users[-1] is not layer):
                t.users.append(layer)
        self._order = None
        return layer

    def _detach(self, layer: Layer) -> None:
        for t in layer.inputs:
            if t is not None and layer in t.users:
                t.users.remove(layer)
        del self._layers[layer.name]
        self._order = None


def _unused(name: str, taken: Mapping[str, object]) -> str:
    if name not in taken:
        return name
    k = 2
    while f"{name}_{k}" in taken:
        k += 1
    return f"{name}_{k}"
