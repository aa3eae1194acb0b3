"""Transposes moved along, past pointwise layers and products with weights, to other shuffles.

There they cancel, merge, or become the strides of an attention. One that would only move memory
elsewhere stays where it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from workbench.body import SHUFFLES
from workbench.network import Layer, NetworkDefinition, Tensor
from workbench.network.graph import is_literal
from workbench.passes.rule_pass import RulePass
from workbench.passes.shuffles import permutation
from workbench.rewrite import Match, Replaced, RewriteRule


@dataclass(frozen=True)
class Transposes(RulePass):
    """Moves a Transpose behind, or before, layers that work the same on transposed tensors.

    Earlier only where it would come to a shuffle; later only where it would not, and something
    shuffles behind: so that no Transpose comes back.
    """

    name: str = "transposes"

    @property
    def rules(self) -> tuple[RewriteRule, ...]:
        """Later, then earlier."""
        return (TRANSPOSE_LATER, TRANSPOSE_EARLIER)


def _turned_operand(layer: Layer) -> int | None:
    """Which operand carries the tensor, where all others are the same however it is turned.

    Others may be numbers; or, along the last axis alone, constants: then that axis must stay last.
    A product with a matrix of weights works on the last axis, too.
    """
    operator = layer.operator
    if operator is None or layer.on_host or len(layer.outputs) != 1:
        return None
    if operator.name == "MatMul":
        weight = layer.inputs[1]
        return 0 if weight is not None and weight.is_constant and len(weight.shape) == 2 else None
    if not operator.pointwise:
        return None
    rank, carried = len(layer.outputs[0].shape), list[int]()
    for i, t in enumerate(layer.inputs):
        if t is None or is_literal(t, operator, i):
            continue
        if t.is_constant and all(d == 1 for d in t.shape[:-1]) and len(t.shape) <= rank:
            continue
        carried.append(i)
    fits = len(carried) == 1 and layer.inputs[carried[0]] is not None
    x = layer.inputs[carried[0]] if fits else None
    return carried[0] if x is not None and x.shape == layer.outputs[0].shape else None


def _keeps_last(layer: Layer) -> bool:
    """Whether it must find its last axis last."""
    operator = layer.operator
    assert operator is not None
    if operator.name == "MatMul":
        return True
    constants = [t for i, t in enumerate(layer.inputs) if t and not is_literal(t, operator, i)]
    return any(t.is_constant for t in constants)


def _passes(layer: Layer, perm: tuple[int, ...]) -> bool:
    """Whether the layer gives the same, turned, when its operand is turned."""
    if _turned_operand(layer) is None:
        return False
    return not _keeps_last(layer) or perm[-1] == len(perm) - 1


def _perm(layer: Layer) -> tuple[int, ...]:
    return permutation(layer.attributes, len(layer.outputs[0].shape))


def _only_reader(tensor: Tensor) -> Layer | None:
    return tensor.users[0] if len(tensor.users) == 1 and not tensor.is_network_output else None


def _layers_back_to_shuffle(turn: Layer, perm: tuple[int, ...]) -> int | None:
    """How many layers a Transpose would pass to the shuffle before it; None if none is reached."""
    tensor, passed = turn.inputs[0], 0
    while tensor is not None and tensor.producer is not None and tensor.value is None:
        made = tensor.producer
        if made.op in SHUFFLES:
            return passed if made.operator is not None else None
        # A factor is on its way to a product's weights: see ScaleFolding.
        if _only_reader(tensor) is None or not _passes(made, perm) or made.op == "Mul":
            return None
        index = _turned_operand(made)
        assert index is not None
        tensor, passed = made.inputs[index], passed + 1
    return None


# -- later --------------------------------------------------------------------------------
def _leads_to_shuffle(layer: Layer, perm: tuple[int, ...]) -> bool:
    """Whether only layers that a Transpose passes lie between this one's result and a shuffle."""
    following = _only_reader(layer.outputs[0])
    while following is not None and following.op not in SHUFFLES:
        if not _passes(following, perm) or _turned_operand(following) is None:
            return False
        following = _only_reader(following.outputs[0])
    return following is not None and following.operator is not None and not following.on_host


def _goes_later(layer: Layer) -> bool:
    index = _turned_operand(layer)
    x = layer.inputs[index] if index is not None else None
    made = x.producer if x is not None else None
    if made is None or made.op != "Transpose" or made.operator is None:
        return False
    perm = _perm(made)
    back = _layers_back_to_shuffle(made, perm) is not None
    return not back and _passes(layer, perm) and _leads_to_shuffle(layer, perm)


def _later(network: NetworkDefinition, match: Match) -> Replaced:
    root, turn = match.root, match.layer("turn")
    return _swapped(network, turn, root, turn.inputs[0])


def _swapped(
    network: NetworkDefinition, turn: Layer, layer: Layer, source: Tensor | None
) -> Tensor:
    """The layer on what the Transpose read, then the Transpose."""
    assert layer.operator is not None and turn.operator is not None
    inputs = [source if t is turn.outputs[0] else t for t in layer.inputs]
    straight = network.add_layer(
        layer.operator, inputs, layer.attributes, name=layer.name, origin=layer.origin
    )
    return network.add_layer(
        turn.operator, straight.outputs, turn.attributes, name=turn.name, origin=turn.origin
    ).outputs[0]


TRANSPOSE_LATER = RewriteRule(
    "transpose_later",
    lambda op: op.layer(
        _goes_later,
        op.Transpose(...).called("turn"),
        described="a layer between a Transpose and a shuffle",
    ),
    _later,
    about="A Transpose moves on to the shuffle that follows it, and merges with it.",
)


# -- earlier ------------------------------------------------------------------------------
def _goes_earlier(layer: Layer) -> bool:
    """A Transpose of layers that it passes, up to a shuffle."""
    if layer.operator is None or layer.op != "Transpose":
        return False
    return bool(_layers_back_to_shuffle(layer, _perm(layer)))


def _earlier(network: NetworkDefinition, match: Match) -> Replaced:
    turn, layer = match.root, match.layer("layer")
    index = _turned_operand(layer)
    assert index is not None and turn.operator is not None and layer.operator is not None
    turned = network.add_layer(
        turn.operator, [layer.inputs[index]], turn.attributes, name=turn.name, origin=turn.origin
    )
    inputs = list(layer.inputs)
    inputs[index] = turned.outputs[0]
    return network.add_layer(
        layer.operator, inputs, layer.attributes, name=layer.name, origin=layer.origin
    ).outputs[0]


TRANSPOSE_EARLIER = RewriteRule(
    "transpose_earlier",
    lambda op: op.layer(
        _goes_earlier,
        op.layer(
            lambda x: _turned_operand(x) is not None, described="a layer that it passes"
        ).called("layer"),
        described="a Transpose that leads back to a shuffle",
        operators={"Transpose"},
    ),
    _earlier,
    about="A Transpose moves back to the shuffle before it, and merges with it.",
)
