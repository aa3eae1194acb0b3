"""NetworkEdits: changes that leave a network valid, or are refused and change nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from workbench import dimensions
from workbench.body import Body
from workbench.errors import NetworkError
from workbench.network.graph import Cause, Layer, Tensor, close
from workbench.network.ordering import check_convex, producers_first
from workbench.network.store import LayerStore


@dataclass(frozen=True, eq=False)
class Closure:
    """Layers (producers first) as one Body, with the tensors that go in and come out."""

    layers: tuple[Layer, ...]
    body: Body
    operands: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    anchor: Layer | None


class NetworkEdits(LayerStore):
    """Replacing, renaming, removing and fusing."""

    def replace_input(self, layer: Layer, index: int, tensor: Tensor | None) -> None:
        """Feed input ``index`` of a layer from another tensor (None: leave it out)."""
        old = layer.inputs[index]
        if old is tensor:
            return
        if layer.fused is not None:
            raise NetworkError("a fused layer's inputs are fixed", place=layer.name)
        layer.inputs[index] = tensor
        if old is not None and old not in layer.inputs:
            old.users.remove(layer)
        if tensor is not None and layer not in tensor.users:
            tensor.users.append(layer)
        layer.forget()
        self._order = None

    def replace_uses(self, old: Tensor, new: Tensor, *, keep_output: bool = False) -> None:
        """Every reader of ``old`` reads ``new`` instead; an output mark moves along.

        A marked output keeps its public name: ``new`` takes it over, unless ``new`` is itself an
        input, a constant, or an output, or ``keep_output`` says to leave the mark where it is.
        Raises NetworkError if the types differ, or if ``new`` is computed directly from ``old``.
        """
        moves_mark = old.is_network_output and not keep_output
        self._check_replaceable(old, new, moves_mark=moves_mark)
        for user in list(old.users):
            for i, t in enumerate(user.inputs):
                if t is old:
                    user.inputs[i] = new
            old.users.remove(user)
            if user not in new.users:
                new.users.append(user)
            user.forget()
        self._order = None
        if moves_mark:
            public = old.name
            self.outputs[self.outputs.index(old)] = new
            old.is_network_output, new.is_network_output = False, True
            self.rename_tensor(old, self.unique(f"{public}_replaced"))
            self.rename_tensor(new, public)

    def _check_replaceable(self, old: Tensor, new: Tensor, *, moves_mark: bool) -> None:
        if moves_mark and (new.is_network_input or new.is_constant or new.is_network_output):
            raise NetworkError(
                f"output '{old.name}' cannot become another name of '{new.name}'",
                place=self.name,
                remedy="keep an Identity layer between them",
            )
        if old.dtype is not new.dtype or not dimensions.may_equal(old.shape, new.shape):
            raise NetworkError(
                f"'{old.name}' is {old.type}, '{new.name}' is {new.type}",
                place=self.name,
                remedy="insert a Cast or a Reshape",
            )
        if new.producer is not None and new.producer in old.users:
            raise NetworkError(
                f"'{new.name}' is computed from '{old.name}': its layer would read itself",
                place=new.producer.name,
                remedy="replace the readers one by one with replace_input",
            )

    def rename_tensor(self, tensor: Tensor, name: str) -> None:
        """Give a tensor another, unused name."""
        if name in self.tensors:
            raise NetworkError(f"tensor name '{name}' is taken", place=self.name)
        del self.tensors[tensor.name]
        if tensor.producer is not None:
            layer = tensor.producer
            if layer.fused is not None:
                layer.fused = _renamed(layer.fused, tensor.name, name)
            layer.forget()
        for user in tensor.users:
            if user.fused is not None:
                user.fused = _renamed(user.fused, tensor.name, name)
            user.forget()
        tensor.name = name
        self.tensors[name] = tensor

    def rename_layer(self, layer: Layer, name: str) -> None:
        """Give a layer another, unused name."""
        if name in self._layers:
            raise NetworkError(f"layer name '{name}' is taken", place=self.name)
        del self._layers[layer.name]
        layer.name = name
        self._layers[name] = layer
        layer.forget()

    def remove_layer(self, layer: Layer) -> None:
        """Remove a layer whose outputs nobody reads. Raises NetworkError otherwise."""
        for t in layer.outputs:
            if t.users or t.is_network_output:
                who = ", ".join(u.name for u in t.users) or "the caller (it is a network output)"
                raise NetworkError(
                    f"its output '{t.name}' is still read by {who}", place=layer.name
                )
        for t in layer.outputs:
            del self.tensors[t.name]
        self._detach(layer)

    def remove_if_unread(self, tensor: Tensor) -> bool:
        """Drop a constant or known sizes that nobody reads; whether it was dropped."""
        if tensor.users or tensor.is_network_output or tensor.is_network_input or tensor.producer:
            return False
        return self.tensors.pop(tensor.name, None) is not None

    def remove_unused_constants(self) -> list[str]:
        """Drop constants and known sizes that nobody reads; returns their names."""
        dead = [
            t.name
            for t in self.tensors.values()
            if (t.is_constant or (t.producer is None and not t.is_network_input))
            and not t.users
            and not t.is_network_output
        ]
        for name in dead:
            del self.tensors[name]
        return dead

    def closure(self, layers: Iterable[Layer], *, anchor: Layer | None) -> Closure:
        """What ``fuse`` would make of the layers, which stay as they are. Raises as it does."""
        group = dict.fromkeys(layers)
        if not group:
            raise NetworkError("there is nothing to fuse", place=self.name)
        if anchor is not None and anchor not in group:
            raise NetworkError("the anchor is not one of the fused layers", place=anchor.name)
        ordered = producers_first(group)
        check_convex(group, lambda: self.layers)
        outputs = tuple(
            t
            for x in ordered
            for t in x.outputs
            if t.is_network_output or any(u not in group for u in t.users) or not t.users
        )
        body, operands = close(ordered, outputs, anchor)
        return Closure(ordered, body, operands, outputs, anchor)

    def fuse(self, layers: Iterable[Layer], *, anchor: Layer | None, name: str = "") -> Layer:
        """Replace layers by one fused layer whose Body is those layers.

        Outputs are the tensors that are read outside or marked. Keeps the origins. Raises
        NetworkError if the group is not convex (a path leaves it and comes back).
        """
        return self.fuse_closure(self.closure(layers, anchor=anchor), name=name)

    def fuse_closure(self, closure: Closure, *, name: str = "") -> Layer:
        """``fuse`` what ``closure`` has just given."""
        ordered, anchor = closure.layers, closure.anchor
        body, operands, outputs = closure.body, closure.operands, closure.outputs
        group = set(ordered)
        origin = tuple(dict.fromkeys(o for x in ordered for o in x.origin))
        causes = [x.cause for x in ordered if x.cause is not None]
        keep = anchor or ordered[0]
        for x in ordered:
            for t in x.outputs:
                if t not in outputs:
                    del self.tensors[t.name]
            self._detach(x)
        fused = Layer(
            self.unique_layer(name or keep.name),
            None,
            {},
            list(operands),
            list(outputs),
            origin,
            causes[0] if causes and not origin else None,
            body,
            self._place(max(x.place[0] for x in ordered)),
        )
        for t in outputs:
            t.producer = fused
            t.users = [u for u in t.users if u not in group]
        self._layers[fused.name] = fused
        for t in operands:
            if fused not in t.users:
                t.users.append(fused)
        self._order = None
        return fused

    def add_fused(
        self,
        body: Any,
        operands: Sequence[Tensor],
        outputs: Sequence[str],
        *,
        name: str,
        origin: Sequence[str] = (),
        cause: Cause | None = None,
    ) -> Layer:
        """A fused layer from a Body written by hand (a plugin, a plan, a test)."""
        layer = Layer(
            self.unique_layer(name),
            None,
            {},
            list(operands),
            [],
            tuple(origin),
            cause,
            body,
            self._place(),
        )
        made = [
            Tensor(n, body.types[o], producer=layer)
            for n, o in zip(outputs, body.outputs, strict=True)
        ]
        return self._insert(layer, made)


def _renamed(body: Body, old: str, new: str) -> Body:
    """The Body with one value renamed, unless it has another of the new name."""
    values = {i.name for i in body.inputs} | {v for n in body.nodes for v in n.outputs}
    if old not in values or new in values:
        return body

    def name(v: str) -> str:
        return new if v == old else v

    return replace(
        body,
        inputs=tuple(replace(i, name=name(i.name)) for i in body.inputs),
        nodes=tuple(
            replace(
                n,
                inputs=tuple(map(name, n.inputs)),
                outputs=tuple(map(name, n.outputs)),
            )
            for n in body.nodes
        ),
        outputs=tuple(map(name, body.outputs)),
    )
