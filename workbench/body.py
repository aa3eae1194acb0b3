"""Operator, Body and the reference interpreter: what a computation means.

A Body is a closed little network with explicit inputs: the inside of a fused layer, of control
flow, of a function, of a weight's recipe. It is always linear (row-major); layouts live on the
edges of the plan. Two evaluations are defined:

- ``evaluate``: typed. Halves are computed in float32 and rounded at each node's output.
- ``exact``: float64 without inner rounding, with a bound on how far a correct implementation
  may be from it (see ``Operator.bound``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np

from workbench import dimensions
from workbench.datatypes import DataType
from workbench.dimensions import Shape, SymbolicDim
from workbench.errors import InferenceError, NetworkError

Array = np.ndarray[Any, Any]
Attributes = Mapping[str, Any]
REQUIRED = "<required>"


@dataclass(frozen=True)
class TensorType:
    """Element type and shape; sizes are numbers or symbolic."""

    dtype: DataType
    shape: Shape

    def __str__(self) -> str:
        return f"{self.dtype.value}[{', '.join(map(str, self.shape))}]"

    def nbytes(self) -> Any:
        """Bytes of the linear tensor."""
        return dimensions.volume(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Literal:
    """A small constant written into a Body: scalars, axes, shapes (whose sizes may be symbolic)."""

    dtype: DataType
    shape: tuple[int, ...]
    values: tuple[Any, ...]

    @classmethod
    def of(cls, array: Array, dtype: DataType | None = None) -> Literal:
        """From a numeric array, or an object array of sizes (``dtype`` then says the type)."""
        if array.dtype == object:
            return cls(dtype or DataType.INT64, array.shape, tuple(array.reshape(-1).tolist()))
        return cls(DataType.of(array), array.shape, tuple(array.reshape(-1).tolist()))

    @property
    def is_symbolic(self) -> bool:
        return not dimensions.is_static(self.values)

    def array(self, bindings: dimensions.Bindings | None = None) -> Array:
        """As an array: numeric when every size is bound, else of objects."""
        values = self.values
        if self.is_symbolic:
            if bindings is None:
                out = np.empty(len(values), object)
                out[:] = values
                return out.reshape(self.shape)
            values = tuple(dimensions.evaluate(v, bindings) for v in values)
        return np.array(values, self.dtype.numpy).reshape(self.shape)


@dataclass(frozen=True)
class Inference:
    """What an operator's type rule sees.

    inputs: a type per input, None where an optional input is absent.
    values: the input's value where it is known at build time (numeric, or objects for sizes).
    """

    attributes: Attributes
    inputs: tuple[TensorType | None, ...]
    values: tuple[Array | None, ...]
    outputs: int = 1

    def input(self, index: int) -> TensorType:
        """The type of a required input."""
        t = self.inputs[index] if index < len(self.inputs) else None
        if t is None:
            raise InferenceError(f"input {index} is missing")
        return t

    def value(self, index: int) -> Array | None:
        """The known value of an input, or None."""
        return self.values[index] if index < len(self.values) else None


@dataclass(frozen=True)
class Cost:
    """Work of one node at bound sizes. flops: multiply and add count as two."""

    flops: int
    bytes: int


InferRule = Callable[[Inference], tuple[TensorType, ...]]
Reference = Callable[[Attributes, Sequence[Any]], tuple[Array, ...]]
"""(attributes, inputs) -> outputs, optional trailing ones included. Inputs are arrays, None where
absent. Computes in the dtype it is given: float32, float64, integers, bool; never in halves."""
BoundRule = Callable[[Attributes, Sequence[Any], Sequence[Any], Sequence[Any], float], Any]
"""(attributes, inputs, input bounds, outputs, unit) -> a bound array per output.

All in float64. ``unit`` is the accumulator's unit roundoff (2**-24 for float32). An input bound is
an array that broadcasts to the input, 0.0 where it is exact, None where the input is absent. The
rule gives amplified input error plus the operator's own rounding, before the output is stored."""
CostRule = Callable[[Attributes, Sequence[TensorType | None], Sequence[TensorType]], Cost]


