"""Which operators are imported, at which opsets, and why others are not."""

from __future__ import annotations

from functools import cache

from workbench.onnx_parser.schemas import OPSETS, schema
from workbench.onnx_parser.source import SourceNode
from workbench.onnx_parser.standard import check_node

_ABOUT_THE_OPERATOR = frozenset({"operator", "domain", "opset_import"})
"""Rules that an operator breaks whatever its node looks like."""


@cache
def refusal_at(operator: str, opset: int) -> str:
    """Why no node of an operator is imported at an opset of its domain; empty where one is."""
    domain = operator.rpartition("::")[0]
    bare = SourceNode(operator, operator, domain, opset, (), (), {}, {}, 0)
    reasons = (r for r in check_node(bare, {domain: opset}) if r.rule in _ABOUT_THE_OPERATOR)
    return next((r.desc for r in reasons), "")


@cache
def accepted_opsets(operator: str) -> tuple[int, ...]:
    """Opsets of its domain at which nodes of an operator are imported."""
    domain = operator.rpartition("::")[0]
    newest = OPSETS.get(domain, 0)
    return tuple(
        v
        for v in range(1, newest + 1)
        if schema(operator, v) is not None and not refusal_at(operator, v)
    )
