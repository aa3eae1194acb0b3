"""Standard checks: one node against the schema of the version that it was written for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from workbench.body import TensorType
from workbench.onnx_parser.element_types import SCHEMA_NAMES
from workbench.onnx_parser.problems import ErrorCode, ParserErrorRecord, record
from workbench.onnx_parser.schemas import OPSETS, Schema, introduced, schema
from workbench.onnx_parser.source import Foreign, SourceNode
from workbench.onnx_parser.upgrade import is_imported
from workbench.onnx_parser.value_types import schema_type

REFUSED: Mapping[str, str] = {
    "ai.onnx.preview.training::Gradient": "a derivative is no step of inference; "
    "a trainer makes it from the graph before the export",
    "ai.onnx.ml::CastMap": "maps have no place in a network of tensors",
    "ai.onnx.ml::DictVectorizer": "maps have no place in a network of tensors",
    "ai.onnx.ml::ZipMap": "it makes a sequence of maps, and maps have no place in a network of "
    "tensors; with skl2onnx, the option zipmap=False leaves it out",
}
"""Operators that stay refused, and why."""


def check_node(node: SourceNode, imports: Mapping[str, int]) -> list[ParserErrorRecord]:
    """Every reason why this node can't be imported as it is written."""
    if node.broken:
        return []
    if found := _check_operator(node, imports):
        return [found]
    row = schema(node.operator, node.version)
    assert row is not None
    found = _check_count(node, row, "input", node.inputs, row.min_inputs, row.max_inputs)
    more = _check_count(node, row, "output", node.outputs, row.min_outputs, row.max_outputs)
    return [*found, *more, *_check_attributes(node, row)]


def _check_operator(node: SourceNode, imports: Mapping[str, int]) -> ParserErrorRecord | None:
    def no(code: ErrorCode, desc: str, rule: str, remedy: str) -> ParserErrorRecord:
        return record(code, desc, rule=rule, remedy=remedy, node=node)

    if not node.operator:
        return no(ErrorCode.INVALID_NODE, "it names no operator", "operator", "re-export the model")
    if node.domain not in OPSETS:
        return no(
            ErrorCode.UNSUPPORTED_NODE,
            f"operator {node.operator} is of no domain known here "
            f"({', '.join(map(_title, OPSETS))}), and the model carries no function of that name",
            "domain",
            "export with standard operators, or with the operator as a model-local function",
        )
    if not node.version:
        return no(
            ErrorCode.INVALID_GRAPH,
            f"the model imports no {_title(node.domain)} opset, so the operator's version is "
            "unknown",
            "opset_import",
            "re-export the model",
        )
    known = OPSETS[node.domain]
    if node.version > known:
        return no(
            ErrorCode.UNSUPPORTED_GRAPH,
            f"it is written for {_title(node.domain)} {node.version}, the newest known here is "
            f"{known}",
            "opset_import",
            f"export with opset {known} or older",
        )
    row = schema(node.operator, node.version)
    newest = schema(node.operator, known)
    # GroupNormalization-18 is marked deprecated, but 21 brought it back in another form.
    if row is not None and row.deprecated and newest is not None and newest.deprecated:
        return no(
            ErrorCode.INVALID_NODE,
            f"{node.operator} is deprecated since opset {row.since}, "
            f"the model imports opset {node.version}",
            "operator",
            "re-export the model",
        )
    if row is None:
        first = introduced(node.operator)
        if first is None:
            return no(
                ErrorCode.UNSUPPORTED_NODE,
                f"{_title(node.domain)} has no operator {node.operator}",
                "operator",
                "export with standard operators, or with the operator as a model-local function",
            )
        return no(
            ErrorCode.INVALID_NODE,
            f"{node.operator} came with opset {first}, the model imports opset {node.version}",
            "opset_import",
            f"export with opset {first} or newer",
        )
    reason = REFUSED.get(node.operator) or is_imported(node.operator, row.since)
    if reason:
        return no(
            ErrorCode.UNSUPPORTED_NODE,
            f"operator {node.operator} is not supported: {reason}",
            "operator",
            "replace it in the model before the export",
        )
    return None


def _title(domain: str) -> str:
    return domain or "ai.onnx"