def default_cost(
    attributes: Attributes, inputs: Sequence[TensorType | None], outputs: Sequence[TensorType]
) -> Cost:
    """One operation an output element; every input and output moved once."""
    moved = sum(int(t.nbytes()) for t in (*inputs, *outputs) if t is not None)
    return Cost(sum(int(dimensions.volume(t.shape)) for t in outputs), moved)


@dataclass(frozen=True)
class Operator:
    """One operator of the newest ai.onnx opset (semantics: the ONNX standard).

    attributes: name -> default value, REQUIRED where there is none, None where absent is legal.
    layer_type: TensorRT's LayerType name, for display.
    structural: inputs whose *values* decide shapes or code (axes, sizes, clip limits); they are
    written into Bodies as literals.
    pointwise: output[i] depends on the inputs' (broadcast) elements at i alone.
    symbolic: the reference also runs on object arrays of symbolic sizes (shape arithmetic).
    exact: the float64 evaluation without inner rounding, where it differs from the reference.
    deterministic: False for the random operators.
    """

    name: str
    infer: InferRule
    reference: Reference
    bound: BoundRule
    layer_type: str
    family: str
    attributes: Attributes = field(default_factory=lambda: MappingProxyType({}))
    cost: CostRule = default_cost
    structural: frozenset[int] = frozenset()
    pointwise: bool = False
    symbolic: bool = False
    exact: Reference | None = None
    deterministic: bool = True
    domain: str = ""

    def complete(self, attributes: Attributes, *, place: str = "") -> dict[str, Any]:
        """The attributes with defaults filled in. Raises NetworkError naming what is wrong."""
        unknown = sorted(set(attributes) - set(self.attributes))
        if unknown:
            raise NetworkError(
                f"{self.name} has no attribute {', '.join(unknown)}",
                place=place,
                remedy=f"known: {', '.join(self.attributes) or 'none'}",
            )
        full = {**self.attributes, **{k: _freeze(v) for k, v in attributes.items()}}
        missing = [k for k, v in full.items() if isinstance(v, str) and v == REQUIRED]
        if missing:
            raise NetworkError(f"{self.name} needs attribute {', '.join(missing)}", place=place)
        return full

    def __repr__(self) -> str:
        return f"Operator({self.name})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Operator) and (self.domain, self.name) == (
            other.domain,
            other.name,
        )

    def __hash__(self) -> int:
        return hash((self.domain, self.name))


def _freeze(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_freeze(v) for v in value)
    if isinstance(value, np.ndarray):
        return Literal.of(value)
    return value.item() if isinstance(value, np.generic) else value


def _constant_types(inference: Inference) -> tuple[TensorType, ...]:
    literal: Literal = inference.attributes["value"]
    return (TensorType(literal.dtype, literal.shape),)


CONSTANT = Operator(
    name="Constant",
    infer=_constant_types,
    reference=lambda attributes, inputs: (attributes["value"].array(),),
    bound=lambda attributes, inputs, bounds, outputs, unit: (0.0,),
    layer_type="CONSTANT",
    family="constant",
    attributes=MappingProxyType({"value": REQUIRED}),
)
"""A literal. The interpreter binds its symbolic sizes."""


