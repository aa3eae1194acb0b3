"""The ledger of attempts: refusals worth reading, and why two layers are still two."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set

from workbench.network import Layer, NetworkDefinition, Tensor
from workbench.records import Attempt, Refusal, Stage
from workbench.rewrite.match import Miss, PatternFinder
from workbench.rewrite.rule import FUSE, RewriteRule, marked_output


class Succession:
    """Which layer each layer was fused into, read from the attempts, latest first."""

    def __init__(self) -> None:
        self._after: dict[str, str] = {}

    def add(self, attempt: Attempt) -> None:
        """An applied attempt that comes before those added so far."""
        if attempt.applied and len(attempt.created) == 1:
            (created,) = attempt.created
            self._after.update({name: created for name in attempt.place if name != created})

    def final(self, name: str) -> str:
        """The layer that a layer of this name ended in."""
        seen: set[str] = set()
        while name in self._after and name not in seen:
            seen.add(name)
            name = self._after[name]
        return name


def settled(attempts: Sequence[Attempt], fusing: Set[str]) -> tuple[Attempt, ...]:
    """The attempts without refusals that say nothing.

    A rule that fuses (``fusing``: their names) and did not, though its layers all ended in one,
    only came too early; of several rules that fail at one place for one reason, the first says it.
    """
    later = Succession()
    kept: list[Attempt] = []
    for attempt in reversed(attempts):
        later.add(attempt)
        moot = len({later.final(n) for n in attempt.place}) == 1 < len(attempt.place)
        if attempt.applied or attempt.rule not in fusing or not moot:
            kept.append(attempt)
    return tuple(_first_of_a_reason(reversed(kept)))


def _first_of_a_reason(attempts: Iterable[Attempt]) -> Iterator[Attempt]:
    said: set[tuple[tuple[str, ...], Refusal]] = set()
    for attempt in attempts:
        if attempt.refusal is None:
            yield attempt
        elif (attempt.place, attempt.refusal) not in said:
            said.add((attempt.place, attempt.refusal))
            yield attempt


MOST_MISSES = 20
"""Near misses kept of one rule: those with a remedy first, then in the network's order."""


def near_misses(
    candidates: Iterable[tuple[RewriteRule, Layer]], stage: Stage
) -> tuple[Attempt, ...]:
    """Where a rule's pattern fits but for one part: a refused attempt each.

    Two layers in a row that a replacement does not join are no news: of rules that replace,
    misses count from two layers that fit, or with a remedy.
    """
    kept: dict[str, list[Attempt]] = {}
    for rule, layer in candidates:
        for miss in _misses(rule, layer):
            if rule.replacement is FUSE or len(miss.layers) > 1 or miss.mend is not None:
                kept.setdefault(rule.name, []).append(_missed(rule, miss, stage))
    chosen: list[Attempt] = []
    for attempts in kept.values():
        best = sorted(range(len(attempts)), key=lambda i: attempts[i].remedy is None)
        chosen += [attempts[i] for i in sorted(best[:MOST_MISSES])]
    return tuple(_first_of_a_reason(chosen))


def _misses(rule: RewriteRule, layer: Layer) -> tuple[Miss, ...]:
    if isinstance(rule.finder, PatternFinder):
        return rule.finder.misses(layer)
    miss = rule.finder.nearest_miss(layer)
    return (miss,) if miss is not None else ()


def _missed(rule: RewriteRule, miss: Miss, stage: Stage) -> Attempt:
    refusal = Refusal(
        miss.reason,
        remedy=miss.mend.title if miss.mend is not None else "",
        code=miss.code,
        tensors=(miss.tensor.name,) if miss.tensor is not None else (),
        layers=(miss.found.name,) if miss.found is not None else (),
        mend=miss.mend,
    )
    place = tuple(x.name for x in miss.layers)
    return Attempt(rule.name, place, applied=False, refusal=refusal, stage=stage, missing=1)


def why_not(
    network: NetworkDefinition, attempts: Sequence[Attempt], tensor: Tensor
) -> tuple[Refusal, ...]:
    """Why a tensor of the fused network is still written to memory: a reason for each reader."""
    if tensor.producer is None:
        kind = "a constant" if tensor.is_constant else "a network input"
        return (Refusal(f"it is {kind}: no layer computes it", tensor.name, code="no_producer"),)
    stands = Succession()
    for attempt in reversed(attempts):
        stands.add(attempt)
    nodes = {o: x.name for x in network.layers for o in x.origin}
    found: dict[Refusal, None] = {}
    if tensor.is_network_output:
        found[marked_output(tensor)] = None
    for reader in tensor.users:
        pair = {tensor.producer.name, reader.name}
        said = [
            a.refusal
            for a in attempts
            if a.refusal and pair <= {_now(network, nodes, stands.final(n)) for n in a.place}
        ]
        for refusal in said or [_no_rule(tensor.producer, reader)]:
            found[refusal] = None
    return tuple(found)


def _now(network: NetworkDefinition, nodes: dict[str, str], name: str) -> str:
    """The present layer of a past layer's name: itself, or the one that has it as origin."""
    return name if network.has_layer(name) else nodes.get(name, name)


def _no_rule(producer: Layer, reader: Layer) -> Refusal:
    names = f"{producer.op} '{producer.name}' and {reader.op} '{reader.name}'"
    return Refusal(f"no rule joins {names}", remedy="write one: see FUSIONS", code="no_rule")
