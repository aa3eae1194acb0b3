"""The ledger of attempts: refusals worth reading, and why two layers are still two."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass

from workbench.errors import NetworkError
from workbench.network import Layer, NetworkDefinition, Tensor
from workbench.records import Attempt, Refusal, Remedy, Stage
from workbench.rewrite.match import Miss, PatternFinder
from workbench.rewrite.rule import RewriteRule, marked_output


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
    candidates: Iterable[tuple[RewriteRule, Layer]], stage: Stage, refused: Iterable[Attempt]
) -> tuple[Attempt, ...]:
    """Where a rule's pattern fits but for one part: a refused attempt each.

    A pattern of two layers that finds one of them is no news, unless a remedy brings the other.
    refused: full matches, which say more of the layers that they share with a miss.
    """
    kept: dict[str, list[Attempt]] = {}
    matched: dict[str, list[set[str]]] = {}
    for place in {a.place for a in refused if a.refusal is not None}:
        for name in place:
            matched.setdefault(name, []).append(set(place))
    for rule, layer in candidates:
        for miss in _misses(rule, layer):
            names = {x.name for x in (*miss.layers, miss.found) if x is not None}
            if len(names) > 1 and any(names <= p for p in matched.get(layer.name, ())):
                continue
            if len(miss.layers) > 1 or miss.mend is not None or miss.code == "not_constant":
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


@dataclass(frozen=True)
class EdgeAnswer:
    """Whether two layers in a row run as one, and what was tried.

    layer: the layer that both ended in, empty while they are apart. attempts: what joined them; or
    what would have, nearest first: full matches before near misses, those with a remedy first.
    """

    producer: str
    reader: str
    layer: str
    attempts: tuple[Attempt, ...]

    @property
    def verdict(self) -> str:
        """``joined``, ``mendable`` (an edit would bring them nearer) or ``apart``."""
        if self.layer:
            return "joined"
        return "mendable" if self.remedies else "apart"

    @property
    def remedies(self) -> tuple[Remedy, ...]:
        """The edits that would bring the two nearer to each other."""
        return tuple(dict.fromkeys(a.remedy for a in self.attempts if a.remedy is not None))


def why_not_fused(
    network: NetworkDefinition, attempts: Sequence[Attempt], producer: str, reader: str
) -> EdgeAnswer:
    """Why two layers, one of which reads the other, are not one layer of the fused network.

    producer, reader: names of layers of this network, of layers before, or of model nodes.
    attempts: the ledger of the build, or of its Fuse stage. Raises NetworkError for a name that is
    nowhere.
    """
    return FusionAnswers(network, attempts).ask(producer, reader)


class FusionAnswers:
    """``why_not_fused`` for many pairs of layers: the ledger is read once."""

    def __init__(self, network: NetworkDefinition, attempts: Sequence[Attempt]) -> None:
        self._network, self._attempts = network, attempts
        self._past = _Past(network, attempts)
        refused = [a for a in attempts if a.refusal is not None]
        self._refused = sorted(refused, key=lambda a: (a.missing, a.remedy is None))
        self._of: dict[str | None, list[int]] = {}
        for index, attempt in enumerate(self._refused):
            for name in self._past.concerned(attempt):
                self._of.setdefault(name, []).append(index)

    def ask(self, producer: str, reader: str) -> EdgeAnswer:
        """As ``why_not_fused``."""
        ends = (self._past.now(producer), self._past.now(reader))
        if ends[0] == ends[1] != "":
            joining = _joining(self._attempts, producer, reader)
            return EdgeAnswer(producer, reader, ends[0], joining)
        both = set(self._of.get(ends[0], ())) & set(self._of.get(ends[1], ()))
        tried = [self._refused[i] for i in sorted(both)] or [_no_attempt(self._network, *ends)]
        return EdgeAnswer(producer, reader, "", tuple(tried))


class _Past:
    """Which present layer the layers and nodes of the past are in."""

    def __init__(self, network: NetworkDefinition, attempts: Sequence[Attempt]) -> None:
        self.network = network
        self._stands = Succession()
        for attempt in reversed(attempts):
            self._stands.add(attempt)
        self._nodes = {o: x.name for x in network.layers for o in x.origin}
        # Casts that cancel leave no layer, and a split one leaves several: neither has one heir.
        self._rewritten = {n for a in attempts if a.applied for n in a.place}

    def now(self, name: str) -> str:
        """The present layer; empty where it went into a weight, or away. Raises NetworkError."""
        found = self._find(name)
        last = self._stands.final(name)
        if found is None and name not in self.network.absorbed and last not in self._rewritten:
            raise NetworkError(f"no layer or node is named '{name}'", place=self.network.name)
        return found or ""

    def concerned(self, attempt: Attempt) -> set[str | None]:
        """The present layers that a refused attempt would have joined, or nearly."""
        near = attempt.refusal.layers if attempt.refusal is not None and attempt.missing else ()
        return {self._find(n) for n in (*attempt.place, *near)}

    def _find(self, name: str) -> str | None:
        last = self._stands.final(name)
        return last if self.network.has_layer(last) else self._nodes.get(last)


def _joining(attempts: Iterable[Attempt], *names: str) -> tuple[Attempt, ...]:
    """The attempt by which layers of these names came together."""
    present = list(names)
    for attempt in attempts:
        if not attempt.applied or len(attempt.created) != 1:
            continue
        inside = [n in attempt.place for n in present]
        if all(inside) and len(set(present)) > 1:
            return (attempt,)
        present = [attempt.created[0] if x else n for n, x in zip(present, inside, strict=True)]
    return ()


def _no_attempt(network: NetworkDefinition, producer: str, reader: str) -> Attempt:
    if producer and reader:
        refusal = _no_rule(network.layer(producer), network.layer(reader))
    else:
        refusal = Refusal("one of them is no layer any more", code="absorbed")
    place = tuple(n for n in (producer, reader) if n)
    return Attempt("no rule", place, applied=False, refusal=refusal, missing=2)


def why_not(
    network: NetworkDefinition, attempts: Sequence[Attempt], tensor: Tensor
) -> tuple[Refusal, ...]:
    """Why a tensor of the fused network is still written to memory: a reason for each reader."""
    if tensor.producer is None:
        kind = "a constant" if tensor.is_constant else "a network input"
        return (Refusal(f"it is {kind}: no layer computes it", tensor.name, code="no_producer"),)
    found: dict[Refusal, None] = {}
    if tensor.is_network_output:
        found[marked_output(tensor)] = None
    for reader in tensor.users:
        answer = why_not_fused(network, attempts, tensor.producer.name, reader.name)
        for attempt in answer.attempts:
            if attempt.refusal is not None:
                found[attempt.refusal] = None
    return tuple(found)


def _no_rule(producer: Layer, reader: Layer) -> Refusal:
    names = f"{producer.op} '{producer.name}' and {reader.op} '{reader.name}'"
    return Refusal(f"no rule joins {names}", remedy="write one: see FUSIONS", code="no_rule")
