"""apply_rules and replay: rules driven to a fixpoint over a worklist, every attempt kept."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence

from workbench.errors import NetworkError
from workbench.network import Layer, NetworkDefinition
from workbench.records import Attempt, Refusal, Stage
from workbench.rewrite.check import Checker
from workbench.rewrite.edit import Edit, apply_match, refusal_of
from workbench.rewrite.ledger import near_misses, settled
from workbench.rewrite.match import Match
from workbench.rewrite.rule import FUSE, RewriteRule


def apply_rules(
    rules: Sequence[RewriteRule],
    network: NetworkDefinition,
    *,
    stage: Stage,
    max_rewrites: int | None = None,
    verify: str = "distinct",
) -> tuple[Attempt, ...]:
    """Rewrite the network in place until no rule applies; what was tried, in order.

    An earlier rule goes first everywhere; within a rule, layers go in the network's order.
    verify: ``distinct`` checks each (rule, Body) once and each change of weights by itself,
    ``all`` checks every rewrite, ``none`` none. A rewrite whose result is off is not made, and its
    Attempt says by how much. Raises NetworkError if rules undo each other without end.
    """
    return _Rewriter(rules, network, stage, max_rewrites, Checker(verify)).run()


def replay(
    network: NetworkDefinition, attempts: Iterable[Attempt], rules: Sequence[RewriteRule]
) -> None:
    """Make the applied attempts' rewrites again, in order, by rule name and place.

    On the network that they were made on this gives the same network, names included. Raises
    NetworkError naming the first attempt that does not fit.
    """
    by_name = {r.name: r for r in rules}
    for attempt in attempts:
        if attempt.applied:
            _repeat(network, attempt, by_name)


def _repeat(network: NetworkDefinition, attempt: Attempt, rules: Mapping[str, RewriteRule]) -> None:
    where = f"{attempt.rule} at {', '.join(attempt.place)}"
    rule = rules.get(attempt.rule)
    if rule is None:
        raise NetworkError(f"no rule is named '{attempt.rule}'", place=where)
    reason = "the rule finds no match there"
    layers = [network.layer(n) for n in attempt.place]
    for root in sorted(layers, key=lambda x: x.place, reverse=True):
        for match in rule.finder.find(root):
            if match.place != attempt.place:
                continue
            answer = refusal_of(rule, match) or apply_match(rule, match, network, Checker("none"))
            if isinstance(answer, Edit):
                return
            reason = str(answer)
    raise NetworkError(reason, place=where, remedy="replay on the network it was recorded on")


class _Rewriter:
    """One run of ``apply_rules``."""

    def __init__(
        self,
        rules: Sequence[RewriteRule],
        network: NetworkDefinition,
        stage: Stage,
        max_rewrites: int | None,
        check: Checker,
    ) -> None:
        self.rules, self.network, self.stage, self.check = rules, network, stage, check
        self.max_rewrites = max_rewrites
        self.endless = 100 * network.num_layers + 1000
        self.scopes = [(r.finder.operators, r.finder.depth) for r in rules]
        self.reach = max((depth for _, depth in self.scopes), default=0)
        self.concerned: dict[str, list[tuple[int, int]]] = {}
        self.ledger: dict[tuple[object, ...], Attempt] = {}
        self.applied = 0
        self.heap: list[tuple[int, tuple[int, int], Layer]] = []
        self.queued: set[tuple[int, Layer]] = set()

    def run(self) -> tuple[Attempt, ...]:
        for layer in self.network.layers:
            self._push(layer, 0)
        while self.heap and self.applied != self.max_rewrites:
            index, _, layer = heapq.heappop(self.heap)
            self.queued.discard((index, layer))
            if self._is_here(layer):
                self._visit(self.rules[index], layer)
        fusing = {r.name for r in self.rules if r.replacement is FUSE}
        tried = settled(tuple(self.ledger.values()), fusing)
        return (*tried, *self._near_misses(tried))

    def _is_here(self, layer: Layer) -> bool:
        name = layer.name
        return self.network.has_layer(name) and self.network.layer(name) is layer

    def _near_misses(self, tried: Sequence[Attempt]) -> tuple[Attempt, ...]:
        """What came nearest in the network as it now is."""
        candidates = (
            (self.rules[index], layer)
            for layer in self.network.layers
            if not layer.on_host
            for index, _ in self._concerned(layer.op)
        )
        return near_misses(candidates, self.stage, tried)

    def _concerned(self, op: str) -> list[tuple[int, int]]:
        """The rules that may have their root at such a layer, each with its depth."""
        if op not in self.concerned:
            self.concerned[op] = [
                (index, depth)
                for index, (operators, depth) in enumerate(self.scopes)
                if operators is None or op in operators
            ]
        return self.concerned[op]

    def _push(self, layer: Layer, distance: int) -> None:
        """Queue every rule that may find something at this layer."""
        wanted = [
            index
            for index, depth in self._concerned(layer.op)
            if distance < depth and (index, layer) not in self.queued
        ]
        on_host = bool(wanted) and layer.on_host
        for index in wanted:
            if self.rules[index].host or not on_host:
                self.queued.add((index, layer))
                heapq.heappush(self.heap, (index, layer.place, layer))

    def _visit(self, rule: RewriteRule, layer: Layer) -> None:
        refused: list[tuple[tuple[str, ...], Refusal]] = []
        for match in rule.finder.find(layer):
            if not rule.host and any(x.on_host for x in match.layers):
                continue
            answer = refusal_of(rule, match) or apply_match(rule, match, self.network, self.check)
            if isinstance(answer, Edit):
                # The other ways in which the rule fitted here have become moot.
                for place, _ in refused:
                    self.ledger.pop((rule.name, place), None)
                self._applied(rule, match, answer)
                return
            refused.append((match.place, answer))
        for place, refusal in refused:
            self._refused(rule, place, refusal)

    def _applied(self, rule: RewriteRule, match: Match, edit: Edit) -> None:
        self.applied += 1
        if self.applied > self.endless:
            raise NetworkError(
                f"{self.applied} rewrites and no end", place=rule.name, remedy="rules undo others"
            )
        self.ledger.pop((rule.name, match.place), None)
        self.ledger[(rule.name, match.place, self.applied)] = Attempt(
            rule.name,
            match.place,
            applied=True,
            created=tuple(x.name for x in edit.created),
            stage=self.stage,
            detail=edit.detail,
        )
        self._touch(edit.touched)
        for layer in edit.upstream:
            if self._is_here(layer):
                self._push(layer, 0)

    def _refused(self, rule: RewriteRule, place: tuple[str, ...], refusal: Refusal) -> None:
        self.ledger.pop((rule.name, place), None)
        self.ledger[(rule.name, place)] = Attempt(
            rule.name, place, applied=False, refusal=refusal, stage=self.stage
        )

    def _touch(self, layers: Sequence[Layer]) -> None:
        """Queue the layers, and what lies downstream as far as a pattern reaches."""
        seen: set[Layer] = set()
        front = [x for x in layers if self._is_here(x)]
        for distance in range(self.reach):
            following: list[Layer] = []
            for layer in front:
                if layer not in seen:
                    seen.add(layer)
                    self._push(layer, distance)
                    following += [u for t in layer.outputs for u in t.users]
            front = following
