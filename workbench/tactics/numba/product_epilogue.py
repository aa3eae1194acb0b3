"""A product's epilogue as steps of ``product_finish``: which nodes it takes, and their numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.body import CONSTANT, Array, Body, Node
from workbench.datatypes import DataType
from workbench.tactics.numba.expressions import Operand
from workbench.tactics.scalar_text import Untranslatable

KINDS = {DataType.FLOAT: "float32", DataType.INT8: "int8", DataType.UINT8: "uint8"}
MOST_OPERANDS, MOST_OUTPUTS = 4, 2
MAGIC = 12582912.0
"""See ``vector_rows``."""

Step = tuple[Any, ...]


@dataclass(frozen=True)
class Quantization:
    """Numbers of a QuantizeLinear: 1 / scale, the bounds without zero point, the rounding addend.

    bounds: of the integers that are stored.
    """

    scale: str
    zero: str
    bounds: tuple[int, int]


@dataclass(frozen=True)
class Epilogue:
    """Steps from value 0, the product, to the results; see ``product_finish``.

    operands: read as the result lies, or a row of columns. numbers: names of constants of one
    element, or Quantizations of four numbers, in the order of the numbers they become.
    """

    steps: tuple[Step, ...]
    results: tuple[tuple[int, str], ...]
    operands: tuple[Operand, ...]
    numbers: tuple[str | Quantization, ...]

    @property
    def count(self) -> int:
        """How many numbers there are."""
        return _count(self.numbers)

    def values(self, constants: Mapping[str, Array]) -> Array:
        """The numbers, as float32."""
        found: list[float] = []
        for n in self.numbers:
            if isinstance(n, str):
                found.append(_only(constants, n))
                continue
            scale, zero = _only(constants, n.scale), _only(constants, n.zero) if n.zero else 0
            low, high = n.bounds
            found += [1 / scale, low - zero, high - zero, MAGIC + zero]
        return np.array([*found, 0], np.float32)


def _count(numbers: Sequence[str | Quantization]) -> int:
    return sum(4 if isinstance(n, Quantization) else 1 for n in numbers)


def _only(constants: Mapping[str, Array], name: str) -> float:
    return float(np.asarray(constants[name]).reshape(-1)[0])


class EpilogueReader:
    """Turns the nodes after a product into steps. Raises Untranslatable, naming what does not fit.

    axis: of the result's columns.
    """

    def __init__(self, body: Body, result: Sequence[int], axis: int) -> None:
        self.body, self.result = body, tuple(result)
        self.row = tuple(n if k == axis else 1 for k, n in enumerate(result))
        self.constant = {i.name for i in body.inputs if i.constant}
        self.inputs = {i.name for i in body.inputs}
        self.producers = {o: n for n in body.nodes for o in n.outputs if o}
        self.steps: list[Step] = []
        self.operands: list[Operand] = []
        self.numbers: list[str | Quantization] = []
        self.values: dict[str, int] = {}

    def read(self, product: Node, bias: tuple[str, tuple[int, ...]] | None) -> Epilogue:
        """All outputs. bias: a third input of the product, and the shape it is read as."""
        value = 0
        if bias is not None:
            value = self.add("Add", 0, self.operand(*bias))
        self.values[product.outputs[0]] = value
        outputs = zip(self.body.outputs, self.body.output_types, strict=True)
        results = tuple((self.output(name, t.shape), self.kind(name)) for name, t in outputs)
        if len(results) > MOST_OUTPUTS or len(self.operands) > MOST_OPERANDS:
            raise Untranslatable(f"{len(results)} outputs, {len(self.operands)} operands")
        return Epilogue(tuple(self.steps), results, tuple(self.operands), tuple(self.numbers))

    def output(self, name: str, shape: tuple[int, ...]) -> int:
        if shape != self.result:
            raise Untranslatable(f"output '{name}' has another shape than the product")
        value = self.value(name)
        quantized = bool(value) and self.steps[value - 1][0] == "quantize"
        if quantized == (self.body.types[name].dtype is DataType.FLOAT):
            raise Untranslatable(f"output '{name}' is {self.body.types[name].dtype}")
        return value

    def kind(self, name: str) -> str:
        dtype = self.body.types[name].dtype
        if dtype not in KINDS:
            raise Untranslatable(f"'{name}' is {dtype}: epilogues here are float32 and bytes")
        return KINDS[dtype]

    def add(self, *step: Any) -> int:
        """One more step; the number of its value."""
        self.steps.append(step)
        return len(self.steps)

    def value(self, name: str) -> int:
        """The number of a value of the Body, with the steps that make it."""
        if name not in self.values:
            self.values[name] = self.made(name)
        return self.values[name]

    def made(self, name: str) -> int:
        node = self.producers.get(name)
        if node is None:
            return self.operand(name, self.body.types[name].shape)
        if node.operator is CONSTANT:
            literal = node.attributes["value"]
            if len(literal.values) != 1:
                raise Untranslatable(f"'{name}' is a literal of {len(literal.values)} elements")
            return self.add("literal", float(literal.values[0]))
        match node.op:
            case "QuantizeLinear":
                return self.quantized(node)
            case "DequantizeLinear":
                return self.dequantized(node)
            case _:
                return self.computed(node)

    def computed(self, node: Node) -> int:
        self.kind(node.outputs[0])
        if self.body.types[node.outputs[0]].dtype is not DataType.FLOAT:
            raise Untranslatable(f"{node.op} gives {self.body.types[node.outputs[0]].dtype}")
        given = [self.value(v) if v else None for v in node.inputs]
        match node.op:
            case "Add" | "Sub" | "Mul" | "Div":
                return self.add(node.op, *given)
            case "Identity":
                return self.value(node.inputs[0])
            case "Relu":
                return self.add("Most", given[0], self.add("literal", 0.0))
            case "Clip":
                found = self.value(node.inputs[0])
                for name, bound in zip(("Most", "Least"), given[1:], strict=False):
                    found = found if bound is None else self.add(name, found, bound)
                return found
            case "Gelu" if node.attributes["approximate"] != "tanh":
                return self.add("Gelu", *given)
            case _:
                raise Untranslatable(
                    f"{node.op} '{node.outputs[0]}' is no step of an epilogue here"
                )

    def operand(self, name: str, shape: tuple[int, ...]) -> int:
        """An element of a Body input, read as if it had this shape."""
        dtype = self.body.types[name].dtype
        self.kind(name)
        if math.prod(shape) == 1 and name in self.constant:
            return self.number(name)
        full = (*(1,) * (len(self.result) - len(shape)), *shape)
        if full not in (self.result, self.row):
            raise Untranslatable(f"'{name}' {shape} lies across the result's rows")
        wanted = Operand(name, dtype, shape)
        if wanted not in self.operands:
            self.operands.append(wanted)
        place = "row" if full == self.row and full != self.result else "full"
        return self.add(place, self.operands.index(wanted))

    # -- quantization ---------------------------------------------------------------------
    def quantized(self, node: Node) -> int:
        dtype = self.body.types[node.outputs[0]].dtype
        if dtype not in (DataType.INT8, DataType.UINT8):
            raise Untranslatable(f"'{node.outputs[0]}' is quantized to {dtype}")
        scale, zero = self.single(node)
        value = self.value(node.inputs[0])
        first = _count(self.numbers)
        info = dtype.info
        self.numbers.append(Quantization(scale, zero, (int(info.low), int(info.high))))
        return self.add("quantize", value, first)

    def dequantized(self, node: Node) -> int:
        scale, zero = self.single(node)
        value = self.value(node.inputs[0])
        if value and self.steps[value - 1][0] == "quantize":
            value = self.add("requantized", value)
        if zero:
            value = self.add("Sub", value, self.number(zero))
        return self.add("Mul", value, self.number(scale))

    def number(self, name: str) -> int:
        first = _count(self.numbers)
        self.numbers.append(name)
        return self.add("number", first)

    def single(self, node: Node) -> tuple[str, str]:
        """Scale and zero point (or empty) of a node that has one of each."""
        names = [*node.inputs[1:], ""][:2]
        for v in names:
            if v and (math.prod(self.body.types[v].shape) != 1 or v not in self.constant):
                raise Untranslatable(f"{node.op} '{node.outputs[0]}' has more than one known scale")
        if self.body.types[names[0]].dtype is not DataType.FLOAT:
            raise Untranslatable(f"the scale '{names[0]}' is not float32")
        return names[0], names[1]