@dataclass(frozen=True)
class Node:
    """One application of an operator. An absent optional input is the empty name."""

    operator: Operator
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Attributes = field(default_factory=lambda: MappingProxyType({}))

    @property
    def op(self) -> str:
        return self.operator.name


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

    @property
    def anchor_node(self) -> Node | None:
        return None if self.anchor is None else self.nodes[self.anchor]

    @property
    def compute_type(self) -> DataType:
        """The type in which the anchor works: what it reads, seen through DequantizeLinear.

        Without an anchor, what the last node reads; a condition's BOOL does not count.
        """
        if not self.nodes:
            return self.types[self.outputs[0]].dtype
        node = self.nodes[-1] if self.anchor is None else self.nodes[self.anchor]
        read = [v for v in node.inputs if v]
        numbers = [v for v in read if self.types[v].dtype is not DataType.BOOL]
        value = next(iter(numbers or read), self.outputs[0])
        for n in self.nodes:
            if value in n.outputs and n.op == "DequantizeLinear":
                value = n.inputs[0]
        return self.types[value].dtype

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
            for d in i.type.shape:
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
        return hashlib.sha256(text.encode()).hexdigest()[:32]

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
            "inputs": [
                [
                    name(i.name),
                    i.type.dtype.value,
                    [dimensions.dim_to_json(d) for d in i.type.shape],
                    i.constant,
                ]
                for i in self.inputs
            ],
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
            tuple(
                BodyInput(
                    n,
                    TensorType(DataType(d), tuple(dimensions.dim_from_json(x) for x in shape)),
                    constant,
                )
                for n, d, shape, constant in data["inputs"]
            ),
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

    # -- evaluation -----------------------------------------------------------------------
    def evaluate(self, inputs: Mapping[str, Array], *, keep: bool = False) -> dict[str, Array]:
        """Typed reference evaluation: the outputs by name (every value with ``keep``)."""
        bindings = self.bind({k: v.shape for k, v in inputs.items()})
        types = self.substitute(bindings).types if self.symbols else self.types
        values: dict[str, Array] = dict(inputs)
        for n in self.nodes:
            args = [_widened(values[v]) if v else None for v in n.inputs]
            made = _run(n, n.operator.reference, args, bindings)[: len(n.outputs)]
            for o, v in zip(n.outputs, made, strict=True):
                if o:
                    with np.errstate(all="ignore"):  # beyond a half's range lies infinity
                        values[o] = np.asarray(v).astype(types[o].dtype.numpy, copy=False)
        return values if keep else {o: values[o] for o in self.outputs}

    def exact(
        self, inputs: Mapping[str, Array], *, unit: float = 2.0**-24
    ) -> dict[str, tuple[Array, Array]]:
        """float64 evaluation without inner rounding: output name -> (value, error bound).

        unit: the accumulator's unit roundoff. Each typed value adds eps(type)·|value|, and the
        type's smallest step near zero; integer types are exact.
        """
        bindings = self.bind({k: v.shape for k, v in inputs.items()})
        types = self.substitute(bindings).types if self.symbols else self.types
        values: dict[str, Any] = {k: _as_exact(v) for k, v in inputs.items()}
        errors: dict[str, Any] = dict.fromkeys(inputs, 0.0)
        for n in self.nodes:
            args = [values[v] if v else None for v in n.inputs]
            bounds = [errors[v] if v else None for v in n.inputs]
            rule = n.operator.exact or n.operator.reference
            outputs = _run(n, rule, args, bindings)
            if n.operator is CONSTANT:
                outputs = (_as_exact(outputs[0]),)
            with np.errstate(all="ignore"):
                own = n.operator.bound(n.attributes, args, bounds, outputs, unit)
            asked = slice(len(n.outputs))
            for o, y, e in zip(n.outputs, outputs[asked], own[asked], strict=True):
                if not o:
                    continue
                values[o] = y
                form = types[o].dtype.info
                stored = n.operator is not CONSTANT and form.eps
                with np.errstate(all="ignore"):
                    errors[o] = e + form.eps * np.abs(y) + form.tiny if stored else e
        return {
            o: (np.asarray(values[o]), np.broadcast_to(errors[o], np.shape(values[o])))
            for o in self.outputs
        }


def _widened(array: Array) -> Array:
    """Halves and smaller floats as float32; sub-byte integers as int32; others as they are."""
    if array.dtype == object:
        return array
    dtype = DataType.of(array)
    if dtype.is_float and dtype.itemsize < 4:
        return array.astype(np.float32)
    if dtype.is_integer and dtype.info.bits < 8:
        return array.astype(np.int32)
    return array


