"""Channel groups: tensors whose channels can be scaled together without changing the function.

Dividing channel c of a tensor by s > 0 and multiplying the weights that read it by s changes
nothing in between as long as every layer there keeps a factor per channel, as a ReLU does:
relu(x / s) = relu(x) / s. A group begins where weights make the tensors (its sources) and ends
where weights read them (its sinks); residual additions and concatenations join branches into one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from workbench.body import RESHAPES, SHUFFLES
from workbench.datatypes import DataType
from workbench.network import Layer, NetworkDefinition, Tensor
from workbench.records import Refusal

KEEPERS = frozenset(
    "Relu LeakyRelu Abs Neg Identity MaxPool AveragePool GlobalAveragePool GlobalMaxPool".split()
)
"""f(s·x) = s·f(x) for s > 0, channel by channel, on the same axis."""
REDUCTIONS = frozenset({"ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceL2"})
JOINS = frozenset({"Add", "Sub", "Sum", "Max", "Min"})
"""f(s·x, s·y) = s·f(x, y)."""
PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})


@dataclass(frozen=True)
class Place:
    """Where a tensor's channels lie: on ``axis``, each ``repeat`` times, from ``offset`` on.

    repeat: above 1 behind a Flatten of [n, channels, h, w]. offset: in the group's channels; not
    0 for what a Concat joins.
    """

    axis: int
    width: int
    repeat: int = 1
    offset: int = 0


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """The tensors of a group by name, and the layers whose constants take the factors.

    sources: layers that make a tensor from weights. sinks: layers that read one with weights.
    offsets: additions of a constant in between. keepers: the other layers in between.
    refusal: why the group cannot be scaled, or None.
    """

    channels: int
    places: dict[str, Place]
    sources: tuple[Layer, ...]
    sinks: tuple[Layer, ...]
    offsets: tuple[Layer, ...]
    keepers: tuple[Layer, ...]
    refusal: Refusal | None = None

    @property
    def label(self) -> tuple[str, ...]:
        """Names of the sources, then of the sinks."""
        return tuple(dict.fromkeys(x.name for x in (*self.sources, *self.sinks)))

    def of(self, vector: Any, tensor: Tensor) -> Any:
        """The part of a vector over the group's channels that is a tensor's, repeats included."""
        place = self.places[tensor.name]
        return np.repeat(vector[place.offset : place.offset + place.width], place.repeat)


def channel_groups(network: NetworkDefinition) -> tuple[ChannelGroup, ...]:
    """Every group that begins at weights, those included that cannot be scaled."""
    groups: list[ChannelGroup] = []
    seen: set[str] = set()
    for layer in network.layers:
        axis = source_axis(layer)
        if axis is None or layer.outputs[0].name in seen:
            continue
        group = _Growth(layer.outputs[0], axis).group()
        seen.update(group.places)
        if group.sinks or group.refusal is not None:
            groups.append(group)
    return tuple(groups)


# -- layers with weights ------------------------------------------------------------------
def source_axis(layer: Layer) -> int | None:
    """The output axis whose channels the layer's own constants scale, or None."""
    if layer.operator is None or layer.outputs[0].dtype is not DataType.FLOAT:
        return None
    rest = layer.inputs[1:]
    if not rest or any(t is not None and not t.is_constant for t in rest):
        return None
    rank, weight = len(layer.outputs[0].shape), rest[0]
    assert weight is not None
    match layer.op:
        case "Conv":
            return 1
        case "Gemm":
            return 1
        case "MatMul" if len(weight.shape) == 2:
            return rank - 1
        case "LayerNormalization" | "RMSNormalization" if len(weight.shape) == 1:
            return rank - 1
        case _:
            return None


def weight_axis(layer: Layer, *, reads: bool) -> int:
    """The axis of a product's weight along its input channels (``reads``) or its outputs."""
    weight = layer.inputs[1]
    assert weight is not None
    match layer.op:
        case "Conv":
            return 1 if reads and not is_depthwise(layer) else 0
        case "Gemm":
            return 1 if reads == bool(layer.attributes["transB"]) else 0
        case "MatMul":
            return 0 if reads else 1
        case _:
            return 0


def is_depthwise(layer: Layer) -> bool:
    """Whether each output channel of a convolution reads the one input channel of its number."""
    weight = layer.inputs[1]
    group = layer.attributes["group"] if layer.op == "Conv" else 1
    return weight is not None and group > 1 and weight.shape[:2] == (group, 1)


