"""Siblings: products of one input. A Finder of groups, and what keeps two apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from workbench.fusions.activation import is_unary
from workbench.fusions.swaps import MOVERS
from workbench.network import Layer, Tensor
from workbench.network.remedies import ZeroBias
from workbench.records import Refusal, Remedy
from workbench.rewrite import Match, Miss, not_constant
from workbench.rewrite.twins import same_operand

Traits = Callable[[Layer], Mapping[str, Any]]
"""What siblings must have in common, by name."""


@dataclass(frozen=True)
class Siblings:
    """Finds layers of one operator that read the same tensor first, led by the earliest.

    Layers with equal traits make one match; the leader of other traits is matched with the
    first leader, so that the rule says what keeps them apart.
    """

    operators: frozenset[str]
    traits: Traits
    depth: int = 1
    size: int = 8

    def find(self, layer: Layer) -> Iterator[Match]:
        """The group that this layer leads, if it leads one."""
        source = layer.inputs[0]
        if layer.operator is None or source is None:
            return
        alike = [x for x in source.users if self._is_sibling(x, source)]
        if len(alike) < 2:
            return
        alike.sort(key=lambda x: x.place)
        groups: dict[str, list[Layer]] = {}
        for x in alike:
            groups.setdefault(repr(sorted(self.traits(x).items())), []).append(x)
        leaders = [g[0] for g in groups.values()]
        own = groups[repr(sorted(self.traits(layer).items()))]
        if own[0] is not layer:
            return
        group = own if len(own) > 1 else [leaders[0], layer]
        if len(set(group)) > 1:
            yield Match((*group, *_weight_layers(group)), group[-1])

    def nearest_miss(self, layer: Layer) -> Miss | None:
        """None: a group that differs is a match, which the rule refuses."""
        return None

    def _is_sibling(self, layer: Layer, source: Tensor) -> bool:
        operator = layer.operator
        return (
            operator is not None and operator.name in self.operators and layer.inputs[0] is source
        )


def weight_of(layer: Layer) -> Tensor:
    """The second factor."""
    weight = layer.inputs[1]
    assert weight is not None
    return weight


def dequantizer(layer: Layer) -> Layer | None:
    """The DequantizeLinear of constants that makes the layer's weight, if one does."""
    made = weight_of(layer).producer
    if made is None or made.op != "DequantizeLinear" or made.operator is None:
        return None
    return made if all(t is None or t.is_constant for t in made.inputs) else None


def _weight_layers(group: list[Layer]) -> list[Layer]:
    return list(dict.fromkeys(d for x in group if (d := dequantizer(x)) is not None))


def members(match: Match, operators: frozenset[str]) -> list[Layer]:
    """The siblings of a match, the layers that make their weights left out."""
    return [x for x in match.layers if x.op in operators]


def differences(group: list[Layer], traits: Traits) -> Refusal | None:
    """The first trait in which two of them differ."""
    first, last = group[0], group[-1]
    a, b = traits(first), traits(last)
    for name, value in a.items():
        if b[name] != value:
            return Refusal(
                f"{name}: '{first.name}' has {value}, '{last.name}' has {b[name]}",
                code="siblings_differ",
                layers=(first.name, last.name),
                mend=_zero_biases(group, traits) if name == "bias" else None,
            )
    return None


def _zero_biases(group: list[Layer], traits: Traits) -> Remedy:
    """A bias of zeros for every sibling that has none."""
    bare = [x.name for x in group if not traits(x)["bias"]]
    return Remedy(f"give {', '.join(bare)} a bias of zeros", tuple(map(ZeroBias, bare)))


def weights_refusal(group: list[Layer], axis: int) -> Refusal | None:
    """Why the weights cannot be laid side by side."""
    for x in group:
        made, weight = dequantizer(x), weight_of(x)
        if not weight.is_constant and made is None:
            return not_constant(weight)
        if made is not None and made.attributes["axis"] % len(weight.shape) != axis:
            return Refusal(f"'{weight.name}' is not quantized per output channel", code="axis")
        if len(weight.users) > 1 and made is not None:
            return Refusal(f"'{weight.name}' has several readers", code="second_consumer")
    kinds = {dequantizer(x) is None for x in group}
    if len(kinds) > 1:
        return Refusal("only some of them are quantized", code="siblings_differ")
    return None


def epilogues_refusal(group: list[Layer]) -> Refusal | None:
    """Why one wide layer could not finish them all; each then fuses with what follows it."""
    tails = [_tail(x) for x in group]
    for x, tail in zip(group, tails, strict=True):
        if tail[0] != tails[0][0]:
            return Refusal(
                f"what follows differs: '{group[0].name}' goes on with {_names(tails[0][0])}, "
                f"'{x.name}' with {_names(tail[0])}",
                remedy="each is fused with its own epilogue instead",
                code="different_epilogues",
            )
        if not same_operand(tails[0][1], tail[1]):
            return Refusal(
                f"'{group[0].name}' and '{x.name}' are quantized by different scales afterwards",
                remedy="calibrate their outputs together",
                code="scales_differ",
            )
    return None


def _names(tail: tuple[str, ...]) -> str:
    return " + ".join(tail) or "no epilogue"


def _tail(layer: Layer) -> tuple[tuple[str, ...], Tensor | None]:
    """The epilogue that vertical fusion would give this layer, and the scale that ends it."""
    names: list[str] = []
    tensor = layer.outputs[0]
    while len(tensor.users) == 1 and not tensor.is_network_output:
        user = tensor.users[0]
        if not is_unary(user) and user.op not in ("Add", "Mul"):
            break
        constant = any(t is not None and t.is_constant for t in user.inputs)
        kind = "" if constant or is_unary(user) else " of a residual"
        names.append(f"{user.op}{kind}")
        tensor = user.outputs[0]
    while len(tensor.users) == 1 and tensor.users[0].op in MOVERS:
        tensor = tensor.users[0].outputs[0]
    following = tensor.users[0] if len(tensor.users) == 1 else None
    quantized = following is not None and following.op == "QuantizeLinear"
    return tuple(names), following.inputs[1] if following is not None and quantized else None