def _as_exact(array: Array) -> Array:
    return array.astype(np.float64) if DataType.of(array).is_float else _widened(array)


def _run(
    node: Node, rule: Reference, args: Sequence[Any], bindings: dimensions.Bindings
) -> tuple[Array, ...]:
    if node.operator is CONSTANT:
        return (node.attributes["value"].array(bindings),)
    with np.errstate(all="ignore"):
        return rule(node.attributes, args)


def infer(
    nodes: Sequence[Node],
    types: Mapping[str, TensorType],
    values: Mapping[str, Array] | None = None,
) -> tuple[dict[str, TensorType], dict[str, Array]]:
    """Types of every value, and the values known at build time (shape arithmetic included)."""
    known_types: dict[str, TensorType] = dict(types)
    known: dict[str, Array] = dict(values or {})
    for n in nodes:
        node_types, node_values = infer_node(
            n.operator,
            n.attributes,
            tuple(known_types[v] if v else None for v in n.inputs),
            tuple(known.get(v) if v else None for v in n.inputs),
            len(n.outputs),
            place=f"{n.op} '{n.outputs[0]}'",
        )
        for o, t, v in zip(n.outputs, node_types, node_values, strict=False):
            if o:
                known_types[o] = t
                if v is not None:
                    known[o] = v
    return known_types, known


SMALL = 1024
"""Largest element count of a value that inference computes ahead of folding."""


def infer_node(
    operator: Operator,
    attributes: Attributes,
    inputs: tuple[TensorType | None, ...],
    values: tuple[Array | None, ...],
    outputs: int = 1,
    *,
    place: str = "",
) -> tuple[tuple[TensorType, ...], tuple[Array | None, ...]]:
    """Output types of one node, and output values where shape arithmetic gives them."""
    try:
        types = operator.infer(Inference(attributes, inputs, values, outputs))
    except NetworkError as e:
        if e.place:
            raise
        raise InferenceError(e.problem, place=place, remedy=e.remedy) from None
    if operator is CONSTANT:
        return types, (attributes["value"].array(),)
    unknown = (None,) * len(types)
    if operator.name == "Shape":
        assert inputs[0] is not None
        start, end = attributes["start"], attributes["end"]
        return types, (_sizes(inputs[0].shape[slice(start, end)]),)
    if operator.name == "Size":
        assert inputs[0] is not None
        return types, (_sizes((dimensions.volume(inputs[0].shape),)).reshape(()),)
    ready = operator.symbolic and all(
        v is not None for v, t in zip(values, inputs, strict=False) if t is not None
    )
    if not ready or any(v is not None and v.size > SMALL for v in values):
        return types, unknown
    if any(not dimensions.is_static(t.shape) or dimensions.volume(t.shape) > SMALL for t in types):
        return types, unknown
    try:
        # Comparisons of unbound sizes have no answer; then the value is simply not known.
        with np.errstate(all="ignore"):
            given = [None if v is None else _widened(v) for v in values]
            results = operator.reference(attributes, given)[: len(types)]
    except (TypeError, NetworkError):
        return types, unknown
    return types, tuple(_settled(r, t) for r, t in zip(results, types, strict=True))


def _sizes(sizes: Sequence[Any]) -> Array:
    out = np.empty(len(sizes), object)
    out[:] = list(sizes)
    return _settled(out, TensorType(DataType.INT64, (len(sizes),)))


def _settled(value: Any, type_: TensorType) -> Array:
    """Numeric where every element is a number."""
    array = np.asarray(value)
    if array.dtype == object and not any(isinstance(v, SymbolicDim) for v in array.reshape(-1)):
        return array.astype(type_.dtype.numpy)
    return array if array.dtype == object else array.astype(type_.dtype.numpy, copy=False)


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
        case {"tuple": items}:
            return tuple(_value_from_json(v, lookup) for v in items)
        case _:
            return value
