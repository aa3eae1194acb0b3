"""One rewrite: the engine's own checks, the new layers built beside, checked, and swapped in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from workbench.body import Array, Body, BodyInput
from workbench.errors import NetworkError
from workbench.network import Layer, NetworkDefinition, Tensor
from workbench.network.graph import close
from workbench.records import Refusal
from workbench.rewrite.check import Checker
from workbench.rewrite.match import Match
from workbench.rewrite.rule import (
    Fuse,
    RewriteRule,
    marked_output,
    not_constant,
    second_consumer,
)


@dataclass(frozen=True, eq=False)
class Edit:
    """What a rewrite did.

    created: new layers. touched: layers whose inputs, or whose inputs' readers, changed.
    upstream: layers whose outputs have lost a reader.
    """

    created: tuple[Layer, ...]
    touched: tuple[Layer, ...]
    upstream: tuple[Layer, ...]
    detail: str


def refusal_of(rule: RewriteRule, match: Match) -> Refusal | None:
    """Why this match must stay as it is: the engine's own checks, then the rule's."""
    return _unsafe(rule, match) or rule.refusal(match)


def apply_match(
    rule: RewriteRule, match: Match, network: NetworkDefinition, check: Checker
) -> Edit | Refusal:
    """Rewrite at a match that ``refusal_of`` let pass. A Refusal leaves the network as it was."""
    if isinstance(rule.replacement, Fuse):
        return _fuse(rule, match, network, check)
    with network.standing_at(match.root):
        return _replace(rule, match, network, check)


def _unsafe(rule: RewriteRule, match: Match) -> Refusal | None:
    for name in rule.constants:
        tensor = match.tensors[name]
        if not tensor.is_constant:
            return not_constant(tensor)
    if rule.shares_inner:
        return None
    group = set(match.layers)
    for tensor in match.inner:
        if tensor.is_network_output:
            return marked_output(tensor)
        others = [u for u in tensor.users if u not in group]
        if others:
            return second_consumer(tensor, others)
    return None


def _fuse(
    rule: RewriteRule, match: Match, network: NetworkDefinition, check: Checker
) -> Edit | Refusal:
    given = _inputs(match.layers)
    try:
        closure = network.closure(match.layers, anchor=match.anchor)
    except NetworkError as e:
        return Refusal(e.problem, place=e.place, code="cycle", layers=match.place)
    refusal = check.fused(rule, closure)
    if refusal is not None:
        return refusal
    layer = network.fuse_closure(closure)
    detail = " + ".join(n for n in layer.operator_names)
    return Edit((layer,), (layer, *_sharers(given)), _producers(given), detail)


def _replace(
    rule: RewriteRule, match: Match, network: NetworkDefinition, check: Checker
) -> Edit | Refusal:
    assert not isinstance(rule.replacement, Fuse)
    draft = _Draft(network)
    try:
        answer = rule.replacement(network, match)
    except NetworkError as e:
        answer = Refusal(
            f"quarantined: its replacement does not fit: {e}",
            remedy="the rule is wrong here: report it; the build goes on without it",
            code="rule_failed",
        )
    if isinstance(answer, Refusal):
        draft.undo()
        return answer
    swaps = {match.root.outputs[0]: answer} if isinstance(answer, Tensor) else dict(answer)
    created = draft.layers()
    refusal = _misfit(swaps, network) or _cyclic(match, swaps)
    if refusal is None and swaps and check.asks(rule):
        refusal = check.replaced(rule, *_before_and_after(match, swaps, created))
    if refusal is not None:
        draft.undo()
        return refusal
    readers = [u for t in swaps for u in t.users]
    return _swap(rule, match, network, swaps, created, draft.constants(), readers)


def _swap(
    rule: RewriteRule,
    match: Match,
    network: NetworkDefinition,
    swaps: Mapping[Tensor, Tensor],
    created: tuple[Layer, ...],
    constants: tuple[Tensor, ...],
    readers: Sequence[Layer],
) -> Edit:
    names = {old: old.name for old in swaps}
    for old, new in swaps.items():
        network.replace_uses(old, new)
    given = _inputs(match.layers)
    gone = _remove_unread(match, network)
    _keep_names(network, gone, created, {n: names[o] for o, n in swaps.items()})
    _keep_origins(rule, network, match, gone, created, swaps, constants)
    for tensor in (*given, *constants):
        network.remove_if_unread(tensor)
    touched = dict.fromkeys((*created, *readers, *_sharers(given)))
    what = ", ".join(f"{x.op} '{x.name}'" for x in created)
    detail = what or ", ".join(f"'{names[o]}' is '{n.name}'" for o, n in swaps.items())
    return Edit(created, tuple(touched), _producers(given), detail or "removed")


class _Draft:
    """What was added to a network since, and how to take it back."""

    def __init__(self, network: NetworkDefinition) -> None:
        self._network = network
        self._layers = network.num_layers
        self._tensors = len(network.tensors)

    def layers(self) -> tuple[Layer, ...]:
        return self._network.latest_layers(self._network.num_layers - self._layers)

    def constants(self) -> tuple[Tensor, ...]:
        count = len(self._network.tensors) - self._tensors
        made = list(islice(reversed(self._network.tensors.values()), count))
        return tuple(t for t in reversed(made) if t.producer is None)

    def undo(self) -> None:
        constants = self.constants()
        for layer in reversed(self.layers()):
            self._network.remove_layer(layer)
        for tensor in constants:
            self._network.remove_if_unread(tensor)


def _misfit(swaps: Mapping[Tensor, Tensor], network: NetworkDefinition) -> Refusal | None:
    for old, new in swaps.items():
        if old.type != new.type:
            return Refusal(
                f"'{old.name}' is {old.type}, what would replace it is {new.type}",
                code="type_mismatch",
            )
        fixed = new.is_network_input or new.is_network_output or new.producer is None
        if old.is_network_output and fixed:
            return Refusal(
                f"'{old.name}' is a network output and would be another name of '{new.name}'",
                remedy=f"unmark '{old.name}', or mark '{new.name}'",
                code="marked_output",
            )
    return None


def _cyclic(match: Match, swaps: Mapping[Tensor, Tensor]) -> Refusal | None:
    """With several replaced tensors: whether one of them feeds an operand of another."""
    if len(swaps) < 2:
        return None
    group, seen = set(match.layers), set[Layer]()
    # What every matched layer reads cannot depend on one of them.
    todo = [t.producer for t in _inputs(match.layers) if not group <= set(t.users)]
    todo = [x for x in todo if x not in group]
    while todo:
        layer = todo.pop()
        if layer is None or layer in seen:
            continue
        seen.add(layer)
        if layer in group:
            return Refusal(f"an operand depends on '{layer.name}' itself", code="cycle")
        todo.extend(t.producer for t in layer.inputs if t is not None)
    return None


def _before_and_after(
    match: Match, swaps: Mapping[Tensor, Tensor], created: tuple[Layer, ...]
) -> tuple[Body, Body, dict[str, Array]]:
    before, given = _body(_needed(swaps, match.layers), tuple(swaps))
    new = tuple(swaps.values())
    after, also = _body(_needed(new, (*match.layers, *created)), new)
    constants = {t.name: t.weight.array for t in (*given, *also) if t.weight is not None}
    return before, after, constants


def _needed(tensors: Iterable[Tensor], among: Sequence[Layer]) -> tuple[Layer, ...]:
    """Those of a few layers that the tensors depend on, producers first."""
    found: dict[Layer, None] = {}
    group = set(among)
    todo = [t.producer for t in tensors]
    while todo:
        layer = todo.pop()
        if layer is not None and layer in group and layer not in found:
            found[layer] = None
            todo.extend(t.producer for t in layer.inputs if t is not None)
    return _in_order(tuple(found))


def _body(
    layers: tuple[Layer, ...], outputs: tuple[Tensor, ...]
) -> tuple[Body, tuple[Tensor, ...]]:
    """``close``, also where an output is none of the layers' but one of their operands."""
    body, operands = close(layers, outputs, None)
    made = {v for n in body.nodes for v in n.outputs} | {i.name for i in body.inputs}
    through = tuple(t for t in dict.fromkeys(outputs) if t.name not in made)
    more = tuple(BodyInput(t.name, t.type, t.is_constant) for t in through)
    return Body((*body.inputs, *more), body.nodes, body.outputs), (*operands, *through)