def _check_count(
    node: SourceNode, row: Schema, what: str, given: Sequence[str], least: int, most: int
) -> list[ParserErrorRecord]:
    found: list[ParserErrorRecord] = []
    if not least <= len(given) <= most:
        expected = str(least) if least == most else f"{least} to {most}"
        if most > 1_000_000:
            expected = f"at least {least}"
        found.append(
            record(
                ErrorCode.INVALID_NODE,
                f"it has {len(given)} {what}s, {node.operator}-{row.since} has {expected}",
                rule="arity",
                remedy="re-export the model",
                node=node,
            )
        )
        return found
    for i, name in enumerate(given):
        formal = row.formal(i, output=what == "output")
        if not name and formal is not None and formal.option == "Single":
            found.append(
                record(
                    ErrorCode.INVALID_NODE,
                    f"{what} {i} ({formal.name}) is left out, but it is not optional",
                    rule="arity",
                    remedy="re-export the model",
                    node=node,
                )
            )
    return found


def _check_attributes(node: SourceNode, row: Schema) -> list[ParserErrorRecord]:
    def no(code: ErrorCode, desc: str, remedy: str = "re-export the model") -> ParserErrorRecord:
        return record(code, desc, rule="attribute", remedy=remedy, node=node)

    found: list[ParserErrorRecord] = []
    title = f"{node.operator}-{row.since}"
    for name, kind in node.kinds.items():
        formal = row.attributes.get(name)
        if formal is None:
            known = ", ".join(row.attributes) or "none"
            found.append(
                no(
                    ErrorCode.INVALID_NODE,
                    f"{title} has no attribute '{name}'",
                    f"it has: {known}; does the model import the opset that it is written for?",
                )
            )
        elif formal.kind != kind:
            found.append(
                no(
                    ErrorCode.INVALID_NODE,
                    f"attribute '{name}' is of type {kind}, {title} wants {formal.kind}",
                )
            )
        elif isinstance(node.attributes[name], Foreign):
            found.append(
                no(
                    ErrorCode.UNSUPPORTED_NODE_ATTR,
                    f"attribute '{name}' holds a value of type {kind}, which is not imported",
                )
            )
    for name, formal in row.attributes.items():
        if formal.required and name not in node.kinds:
            found.append(no(ErrorCode.INVALID_NODE, f"attribute '{name}' of {title} is missing"))
    return found


def check_types(
    node: SourceNode,
    operator: str,
    opset: int,
    inputs: Sequence[tuple[str, TensorType] | None],
) -> ParserErrorRecord | None:
    """Whether actual inputs (name, type) fit the type constraints of an operator's version."""
    row = schema(operator, opset)
    assert row is not None
    bound: dict[str, tuple[str, str, str]] = {}
    for i, actual in enumerate(inputs):
        formal = row.formal(i)
        if actual is None or formal is None:
            continue
        name, type_ = actual
        kind = schema_type(type_)
        allowed = row.constraints.get(formal.type, frozenset({formal.type}))
        if kind not in allowed:
            return record(
                ErrorCode.INVALID_NODE,
                f"input {formal.name} ('{name}') is {_plain(kind)}, {operator} takes "
                f"{_types(allowed)}",
                rule="input_type",
                remedy="cast it in the model",
                node=node,
            )
        if formal.type not in row.constraints or not formal.homogeneous:
            continue
        first = bound.setdefault(formal.type, (formal.name, name, kind))
        if first[2] != kind:
            return record(
                ErrorCode.INVALID_NODE,
                f"input {first[0]} ('{first[1]}') is {_plain(first[2])}, input {formal.name} "
                f"('{name}') is {_plain(kind)}; {operator} takes one type for both",
                rule="input_type",
                remedy="cast one of them in the model",
                node=node,
            )
    return None


def _plain(schema_name: str) -> str:
    """A schema's type as the workbench calls it."""
    return next((k.value for k, n in SCHEMA_NAMES.items() if n == schema_name), schema_name)


def _types(allowed: frozenset[str]) -> str:
    names = [kind.value for kind, name in SCHEMA_NAMES.items() if name in allowed]
    if not names:
        return " or ".join(sorted(allowed))
    return " or ".join((", ".join(names[:-1]), names[-1])) if len(names) > 1 else names[0]
