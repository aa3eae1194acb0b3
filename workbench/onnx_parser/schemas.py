"""Schema: what the ONNX standard says of one version of one operator, cached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import onnx
from onnx import defs

OPSET = 28
"""The ai.onnx opset whose semantics the network has: the newest of the pinned onnx 1.23."""

OPSETS: Mapping[str, int] = {
    "": OPSET,
    "ai.onnx.ml": 5,
    "ai.onnx.preview": 1,
    "ai.onnx.preview.training": 1,
}
"""Domain -> its newest opset, of which the network has the semantics too."""


@dataclass(frozen=True)
class Formal:
    """One formal input or output. type: a type variable, or a type such as ``tensor(int64)``."""

    name: str
    option: str
    type: str
    homogeneous: bool


@dataclass(frozen=True)
class FormalAttribute:
    """One formal attribute. kind: AttributeProto type name."""

    kind: str
    required: bool
    default: Any


@dataclass(frozen=True)
class Schema:
    """One operator from version ``since`` on, until its next version.

    operator: ``domain::name`` outside ai.onnx.
    constraints: type variable -> names of the types that it may be.
    """

    operator: str
    since: int
    deprecated: bool
    inputs: tuple[Formal, ...]
    outputs: tuple[Formal, ...]
    min_inputs: int
    max_inputs: int
    min_outputs: int
    max_outputs: int
    attributes: Mapping[str, FormalAttribute]
    constraints: Mapping[str, frozenset[str]]

    def formal(self, index: int, *, output: bool = False) -> Formal | None:
        """The formal of an actual's index; the last one repeats when variadic."""
        formals = self.outputs if output else self.inputs
        if index < len(formals):
            return formals[index]
        return formals[-1] if formals and formals[-1].option == "Variadic" else None


def operator_key(domain: str, name: str) -> str:
    """What tables call an operator: ``domain::name`` outside ai.onnx."""
    return f"{domain}::{name}" if domain else name


@cache
def schema(operator: str, opset: int) -> Schema | None:
    """The schema in force at an opset of the operator's domain; None where there is none then."""
    domain, _, name = operator.rpartition("::")
    if domain not in OPSETS or not defs.has(name, opset, domain):
        return None
    s = defs.get_schema(name, opset, domain)
    return Schema(
        operator,
        s.since_version,
        s.deprecated,
        _formals(s.inputs),
        _formals(s.outputs),
        s.min_input,
        s.max_input,
        s.min_output,
        s.max_output,
        {k: _attribute(a) for k, a in s.attributes.items()},
        {c.type_param_str: frozenset(c.allowed_type_strs) for c in s.type_constraints},
    )


@cache
def introduced(operator: str) -> int | None:
    """The first opset that has the operator; None if none has."""
    return next((v for v in range(1, OPSET + 1) if schema(operator, v) is not None), None)


def _formals(formals: Any) -> tuple[Formal, ...]:
    return tuple(Formal(f.name, f.option.name, f.type_str, f.is_homogeneous) for f in formals)


def _attribute(attribute: Any) -> FormalAttribute:
    given = attribute.default_value
    default = onnx.helper.get_attribute_value(given) if given.type else None
    if isinstance(default, bytes):
        default = default.decode()
    return FormalAttribute(attribute.type.name, attribute.required, default)
