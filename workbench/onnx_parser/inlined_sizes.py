"""InlinedSizes: how many nodes the calls of model-local functions become, before any is copied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from onnx import FunctionProto, NodeProto

from workbench.onnx_parser.limits import MOST_INLINED

FunctionKey = tuple[str, str, str]
"""Domain, name, overload."""


class InlinedSizes:
    """Counts each function once: functions that call functions can grow exponentially."""

    def __init__(self, functions: Mapping[FunctionKey, FunctionProto]) -> None:
        self._functions = functions
        self._counts: dict[FunctionKey, int] = {}

    def too_many(self, nodes: Sequence[NodeProto]) -> tuple[str, str, int] | None:
        """The call that grows most, its function, and all nodes; None where they are few enough."""
        if not self._functions:
            return None
        calls = [n for n in _within(nodes) if _key(n) in self._functions]
        counts = [self._count(_key(n)) for n in calls]
        if sum(counts) <= MOST_INLINED:
            return None
        largest = calls[counts.index(max(counts))]
        return largest.name or largest.op_type, largest.op_type, sum(counts)

    def _count(self, key: FunctionKey) -> int:
        """Nodes of one call; a function that calls itself is refused elsewhere."""
        todo = [key]
        while todo:
            top = todo[-1]
            if self._counts.get(top, 0) > 0:
                todo.pop()
                continue
            called = [_key(n) for n in _within(self._functions[top].node)]
            missing = [k for k in called if k in self._functions and k not in self._counts]
            if missing and top not in self._counts:
                # Marked, so that a ring of calls ends.
                self._counts[top] = 0
                todo += dict.fromkeys(missing)
                continue
            self._counts[top] = 1 + sum(self._counts.get(k, 1) for k in called)
            todo.pop()
        return self._counts[key]


def _within(nodes: Sequence[NodeProto]) -> Iterator[NodeProto]:
    """Nodes, and those of the graphs inside them."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _within(attribute.g.node)


def _key(node: NodeProto) -> FunctionKey:
    return domain(node.domain), node.op_type, node.overload


def domain(name: str) -> str:
    """The domain's name; ``ai.onnx`` is the empty one."""
    return "" if name == "ai.onnx" else name


def function_key(function: FunctionProto) -> FunctionKey:
    """What a call names."""
    return domain(function.domain), function.name, function.overload
