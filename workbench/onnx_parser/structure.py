"""Structure checks: what must hold of the whole graph before any of it is imported."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from workbench.onnx_parser.problems import ErrorCode, ParserErrorRecord, record
from workbench.onnx_parser.source import SourceNode

NAMED = 8
"""Names that one message lists; the others are counted."""


@dataclass
class StructureCheck:
    """Finds every broken rule of names and order.

    sources: names that exist before the first node, with what they are (``input``,
    ``initializer``). problems: what was found.
    """

    sources: Mapping[str, str]
    nodes: Sequence[SourceNode]
    outputs: Sequence[str]
    problems: list[ParserErrorRecord] = field(default_factory=list[ParserErrorRecord])

    def run(self) -> list[ParserErrorRecord]:
        """Every reason, in the order of the nodes."""
        producer = self._producers()
        place = {n.name: i for i, n in enumerate(self.nodes)}
        late: list[tuple[SourceNode, str, SourceNode]] = []
        for i, node in enumerate(self.nodes):
            for value in node.reads:
                if value in self.sources:
                    continue
                maker = producer.get(value)
                if maker is None:
                    self._unknown(node, value, producer)
                elif place[maker.name] >= i:
                    late.append((node, value, maker))
        if late:
            self._order(late, producer)
        self._outputs(producer)
        return self.problems

    def _producers(self) -> dict[str, SourceNode]:
        producer: dict[str, SourceNode] = {}
        for node in self.nodes:
            for value in node.outputs:
                if not value:
                    continue
                first = producer.get(value)
                if first is None and value not in self.sources:
                    producer[value] = node
                    continue
                other = f"{first.operator} '{first.name}'" if first else f"an {self.sources[value]}"
                self.problems.append(
                    record(
                        ErrorCode.INVALID_GRAPH,
                        f"it makes tensor '{value}', which {other} makes too"
                        if first
                        else f"it makes tensor '{value}', which is {other} of the graph",
                        rule="single_assignment",
                        remedy="give each node's output a name of its own",
                        node=node,
                    )
                )
        return producer

    def _unknown(self, node: SourceNode, value: str, producer: Mapping[str, SourceNode]) -> None:
        self.problems.append(
            record(
                ErrorCode.INVALID_GRAPH,
                f"it reads tensor '{value}', which is no input, initializer or node output",
                rule="unknown_tensor",
                remedy=_suggestion(value, (*self.sources, *producer)),
                node=node,
            )
        )

    def _order(
        self,
        late: Sequence[tuple[SourceNode, str, SourceNode]],
        producer: Mapping[str, SourceNode],
    ) -> None:
        cycle = _cycle(self.nodes, producer)
        if cycle:
            self.problems.append(
                record(
                    ErrorCode.INVALID_GRAPH,
                    f"the nodes form a cycle: {_listed([*cycle, cycle[0]])}",
                    rule="cycle",
                    remedy="remove the edge that closes it; ONNX writes repetition as Loop or Scan",
                )
            )
            return
        for node, value, maker in late:
            self.problems.append(
                record(
                    ErrorCode.INVALID_GRAPH,
                    f"it reads tensor '{value}' before {maker.operator} '{maker.name}' makes it",
                    rule="topological_order",
                    remedy="sort the nodes so that producers come first",
                    node=node,
                )
            )

    def _outputs(self, producer: Mapping[str, SourceNode]) -> None:
        if not self.outputs:
            self.problems.append(
                record(
                    ErrorCode.INVALID_GRAPH,
                    "the graph has no output",
                    rule="graph_output",
                    remedy="re-export the model",
                )
            )
        seen: set[str] = set()
        for value in self.outputs:
            if value in seen:
                self.problems.append(
                    record(
                        ErrorCode.INVALID_GRAPH,
                        f"'{value}' is listed twice among the graph's outputs",
                        rule="graph_output",
                        remedy="list it once, or pass the second through Identity",
                    )
                )
            seen.add(value)
            if value not in producer and value not in self.sources:
                self.problems.append(
                    record(
                        ErrorCode.INVALID_GRAPH,
                        f"output '{value}' of the graph is made by no node",
                        rule="unknown_tensor",
                        remedy=_suggestion(value, (*self.sources, *producer)),
                    )
                )


def _cycle(nodes: Sequence[SourceNode], producer: Mapping[str, SourceNode]) -> list[str]:
    """Names along one cycle, in the direction of the data; empty where there is none."""
    before = {
        n.name: list(dict.fromkeys(producer[v].name for v in n.reads if v in producer))
        for n in nodes
    }
    after: dict[str, list[str]] = {n.name: [] for n in nodes}
    waiting = {name: len(makers) for name, makers in before.items()}
    for name, makers in before.items():
        for maker in makers:
            after[maker].append(name)
    ready = [name for name, k in waiting.items() if not k]
    while ready:
        for name in after[ready.pop()]:
            waiting[name] -= 1
            if not waiting[name]:
                ready.append(name)
    stuck = {name for name, k in waiting.items() if k}
    if not stuck:
        return []
    # Each stuck node waits for another one: walking back from any of them runs into the cycle.
    path: dict[str, int] = {}
    name = next(n.name for n in nodes if n.name in stuck)
    while name not in path:
        path[name] = len(path)
        name = next(maker for maker in before[name] if maker in stuck)
    cycle = [n for n, i in path.items() if i >= path[name]][::-1]
    rank = {n.name: i for i, n in enumerate(nodes)}
    first = min(range(len(cycle)), key=lambda i: rank[cycle[i]])
    return cycle[first:] + cycle[:first]


def _listed(names: Sequence[str]) -> str:
    if len(names) <= NAMED:
        return " -> ".join(f"'{n}'" for n in names)
    shown = " -> ".join(f"'{n}'" for n in names[: NAMED - 1])
    return f"{shown} -> ({len(names) - NAMED} more) -> '{names[-1]}'"


def _suggestion(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known)[:5000], n=1, cutoff=0.75)
    if near:
        return f"'{near[0]}' exists: rename one of them, or re-export the model"
    return "re-export the model with all of its weights"
