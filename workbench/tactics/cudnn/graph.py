"""A cuDNN graph as plain records: tensors, operations, and where each tensor's bytes are.

What a Body becomes is decided here, without the library: ``frontend`` hands the records to it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from workbench.datatypes import DataType
from workbench.formats import Format
from workbench.tactics.terms import Constant


@dataclass(frozen=True)
class Input:
    """Memory of a dynamic input of the Body, from an element on."""

    index: int
    offset: int = 0


@dataclass(frozen=True)
class Output:
    """Memory of the Body's output."""


@dataclass(frozen=True)
class Number:
    """One float32 that the host passes at each launch."""

    value: float


PRODUCTS = ("conv_fprop", "conv_dgrad", "matmul")
"""Operations that sum products; the sum of float32 products may be TF32's."""

Place = Input | Output | Constant | Number | None


@dataclass(frozen=True)
class GraphTensor:
    """dims and strides in elements, in cuDNN's order of axes. place: None within the graph."""

    name: str
    dims: tuple[int, ...]
    strides: tuple[int, ...]
    kind: DataType
    place: Place = None


@dataclass(frozen=True)
class Operation:
    """One call of the frontend's graph.

    kind: the method. inputs: argument name -> tensor name, in order. options: its other arguments.
    compute: the type that it computes in. output: the tensor that it makes (the first, if several).
    """

    kind: str
    inputs: tuple[tuple[str, str], ...]
    output: str
    options: tuple[tuple[str, Any], ...] = ()
    compute: DataType = DataType.FLOAT


@dataclass(frozen=True)
class Graph:
    """A whole graph.

    variant: what tells it from the other graphs of the same Body. inputs, outputs: the layouts of
    the Body's dynamic inputs and outputs. io: the type of what it reads first.
    """

    variant: str
    tensors: tuple[GraphTensor, ...]
    operations: tuple[Operation, ...]
    inputs: tuple[Format, ...]
    outputs: tuple[Format, ...]
    io: DataType

    def tensor(self, name: str) -> GraphTensor:
        return next(t for t in self.tensors if t.name == name)

    @property
    def float_product(self) -> str:
        """The operation that multiplies float32 factors, empty where there is none."""
        if self.io is not DataType.FLOAT:
            return ""
        return next((o.kind for o in self.operations if o.kind in PRODUCTS), "")

    @property
    def placed(self) -> tuple[tuple[int, GraphTensor], ...]:
        """Tensors that need an address, with the numbers that cuDNN knows them by."""
        return tuple((k, t) for k, t in enumerate(self.tensors, 1) if t.place is not None)

    @property
    def text(self) -> str:
        """What decides the machine code: everything but the values of the constants."""
        parts: list[Any] = [self.io.value]
        for t in self.tensors:
            place = "" if t.place is None else type(t.place).__name__
            parts.append([t.name, t.dims, t.strides, t.kind.value, place])
        for o in self.operations:
            parts.append([o.kind, o.inputs, o.output, o.options, o.compute.value])
        return json.dumps(parts, default=str, separators=(",", ":"))


def dense(dims: Sequence[int]) -> tuple[int, ...]:
    """Row-major strides."""
    return _strides(dims, range(len(dims)))


def channels_last(dims: Sequence[int]) -> tuple[int, ...]:
    """Strides of (N, C, spatial...) stored with the channels innermost."""
    return _strides(dims, (0, *range(2, len(dims)), 1))


def _strides(dims: Sequence[int], order: Sequence[int]) -> tuple[int, ...]:
    found, step = [0] * len(dims), 1
    for axis in reversed(order):
        found[axis] = step
        step *= dims[axis]
    return tuple(found)


class Drawing:
    """A graph under construction. Names are numbered in order of creation."""

    def __init__(self) -> None:
        self.tensors: dict[str, GraphTensor] = {}
        self.operations: list[Operation] = []

    def tensor(
        self,
        label: str,
        dims: Sequence[int],
        strides: Sequence[int],
        kind: DataType,
        place: Place = None,
    ) -> str:
        name = f"{label}{len(self.tensors)}"
        self.tensors[name] = GraphTensor(name, tuple(dims), tuple(strides), kind, place)
        return name

    def add(
        self,
        kind: str,
        inputs: Sequence[tuple[str, str]],
        dims: Sequence[int],
        strides: Sequence[int],
        *,
        result: DataType = DataType.FLOAT,
        compute: DataType = DataType.FLOAT,
        **options: Any,
    ) -> str:
        """An operation; gives the name of its result, which is not stored."""
        output = self.tensor("t", dims, strides, result)
        given = tuple(options.items())
        self.operations.append(Operation(kind, tuple(inputs), output, given, compute))
        return output

    def graph(
        self,
        result: str,
        kind: DataType,
        *,
        variant: str,
        io: DataType,
        inputs: Sequence[Format],
        outputs: Sequence[Format],
    ) -> Graph:
        """The graph that stores ``result`` as ``kind``; what does not lead to it is left out."""
        wanted, kept = {result}, list[Operation]()
        for o in reversed(self.operations):
            if o.output in wanted:
                kept.insert(0, o)
                wanted.update(v for _, v in o.inputs)
        stored = replace(self.tensors[result], kind=kind, place=Output())
        tensors = tuple(
            stored if t.name == result else t for t in self.tensors.values() if t.name in wanted
        )
        return Graph(variant, tensors, tuple(kept), tuple(inputs), tuple(outputs), io)
