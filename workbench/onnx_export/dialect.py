"""Dialect: how operators of the newest opset are written at the opset asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnx import AttributeProto, helper, numpy_helper

from workbench.body import Body, Literal, Operator, TensorType
from workbench.datatypes import DataType
from workbench.onnx_export.types import type_proto
from workbench.onnx_parser.element_types import TO_ONNX
from workbench.onnx_parser.schemas import OPSET, OPSETS, Schema, schema
from workbench.onnx_parser.value_types import schema_type
from workbench.onnx_parser.versions import UNCHANGED

SPELLED_OUT: Mapping[str, tuple[int, ...]] = {
    "QuantizeLinear": (10, 13, 19, 21, 23, 24, 25),
    "Split": (13,),
}
"""Versions that the parser rewrites, but only to fill in what a network already says."""

OWN_ATTRIBUTES: Mapping[str, frozenset[str]] = {
    "Loop": frozenset({"carried", "step_limit", "byte_limit"}),
    "Scan": frozenset({"batched", "states"}),
    "SequenceMap": frozenset({"mapped"}),
}
"""Attributes of rows that the standard says by other means, or leaves to the runtime."""

Types = Sequence[TensorType | None]


class NotExpressibleError(Exception):
    """Why one node has no form in the opset."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        self.reason = reason
        self.remedy = remedy
        super().__init__(reason)


@dataclass(frozen=True)
class Dialect:
    """ai.onnx at ``opset``; the other domains of the standard at their newest.

    A node is written where the version in force then means what the newest one means, and has the
    attributes, inputs and types that the node uses.
    """

    opset: int = OPSET

    def version(self, domain: str) -> int:
        """The version that the model imports of a domain; 1 of domains outside the standard."""
        return self.opset if not domain else OPSETS.get(domain, 1)

    def attributes(
        self, operator: Operator, attributes: Mapping[str, Any], inputs: Types, outputs: Types
    ) -> list[AttributeProto]:
        """Attributes as the standard writes them, defaults and nested graphs left out.

        Raises NotExpressibleError.
        """
        newest = schema(operator.key, self.newest(operator.domain))
        if newest is None:
            return _plugin_attributes(operator, attributes)
        then = self._in_force(operator, newest)
        _check_arity(operator, then, inputs, outputs, self.opset)
        if then.since != newest.since:
            _check_types(then, inputs, outputs)
        made: list[AttributeProto] = []
        own = OWN_ATTRIBUTES.get(operator.key, frozenset())
        for key, value in attributes.items():
            if value is None or key in own or isinstance(value, Body):
                continue
            if operator.key == "QuantizeLinear" and key == "output_dtype" and inputs[2:]:
                continue  # The zero point's type says it.
            plain = _plain(value)
            formal = then.attributes.get(key)
            if formal is None:
                known = newest.attributes.get(key)
                if known is None or known.default != plain:
                    raise NotExpressibleError(
                        f"{operator.name}-{then.since} has no attribute '{key}' (here {value!r})",
                        f"export at opset {_first_with(operator.key, key)}"
                        if known is not None
                        else "",
                    )
            elif formal.default != plain or formal.required:
                kind = AttributeProto.AttributeType.Value(formal.kind)
                made.append(helper.make_attribute(key, plain, attr_type=kind))
        return made

    def newest(self, domain: str) -> int:
        """The newest version of a domain."""
        return OPSETS.get(domain, 1)

    def _in_force(self, operator: Operator, newest: Schema) -> Schema:
        then = schema(operator.key, self.version(operator.domain))
        if then is None or then.deprecated:
            raise NotExpressibleError(
                f"opset {self.opset} has no {operator.name}",
                f"export at opset {_oldest(operator.key)} or newer",
            )
        same = (*UNCHANGED.get(operator.key, ()), *SPELLED_OUT.get(operator.key, ()))
        if then.since != newest.since and then.since not in same:
            raise NotExpressibleError(
                f"{operator.name}-{then.since}, in force at opset {self.opset}, has another form "
                f"than version {newest.since}",
                f"export at opset {_oldest(operator.key)} or newer",
            )
        return then


def _oldest(operator: str) -> int:
    """The first opset from which on every version means what the newest one means."""
    domain = operator.rpartition("::")[0]
    oldest = OPSETS[domain]
    newest = schema(operator, oldest)
    assert newest is not None
    same = {newest.since, *UNCHANGED.get(operator, ()), *SPELLED_OUT.get(operator, ())}
    for opset in range(oldest, 0, -1):
        then = schema(operator, opset)
        if then is None or then.since not in same:
            break
        oldest = opset
    return oldest


def _first_with(operator: str, attribute: str) -> int:
    domain = operator.rpartition("::")[0]
    for opset in range(1, OPSETS[domain] + 1):
        then = schema(operator, opset)
        if then is not None and attribute in then.attributes:
            return opset
    return OPSETS[domain]


def _check_arity(
    operator: Operator, then: Schema, inputs: Types, outputs: Types, opset: int
) -> None:
    if len(inputs) > then.max_inputs or len(outputs) > then.max_outputs:
        raise NotExpressibleError(
            f"{operator.name}-{then.since} has at most {then.max_inputs} inputs and "
            f"{then.max_outputs} outputs, here are {len(inputs)} and {len(outputs)}",
            f"export at an opset newer than {opset}",
        )


def _check_types(then: Schema, inputs: Types, outputs: Types) -> None:
    for types, output in ((inputs, False), (outputs, True)):
        for i, type_ in enumerate(types):
            formal = then.formal(i, output=output)
            if type_ is None or formal is None:
                continue
            allowed = then.constraints.get(formal.type, frozenset({formal.type}))
            if (name := schema_type(type_)) not in allowed:
                raise NotExpressibleError(
                    f"{then.operator}-{then.since} does not take {name} as {formal.name}",
                    f"export at opset {OPSET}",
                )


def _plugin_attributes(operator: Operator, attributes: Mapping[str, Any]) -> list[AttributeProto]:
    """Of an operator outside the standard: its reader must know it."""
    if not operator.domain:
        raise NotExpressibleError(f"ai.onnx has no operator {operator.name}")
    given = {k: v for k, v in attributes.items() if v is not None}
    if nested := [k for k, v in given.items() if isinstance(v, Body)]:
        raise NotExpressibleError(f"attribute '{nested[0]}' holds a Body")
    return [helper.make_attribute(k, _plain(v)) for k, v in given.items()]


def _plain(value: Any) -> Any:
    """A value as ONNX's helper takes it."""
    match value:
        case DataType():
            return TO_ONNX[value]
        case Literal():
            if value.is_symbolic:
                raise NotExpressibleError(f"an attribute holds the sizes {value.values}")
            return numpy_helper.from_array(value.array())
        case TensorType():
            return type_proto(value)
        case tuple():
            return [_plain(v) for v in value]
        case _:
            return value
