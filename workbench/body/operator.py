"""Operator and Node: one computation's rules, and its application to named values."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from workbench import dimensions
from workbench.body.values import Array, Literal, TensorType
from workbench.errors import InferenceError, NetworkError

Attributes = Mapping[str, Any]
REQUIRED = "<required>"


@dataclass(frozen=True)
class Inference:
    """What an operator's type rule sees.

    inputs: a type per input, None where an optional input is absent.
    values: the input's value where it is known at build time (numeric, or objects for sizes).
    names: of the outputs, after which sizes are named that only the data decides.
    """

    attributes: Attributes
    inputs: tuple[TensorType | None, ...]
    values: tuple[Array | None, ...]
    outputs: int = 1
    names: tuple[str, ...] = ()

    def input(self, index: int) -> TensorType:
        """The type of a required input."""
        t = self.inputs[index] if index < len(self.inputs) else None
        if t is None:
            raise InferenceError(f"input {index} is missing")
        return t

    def value(self, index: int) -> Array | None:
        """The known value of an input, or None."""
        return self.values[index] if index < len(self.values) else None

    def later(self, axis: int, output: int = 0) -> dimensions.SymbolicDim:
        """A size of an output that only the data decides: a symbol that a run binds."""
        name = self.names[output] if output < len(self.names) else ""
        return later_size(name or (self.names[0] if self.names else "value"), axis, output)


def later_size(name: str, axis: int, output: int = 0) -> dimensions.SymbolicDim:
    """The symbol of a size that only the data decides, named after its tensor and axis."""
    plain = re.sub(r"\W", "_", name)
    if plain != name or not plain.isidentifier():
        plain = f"_{plain}_{zlib.crc32(name.encode()):08x}"
    return dimensions.symbol(f"{plain}__{output}_{axis}" if output else f"{plain}__{axis}")


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


MisfitRule = Callable[[Attributes, Sequence[Any]], str]


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
    stored: the reference reads its inputs as they are stored, halves not widened (BitCast).
    host: only the host runs it, by its reference: values that are no tensors of numbers, results
    whose size the data decides, control flow.
    misfit: why the operator is not defined on these values, empty where it is; asked before the
    reference runs on values that are not samples.
    open: the output types where the value of a structural input is not known, with sizes
    from ``Inference.later``; None where not even the rank is then known.
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
    stored: bool = False
    domain: str = ""
    host: bool = False
    open: InferRule | None = None
    misfit: MisfitRule | None = None

    @property
    def key(self) -> str:
        """What the registry, networks and plans call it: ``domain::name`` outside ai.onnx."""
        return f"{self.domain}::{self.name}" if self.domain else self.name

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
        return self.operator.key