def _in_order(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """A few layers, producers first."""
    left, order = list(layers), list[Layer]()
    while left:
        waiting = set(left)
        ready = [x for x in left if not any(t and t.producer in waiting for t in x.inputs)]
        order += ready
        waiting.difference_update(ready)
        left = [x for x in left if x in waiting]
    return tuple(order)


def _remove_unread(match: Match, network: NetworkDefinition) -> tuple[Layer, ...]:
    gone: list[Layer] = []
    for layer in reversed(_in_order(match.layers)):
        if not any(t.users or t.is_network_output for t in layer.outputs):
            network.remove_layer(layer)
            gone.append(layer)
    return tuple(reversed(gone))


def _keep_names(
    network: NetworkDefinition,
    gone: Sequence[Layer],
    created: Sequence[Layer],
    names: Mapping[Tensor, str],
) -> None:
    """New layers and tensors take the names of the ones they stand for, now that these are free."""
    free = {x.name for x in gone}
    for layer in created:
        stem = re.sub(r"_\d+$", "", layer.name)
        if stem in free and not network.has_layer(stem):
            network.rename_layer(layer, stem)
    for tensor, name in names.items():
        if tensor.producer in created and name not in network.tensors:
            network.rename_tensor(tensor, name)


def _keep_origins(
    rule: RewriteRule,
    network: NetworkDefinition,
    match: Match,
    gone: Sequence[Layer],
    created: Sequence[Layer],
    swaps: Mapping[Tensor, Tensor],
    constants: Sequence[Tensor],
) -> None:
    """Every model node of a removed layer goes to the new layers, or to what absorbed it."""
    origin = tuple(dict.fromkeys(o for x in gone for o in x.origin))
    for layer in created:
        if not layer.origin and layer.cause is None:
            layer.origin = origin
            if not origin:
                layer.cause = next((x.cause for x in gone if x.cause is not None), None)
    derived = [t.name for t in constants if t.weight is not None and t.weight.recipe is not None]
    if rule.changes_weights and derived:
        swallowed = [o for x in gone if x is not match.anchor for o in x.origin]
    else:
        swallowed = [] if created else list(origin)
    stands = [t.name for t in swaps.values()]
    if derived:
        text = f"weight {derived[0]} ({rule.name})"
    else:
        known = all(t.value is not None for x in gone for t in x.outputs)
        unread = "its value is known at build time" if known else "nothing reads it"
        text = f"tensor {stands[0]} ({rule.name})" if stands else f"{unread} ({rule.name})"
    for node in swallowed:
        network.absorbed[node] = text


def _inputs(layers: Sequence[Layer]) -> tuple[Tensor, ...]:
    return tuple(dict.fromkeys(t for x in layers for t in x.inputs if t is not None))


def _producers(given: Sequence[Tensor]) -> tuple[Layer, ...]:
    return tuple(dict.fromkeys(t.producer for t in given if t.producer is not None))


def _sharers(given: Sequence[Tensor]) -> list[Layer]:
    """Readers of tensors that have lost one; a rule may now find the rest to be few enough."""
    return [u for t in given if len(t.users) <= FEW for u in t.users]


FEW = 8
"""A tensor with more readers than a pattern has layers is no inner tensor of a match."""