def _sink_refusal(layer: Layer, place: Place) -> Refusal | None:
    """Why the layer's weight cannot take factors of its first input's channels, or None."""
    weight = layer.inputs[1]
    assert weight is not None
    where = f"{layer.op} '{layer.name}'"
    if not weight.is_constant or weight.dtype is not DataType.FLOAT:
        return Refusal(
            f"its weight '{weight.name}' is no FP32 constant", where, code="not_constant"
        )
    rank = len(layer.inputs[0].shape) if layer.inputs[0] else 0
    wanted = 1 if layer.op == "Conv" else rank - 1
    if place.axis != wanted or (layer.op == "MatMul" and len(weight.shape) != 2):
        return Refusal("it does not sum over these channels", where, code="other_axis")
    if layer.op == "Gemm" and layer.attributes["transA"]:
        return Refusal("it transposes its input", where, code="other_axis")
    if layer.op == "Conv" and layer.attributes["group"] > 1 and not is_depthwise(layer):
        return Refusal("it is grouped and not depthwise", where, code="grouped")
    return None


# -- growing ------------------------------------------------------------------------------
@dataclass(eq=False)
class _Growth:
    """Follows a tensor's channels both ways until weights are reached everywhere."""

    start: Tensor
    axis: int
    places: dict[str, Place] = field(default_factory=dict[str, Place])
    layers: dict[str, dict[Layer, None]] = field(default_factory=dict[str, dict[Layer, None]])
    refusal: Refusal | None = None

    def group(self) -> ChannelGroup:
        size = self.start.shape[self.axis]
        todo = [(self.start, Place(self.axis, size if isinstance(size, int) else 0))]
        while todo:
            tensor, place = todo.pop()
            known = self.places.get(tensor.name)
            if known is None:
                self.places[tensor.name] = place
                todo.extend(self._around(tensor, place))
            elif known != place:
                self._refuse(f"'{tensor.name}' would need two factors a channel", "two_factors")
        first = min(p.offset for p in self.places.values())
        last = max(p.offset + p.width for p in self.places.values())
        places = {
            n: Place(p.axis, p.width, p.repeat, p.offset - first) for n, p in self.places.items()
        }
        found = {k: tuple(v) for k, v in self.layers.items()}
        return ChannelGroup(
            last - first,
            places,
            *(found.get(k, ()) for k in ("sources", "sinks", "offsets", "keepers")),
            refusal=self.refusal,
        )

    def _note(self, kind: str, layer: Layer) -> None:
        self.layers.setdefault(kind, {})[layer] = None

    def _refuse(self, reason: str, code: str, place: str = "") -> None:
        self.refusal = self.refusal or Refusal(reason, place, code=code)

    def _around(self, tensor: Tensor, place: Place) -> Iterator[tuple[Tensor, Place]]:
        size = tensor.shape[place.axis]
        if size != place.width * place.repeat or not place.width:
            self._refuse(f"'{tensor.name}' has {size} channels, known at run time", "dynamic")
            return
        if tensor.is_network_output:
            self._refuse(f"'{tensor.name}' is a network output", "marked_output")
        yield from self._above(tensor, place)
        for user in tensor.users:
            if user.op in PRODUCTS and user.inputs[0] is tensor and user.inputs[1] is not tensor:
                self._note("sinks", user)
                why = _sink_refusal(user, place)
                self.refusal = self.refusal or why
            else:
                yield from self._through(user)

    def _above(self, tensor: Tensor, place: Place) -> Iterator[tuple[Tensor, Place]]:
        maker = tensor.producer
        if maker is None:
            what = "a constant" if tensor.is_constant else "a network input"
            self._refuse(f"'{tensor.name}' is {what}", "no_weights_before")
        elif source_axis(maker) == place.axis and place.repeat == 1:
            self._note("sources", maker)
        else:
            yield from self._through(maker)

    def _through(self, layer: Layer) -> Iterator[tuple[Tensor, Place]]:
        """Every tensor of a layer that keeps the factors, from the one whose place is known."""
        inputs = [t for t in layer.inputs if t is not None]
        data = [t for t in inputs if not t.is_constant and t.value is None]
        known = next((t for t in (*data, *layer.outputs) if t.name in self.places), None)
        where = f"{layer.op} '{layer.name}'"
        assert known is not None
        if layer.operator is None or not data or len(layer.outputs) != 1:
            self._refuse("it is no layer that keeps a factor per channel", "not_a_keeper", where)
            return
        place, out = self.places[known.name], layer.outputs[0]
        kind, reason = _kept(layer, data, known, place)
        if reason:
            self._refuse(reason, "not_a_keeper", where)
            return
        self._note(kind, layer)
        if layer.op == "Concat":
            yield from _concatenated(layer, known, place)
            return
        for t in data:
            target = _moved(layer, t, out, place, known_is_output=known is out)
            if target is None:
                self._refuse("it does not keep its channels apart", "not_a_keeper", where)
                return
            inside, outside = target
            yield t, inside
            yield out, outside


