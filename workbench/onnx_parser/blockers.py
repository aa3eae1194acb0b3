"""Every reason at once: what is wrong behind the nodes that stopped an import.

A node with a known reason is taken out of the model, and the rest is imported again. What it made
becomes an input where the model declares its type; where it does not, the nodes that read it are
taken out too: of them, only the operator tables can say whether they are supported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from onnx import ModelProto, NodeProto, TypeProto, ValueInfoProto, helper

from workbench.onnx_parser.problems import ErrorCode, ParserErrorRecord
from workbench.onnx_parser.schemas import OPSET
from workbench.onnx_parser.subgraphs import names_read
from workbench.onnx_parser.value_types import why_not

ROUNDS = 8
"""Imports of one model; each round finds a reason that the ones before could not see."""

Records = Sequence[ParserErrorRecord]


def blocked_nodes(records: Records) -> frozenset[int] | None:
    """Indices of the nodes that the reasons lie in; None where the model as a whole is wrong."""
    whole = (ErrorCode.INVALID_GRAPH, ErrorCode.MODEL_DESERIALIZE_FAILED)
    if any(r.node < 0 or r.code in whole for r in records):
        return None
    return frozenset(r.node for r in records)


def further_reasons(
    model: ModelProto, found: Records, reasons_of: Callable[[ModelProto], Records]
) -> list[ParserErrorRecord]:
    """Reasons that show once the nodes with known ones are out. Changes the model.

    found: what its import found. reasons_of: imports a model and gives what it found.
    """
    more: list[ParserErrorRecord] = []
    out: set[int] = set()
    blocked = blocked_nodes(found)
    if any(r.code is ErrorCode.UNSUPPORTED_GRAPH for r in found):
        return more  # Such as an unknown opset: no node can be judged.
    for _ in range(ROUNDS):
        if not blocked:
            break
        out |= blocked
        invented = _take_out(model, out)
        seen = reasons_of(model)
        if any(r.node < 0 for r in seen):
            # The reduced model is wrong as a whole, which says nothing of the given one.
            break
        # A value that an unsupported node makes may be known once that node is mended.
        more += [r for r in seen if not set(r.needs) & invented]
        blocked = blocked_nodes(seen)
    return more


def _take_out(model: ModelProto, out: set[int]) -> set[str]:
    """Replace nodes by unread constants, and what depends on them without a type, too.

    Returns the inputs that stand for what they made. out: grows by the dependent nodes.
    """
    graph = model.graph
    declared = {v.name: v.type for v in (*graph.value_info, *graph.output)}
    inputs = {v.name for v in graph.input}
    unknown: set[str] = set()
    invented: dict[str, TypeProto] = {}
    for i, node in enumerate(graph.node):
        if i not in out and not any(v in unknown for v in names_read(node)):
            continue
        out.add(i)
        for value in node.output:
            if not value or value in inputs:
                continue
            type_ = declared.get(value)
            if type_ is None or why_not(type_):
                unknown.add(value)
            else:
                invented[value] = type_
        node.CopyFrom(_placeholder(node, i))
    graph.input.extend(ValueInfoProto(name=n, type=t) for n, t in invented.items())
    _keep_outputs(model, next(iter(graph.node[i].output[0] for i in sorted(out))))
    if not any(o.domain in ("", "ai.onnx") for o in model.opset_import):
        model.opset_import.append(helper.make_opsetid("", OPSET))
    return {v.name for v in graph.input} - inputs


def _placeholder(node: NodeProto, index: int) -> NodeProto:
    """A node in its place, so that the others keep their indices and names."""
    value = helper.make_tensor("", 7, [], [0])
    return helper.make_node("Constant", [], [f"(taken out {index})"], name=node.name, value=value)


def _keep_outputs(model: ModelProto, instead: str) -> None:
    """Outputs that are still made; ``instead`` where there are none."""
    graph = model.graph
    made = {v for n in graph.node for v in n.output}
    made |= {v.name for v in graph.input} | {t.name for t in graph.initializer}
    kept = [v for v in graph.output if v.name in made] or [ValueInfoProto(name=instead)]
    kept = [ValueInfoProto.FromString(v.SerializeToString()) for v in kept]
    del graph.output[:]
    graph.output.extend(kept)
