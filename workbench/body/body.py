"""Body: nodes in order, its canonical form, its JSON, and the reference interpreter."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from workbench import dimensions
from workbench.body.computing import computed, operands
from workbench.body.inference import infer
from workbench.body.operator import CONSTANT, Node, Operator, Reference
from workbench.body.rounding import rounded_factors, whole_steps
from workbench.body.values import (
    Array,
    HostType,
    Literal,
    TensorType,
    as_exact,
    type_from_json,
    type_to_json,
)
from workbench.datatypes import DataType
from workbench.digests import sha256_hex
from workbench.dimensions import SymbolicDim
from workbench.errors import NetworkError

MULTIPLYING = frozenset({"matrix", "convolution"})
"""Families of operators whose first two operands are factors of a sum of products."""
TF32_EPS = 2.0**-10
"""Relative error of a float32 read as TF32, cut or rounded: it keeps 10 bits of the fraction.
Source: NVIDIA A100 Tensor Core GPU Architecture, white paper."""


@dataclass(frozen=True)
class BodyInput:
    """A named input. constant: its value is known at build time (a weight, a scale)."""

    name: str
    type: TensorType
    constant: bool = False


@dataclass(frozen=True)
class Body:
    """A closed little network: inputs, nodes in order, outputs.

    anchor: index of the node that carries the work (a convolution, a matrix product, a
    reduction), or None for a chain of pointwise nodes. Nodes that the anchor depends on are the
    prologue; nodes that depend on it are the epilogue.
    """

    inputs: tuple[BodyInput, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    anchor: int | None = None

    @cached_property
    def types(self) -> Mapping[str, TensorType]:
        """The type of every value. Raises InferenceError naming the node."""
        return infer(self.nodes, {i.name: i.type for i in self.inputs})[0]

    def typed(self, types: Mapping[str, TensorType]) -> Body:
        """This Body, told the types of all its values: it need not infer them again."""
        vars(self)["types"] = types
        return self

    @cached_property
    def flops(self) -> int:
        """Operations of a Body with bound sizes; multiply and add count as two."""
        types = self.types
        return sum(
            n.operator.cost(
                n.attributes,
                [types[v] if v else None for v in n.inputs],
                [types[v] for v in n.outputs if v],
            ).flops
            for n in self.nodes
        )

    @property
    def anchor_node(self) -> Node | None:
        return None if self.anchor is None else self.nodes[self.anchor]

    @property
    def compute_type(self) -> DataType:
        """The type in which the anchor works: what it reads, seen through DequantizeLinear.

        Without an anchor, what the last node reads; a condition's BOOL does not count. Around an
        anchor that multiplies nothing (attention's Softmax), dequantized products decide.
        """
        if not self.nodes:
            return self.types[self.outputs[0]].dtype
        node = self.nodes[-1] if self.anchor is None else self._working_node(self.anchor)
        read = [v for v in node.inputs if v]
        numbers = [v for v in read if self.types[v].dtype is not DataType.BOOL]
        value = next(iter(numbers or read), self.outputs[0])
        for n in self.nodes:
            if value in n.outputs and n.op == "DequantizeLinear":
                value = n.inputs[0]
        return self.types[value].dtype

    def _working_node(self, anchor: int) -> Node:
        """The anchor; for a softmax between products of integers, the first of them."""
        node = self.nodes[anchor]
        if node.op != "Softmax":
            return node
        read = {n.outputs[0] for n in self.nodes if n.op == "DequantizeLinear"}
        products = (n for n in self.nodes if n.op == "MatMul" and read.issuperset(n.inputs))
        return next(products, node)

    @property
    def operator_names(self) -> tuple[str, ...]:
        """Names of the operators in order, literals left out."""
        return tuple(n.op for n in self.nodes if n.operator is not CONSTANT)

    @cached_property
    def prologue(self) -> frozenset[int]:
        """Indices of the nodes that the anchor depends on."""
        if self.anchor is None:
            return frozenset()
        producer = {v: i for i, n in enumerate(self.nodes) for v in n.outputs}
        found: set[int] = set()
        todo = list(self.nodes[self.anchor].inputs)
        while todo:
            i = producer.get(todo.pop())
            if i is not None and i not in found:
                found.add(i)
                todo.extend(self.nodes[i].inputs)
        return frozenset(found)

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """Free size symbols of the inputs and of the literals, in order of first use."""
        seen: dict[str, None] = {}
        for i in self.inputs:
            for d in () if isinstance(i.type, HostType) else i.type.shape:
                for s in sorted(dimensions.symbols_of(d)):
                    seen.setdefault(s)
        for n in self.nodes:
            literal = n.attributes.get("value")
            if isinstance(literal, Literal) and literal.is_symbolic:
                for s in sorted(dimensions.symbols_of(literal.values)):
                    seen.setdefault(s)
        return tuple(seen)

    @property
    def dynamic_inputs(self) -> tuple[BodyInput, ...]:
        """Inputs that arrive at run time."""
        return tuple(i for i in self.inputs if not i.constant)

    @property
    def output_types(self) -> tuple[TensorType, ...]:
        return tuple(self.types[o] for o in self.outputs)

    def substitute(self, bindings: Mapping[str, Any]) -> Body:
        """This Body with size symbols replaced by numbers or other sizes."""
        if not self.symbols:
            return self

        def bound(t: TensorType) -> TensorType:
            if isinstance(t, HostType):
                return t
            return TensorType(t.dtype, tuple(dimensions.substitute(d, bindings) for d in t.shape))

        def rewritten(n: Node) -> Node:
            literal = n.attributes.get("value")
            if isinstance(literal, Literal) and literal.is_symbolic:
                values = tuple(dimensions.substitute(v, bindings) for v in literal.values)
                new = Literal(literal.dtype, literal.shape, values)
                return Node(n.operator, n.inputs, n.outputs, {**n.attributes, "value": new})
            return n

        return Body(
            tuple(BodyInput(i.name, bound(i.type), i.constant) for i in self.inputs),
            tuple(rewritten(n) for n in self.nodes),
            self.outputs,
            self.anchor,
        )

    def bind(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
        """Symbol values that give the inputs these shapes. Raises NetworkError on a misfit."""
        bindings: dict[str, int] = {}
        checks: list[tuple[str, Any, int]] = []
        for i in self.inputs:
            given = shapes.get(i.name)
            if given is None:
                continue
            if len(given) != len(i.type.shape):
                raise NetworkError(
                    f"input '{i.name}' has rank {len(i.type.shape)} {i.type.shape}, "
                    f"given {tuple(given)}"
                )
            for want, have in zip(i.type.shape, given, strict=True):
                if isinstance(want, SymbolicDim) and str(want) in want.symbols:
                    bindings.setdefault(str(want), int(have))
                checks.append((i.name, want, int(have)))
        for name, want, have in checks:
            if dimensions.symbols_of(want) <= set(bindings):
                value = dimensions.evaluate(want, bindings)
                if value != have:
                    raise NetworkError(f"input '{name}': size {want} is {value}, given {have}")
        return bindings

    @cached_property
    def signature(self) -> str:
        """SHA-256 of the Body up to renaming of values and symbols (32 hex digits)."""
        text = json.dumps(self._canonical(), sort_keys=True, separators=(",", ":"))
        return sha256_hex(text.encode())[:32]

    def _canonical(self) -> dict[str, Any]:
        body = self.substitute({s: dimensions.symbol(f"s{i}") for i, s in enumerate(self.symbols)})
        names: dict[str, str] = {"": ""}
        for i in body.inputs:
            names[i.name] = f"i{len(names)}"
        for n in body.nodes:
            for o in n.outputs:
                names.setdefault(o, f"v{len(names)}")
        return body.to_json(names)

    def to_json(self, names: Mapping[str, str] | None = None) -> dict[str, Any]:
        """As JSON values; ``names`` renames the values."""

        def name(v: str) -> str:
            return names[v] if names is not None else v

        return {
            "inputs": [[name(i.name), type_to_json(i.type), i.constant] for i in self.inputs],
            "nodes": [
                [
                    n.op,
                    [name(v) for v in n.inputs],
                    [name(v) for v in n.outputs],
                    {k: _value_to_json(v) for k, v in sorted(n.attributes.items())},
                ]
                for n in self.nodes
            ],
            "outputs": [name(v) for v in self.outputs],
            "anchor": self.anchor,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], lookup: Callable[[str], Operator]) -> Body:
        """What ``to_json`` wrote; ``lookup`` finds an operator by name."""
        return cls(
            tuple(BodyInput(n, type_from_json(t), constant) for n, t, constant in data["inputs"]),
            tuple(
                Node(
                    CONSTANT if op == "Constant" else lookup(op),
                    tuple(inputs),
                    tuple(outputs),
                    {k: _value_from_json(v, lookup) for k, v in attributes.items()},
                )
                for op, inputs, outputs, attributes in data["nodes"]
            ),
            tuple(data["outputs"]),
            data["anchor"],
        )

    @cached_property
    def inferred(self) -> dict[Any, Any]:
        """Types that the interpreter found before, by node and what it read."""
        return {}

    # -- evaluation -----------------------------------------------------------------------
    def evaluate(self, inputs: Mapping[str, Array], *, keep: bool = False) -> dict[str, Array]:
        """Typed reference evaluation: the outputs by name (every value with ``keep``).

        Raises NetworkError naming the node whose values do not fit.
        """
        bindings = self.bind({k: v.shape for k, v in inputs.items()})
        types = self.substitute(bindings).types if self.symbols else self.types
        values: dict[str, Array] = dict(inputs)
        for n in self.nodes:
            args = operands(n, values)
            made = _run(n, n.operator.reference, args, bindings, checked=True)[: len(n.outputs)]
            for o, v in zip(n.outputs, made, strict=True):
                if o:
                    with np.errstate(all="ignore"):  # beyond a half's range lies infinity
                        values[o] = np.asarray(v).astype(types[o].dtype.numpy, copy=False)
        return values if keep else {o: values[o] for o in self.outputs}

    def exact(
        self,
        inputs: Mapping[str, Array],
        *,
        unit: float = 2.0**-24,
        factor_eps: float = 0.0,
        steps: bool = False,
    ) -> dict[str, tuple[Array, Array]]:
        """float64 evaluation without inner rounding: output name -> (value, error bound).

        unit: the accumulator's unit roundoff. Each typed value adds eps(type)·|value|, and the
        type's smallest step near zero; integer types are exact. factor_eps: relative error with
        which a product reads its float factors (``TF32_EPS`` where they are rounded to TF32).
        steps: integers that the Body quantizes are whole steps, as it stores them: their bound is
        0 but where the exact value lies so near the middle of two that either is right.
        """
        bindings = self.bind({k: v.shape for k, v in inputs.items()})
        types = self.substitute(bindings).types if self.symbols else self.types
        values: dict[str, Any] = {k: as_exact(v) for k, v in inputs.items()}
        errors: dict[str, Any] = dict.fromkeys(inputs, 0.0)
        for n in self.nodes:
            args = [values[v] if v else None for v in n.inputs]
            if n.operator.stored:
                kinds = [types[v].dtype.numpy if v else None for v in n.inputs]
                args = [
                    None if x is None else x.astype(k) for x, k in zip(args, kinds, strict=True)
                ]
            bounds = [errors[v] if v else None for v in n.inputs]
            if factor_eps and n.operator.family in MULTIPLYING:
                bounds = rounded_factors(args, bounds, factor_eps)
            rule = n.operator.exact or n.operator.reference
            outputs = _run(n, rule, args, bindings)
            if n.operator is CONSTANT or n.operator.stored:
                outputs = tuple(as_exact(y) for y in outputs)
            with np.errstate(all="ignore"):
                own = n.operator.bound(n.attributes, args, bounds, outputs, unit)
            asked = slice(len(n.outputs))
            for o, y, e in zip(n.outputs, outputs[asked], own[asked], strict=True):
                if not o:
                    continue
                values[o] = y
                form = types[o].dtype.info
                if steps and n.op == "QuantizeLinear" and form.kind == "integer":
                    y, e = whole_steps(y, e)
                    values[o] = y
                stored = n.operator is not CONSTANT and form.eps
                with np.errstate(all="ignore"):
                    errors[o] = e + form.eps * np.abs(y) + form.tiny if stored else e
        return {
            o: (np.asarray(values[o]), np.broadcast_to(errors[o], np.shape(values[o])))
            for o in self.outputs
        }


def _run(
    node: Node,
    rule: Reference,
    args: Sequence[Any],
    bindings: dimensions.Bindings,
    *,
    checked: bool = False,
) -> tuple[Array, ...]:
    if node.operator is CONSTANT:
        return (node.attributes["value"].array(bindings),)
    return computed(node, rule, args, checked=checked)


def _value_to_json(value: Any) -> Any:
    match value:
        case Literal():
            return {
                "literal": value.dtype.value,
                "shape": list(value.shape),
                "values": [str(v) if isinstance(v, SymbolicDim) else v for v in value.values],
            }
        case Body():
            return {"body": value.to_json()}
        case DataType():
            return {"dtype": value.value}
        case TensorType():
            return {"type": type_to_json(value)}
        case tuple():
            return {"tuple": [_value_to_json(v) for v in value]}
        case _:
            return value


def _value_from_json(value: Any, lookup: Callable[[str], Operator]) -> Any:
    match value:
        case {"literal": dtype, "shape": shape, "values": values}:
            kind = DataType(dtype)
            sizes = kind.is_integer
            return Literal(
                kind,
                tuple(shape),
                tuple(dimensions.dim_from_json(v) if sizes else v for v in values),
            )
        case {"body": body}:
            return Body.from_json(body, lookup)
        case {"dtype": dtype}:
            return DataType(dtype)
        case {"type": described}:
            return type_from_json(described)
        case {"tuple": items}:
            return tuple(_value_from_json(v, lookup) for v in items)
        case _:
            return value
