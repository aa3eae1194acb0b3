"""Rows of a model inspection: its interface, operators, refusals, parts and weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pandas as pd

from workbench.lab import FileNode, ModelInspection, ModelPart, OperatorUse, WeightStatistics
from workbench.reports.graph import GraphNode, GraphView

MOST_NAMES = 6
REFUSED = "refused"


def interface_rows(model: ModelInspection) -> pd.DataFrame:
    """Inputs, then outputs. A size with a name is dynamic."""
    rows = [
        (kind, v.name, *_type_and_shape(v.type))
        for kind, values in (("input", model.inputs), ("output", model.outputs))
        for v in values
    ]
    return pd.DataFrame(rows, columns=["Kind", "Name", "Type", "Shape"])


def operator_rows(model: ModelInspection) -> pd.DataFrame:
    """An operator a row: how often, what it became, what runs it here."""
    rows = [
        {
            "Operator": u.operator,
            "Nodes": u.nodes,
            "Since opset": u.since or None,
            "Layers": _becomes(u),
            "Support": u.support,
            "Kernels": _kernels(u),
        }
        for u in model.operators
    ]
    table = pd.DataFrame(rows, columns=["Operator", "Nodes", *_OPERATOR_COLUMNS])
    table = table.astype({"Since opset": "Int64"})
    return table if model.supported else table.drop(columns=["Layers", "Kernels"])


_OPERATOR_COLUMNS = ("Since opset", "Layers", "Support", "Kernels")
_UNTYPED = "Inputs without a type"


def refusal_rows(model: ModelInspection) -> pd.DataFrame:
    """A reason a row, with the fields of TensorRT's IParserError, the failing rule and remedy."""
    columns = ["Node", "Name", "Operator", "Code", "Rule", "Problem", "Remedy", "Found by"]
    rows = [
        (
            e.node if e.node >= 0 else None,
            e.node_name
            + (f" in {' > '.join(e.local_function_stack)}" * bool(e.local_function_stack)),
            e.node_operator,
            f"{e.code.name} ({e.code.value})",
            e.rule,
            e.desc,
            e.remedy,
            f"{e.func}() in {e.file}:{e.line}",
        )
        for e in model.errors
    ]
    return pd.DataFrame(rows, columns=columns).astype({"Node": "Int64"})


def part_rows(model: ModelInspection) -> pd.DataFrame:
    """The subgraphs of a refused model, in an order in which they could run.

    The column Inputs without a type is there where a supported one has some.
    """
    columns = ["Subgraph", "Supported", "Nodes", "Operators", "From", "To", _UNTYPED]
    rows = [
        (
            k,
            "yes" if p.supported else "no",
            len(p.nodes),
            _counted(Counter(model.nodes[i].operator for i in p.nodes)),
            model.nodes[p.nodes[0]].name,
            model.nodes[p.nodes[-1]].name,
            ", ".join(p.untyped) if p.supported else "",
        )
        for k, p in enumerate(model.parts)
    ]
    table = pd.DataFrame(rows, columns=columns)
    some = any(p.supported and p.untyped for p in model.parts)
    return table if some else table.drop(columns=_UNTYPED)


def weight_rows(
    model: ModelInspection, statistics: Mapping[str, WeightStatistics | None] | None = None
) -> pd.DataFrame:
    """A stored tensor a row, largest first. statistics: of those whose values were looked at."""
    known = statistics or {}
    rows: list[dict[str, object]] = []
    for w in sorted(model.weights, key=lambda w: -w.nbytes):
        row: dict[str, object] = {
            "Name": w.name,
            "Type": w.type,
            "Shape": f"[{', '.join(map(str, w.shape))}]",
            "Bytes": w.nbytes,
            "Stored in": w.where,
            "Read by": w.readers,
        }
        found = known.get(w.name)
        if found is not None:
            row |= {
                "Min": found.least,
                "Max": found.largest,
                "NaN": found.nans,
                "Inf": found.infinities,
            }
        rows.append(row)
    columns = ["Name", "Type", "Shape", "Bytes", "Stored in", "Read by"]
    columns += ["Min", "Max", "NaN", "Inf"] if known else []
    table = pd.DataFrame(rows, columns=columns)
    return table.astype({"NaN": "Int64", "Inf": "Int64"}) if known else table


def file_graph(model: ModelInspection) -> GraphView:
    """The model's own nodes as boxes; ``support``: the part that each is of, or ``refused``."""
    support = {i: _part_name(k, p) for k, p in enumerate(model.parts) for i in p.nodes}
    nodes: list[GraphNode] = []
    where: dict[str, tuple[int, str]] = {}
    edges: list[tuple[int, int, str]] = []
    for v in model.inputs:
        where[v.name] = (len(nodes), v.type)
        nodes.append(GraphNode(f"input:{v.name}", v.name, "Input", (), "", v.type))
    for i, node in enumerate(model.nodes):
        index = len(nodes)
        nodes.append(_box(node, support.get(i, REFUSED if i in model.refused_nodes else "")))
        edges += [
            (where[v][0], index, where[v][1]) for v in dict.fromkeys(node.inputs) if v in where
        ]
        where |= dict.fromkeys(node.outputs, (index, ""))
    for v in model.outputs:
        if v.name in where:
            edges.append((where[v.name][0], len(nodes), v.type))
        nodes.append(GraphNode(f"output:{v.name}", v.name, "Output", (), "", v.type))
    return GraphView(tuple(nodes), tuple(edges))


def _box(node: FileNode, support: str) -> GraphNode:
    return GraphNode(
        node.name, node.operator, node.operator, (node.name,), "", node.name, support=support
    )


def _part_name(index: int, part: ModelPart) -> str:
    return f"subgraph {index}" if part.supported else REFUSED


def _type_and_shape(text: str) -> tuple[str, str]:
    """``FLOAT[batch, 8]`` as two texts; a sequence's type stays one."""
    dtype, bracket, rest = text.partition("[")
    if "(" in dtype or not bracket:
        return text, ""
    return dtype, f"[{rest}"


def _becomes(use: OperatorUse) -> str:
    """The layers, unless they are the nodes themselves."""
    if use.becomes == {use.operator: use.nodes}:
        return "itself"
    return _counted(Counter(use.becomes))


def _kernels(use: OperatorUse) -> str:
    """Sources that have one; with how many of the layers where not for all."""
    return ", ".join(
        s if n == use.layers else f"{s} ({n} of {use.layers})" for s, n in use.sources.items()
    )


def _counted(names: Counter[str]) -> str:
    shown = [n if k == 1 else f"{k} {n}" for n, k in names.most_common(MOST_NAMES)]
    more = len(names) - MOST_NAMES
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