def _kept(layer: Layer, data: list[Tensor], known: Tensor, place: Place) -> tuple[str, str]:
    """(``keepers`` or ``offsets``, why the layer does not keep factors or an empty text)."""
    op, constants = layer.op, [t for t in layer.inputs if t is not None and t not in data]
    if op in KEEPERS | REDUCTIONS | SHUFFLES:
        return "keepers", ""
    if op == "Concat":
        same = layer.attributes["axis"] % len(known.shape) == place.axis
        plain = place.repeat == 1 and len(data) == len(layer.inputs)
        return "keepers", "" if same and plain else "it joins on another axis"
    if op in JOINS and not constants:
        alike = all(len(t.shape) == len(layer.outputs[0].shape) for t in data)
        return "keepers", "" if alike else "its operands have different ranks"
    rank = len(layer.outputs[0].shape)
    fits = len(data) == 1 and len(data[0].shape) == rank
    if op in ("Add", "Sub") and fits and place.repeat == 1:
        return "offsets", ""
    if (op == "Mul" and fits) or (op == "Div" and fits and layer.inputs[0] is data[0]):
        return "keepers", ""
    if op == "PRelu" and layer.inputs[0] is data[0] and fits:
        return "keepers", ""
    return "", "it does not keep a factor per channel"


def _concatenated(layer: Layer, known: Tensor, place: Place) -> Iterator[tuple[Tensor, Place]]:
    tensors = [t for t in layer.inputs if t is not None]
    sizes = [t.shape[place.axis] for t in tensors]
    widths = [d if isinstance(d, int) else 0 for d in sizes]
    starts = [sum(widths[:i]) for i in range(len(tensors))]
    base = place.offset
    if known is not layer.outputs[0]:
        base -= starts[tensors.index(known)]
    yield layer.outputs[0], Place(place.axis, sum(widths), 1, base)
    for t, width, start in zip(tensors, widths, starts, strict=True):
        yield t, Place(place.axis, width, 1, base + start)


def _moved(
    layer: Layer, data: Tensor, out: Tensor, place: Place, *, known_is_output: bool
) -> tuple[Place, Place] | None:
    """(place in the input, place in the output), or None where channels mix."""
    for axis in range(len(data.shape)) if known_is_output else (place.axis,):
        found = _forward(layer, data, out, axis)
        if found is None:
            continue
        after, times = found
        if not known_is_output:
            return place, Place(after, place.width, place.repeat * times, place.offset)
        if after == place.axis and place.repeat % times == 0:
            return Place(axis, place.width, place.repeat // times, place.offset), place
    return None


def _forward(layer: Layer, data: Tensor, out: Tensor, axis: int) -> tuple[int, int] | None:
    """(output axis, times each channel is repeated there) of an input axis, or None."""
    rank = len(data.shape)
    if layer.op == "Transpose":
        order = layer.attributes["perm"] or tuple(reversed(range(rank)))
        return list(order).index(axis), 1
    if layer.op in REDUCTIONS:
        return _reduced(layer, rank, axis)
    if layer.op in RESHAPES:
        return _reshaped(data, out, axis)
    if len(out.shape) != rank or out.shape[axis] != data.shape[axis]:
        return None
    pooled = layer.op.endswith("Pool")
    return None if pooled and axis != 1 else (axis, 1)


def _reduced(layer: Layer, rank: int, axis: int) -> tuple[int, int] | None:
    given = layer.inputs[1] if len(layer.inputs) > 1 else None
    if given is None or given.value is None:
        return None
    axes = {int(a) % rank for a in np.asarray(given.value).reshape(-1)}
    if axis in axes or not axes:
        return None
    return (axis if layer.attributes["keepdims"] else axis - sum(a < axis for a in axes)), 1


def _reshaped(data: Tensor, out: Tensor, axis: int) -> tuple[int, int] | None:
    """Channels stay together if what lies before them keeps its size, or what lies behind does."""
    before, after = data.shape[:axis], data.shape[axis:]
    if all(isinstance(d, int) for d in (*after, *out.shape[axis:])) and before == out.shape[:axis]:
        if len(out.shape) <= axis:
            return None
        behind, size = after[1:], out.shape[axis]
        times = size // after[0] if after[0] else 0
        if size == after[0] * times and times in (1, int(np.prod(behind, dtype=np.int64))):
            return axis, times
        return None
    last = len(data.shape) - 1
    if axis == last and isinstance(data.shape[-1], int) and data.shape[-1] == out.shape[-1]:
        return len(out.shape) - 1, 1
    return None
