"""Scalar code of pointwise nodes: what a generated loop computes for one element."""

from __future__ import annotations

import functools
import math
import platform
from dataclasses import dataclass

from workbench.body import CONSTANT, Body, Literal, Node
from workbench.datatypes import DataType
from workbench.tactics.numba.scalars import RULES, STORAGE, Value, constant, working_name
from workbench.tactics.scalar_text import Scalars, Untranslatable

IMPORTS = """\
import math
from math import inf, nan
from numpy import (
    bool_, ceil, float32, float64, floor, fmod, int8, int16, int32, int64,
    rint, sqrt, trunc, uint8, uint16, uint32, uint64,
)
from workbench.tactics.numba.mathematics import (
    bf16_to_float, divide_toward_zero, erf_f32, erf_f64, exp_f32, exp_f64, float_to_bf16,
    float_to_half, gelu_f32, gelu_f64, half_to_float, row_centered_square_sum, row_exp_sum,
    row_max, row_sum, sigmoid_f32, sigmoid_f64, softplus_f32, softplus_f64, tanh_f32, tanh_f64,
)
"""
"""Head of every generated module."""


@dataclass(frozen=True)
class Operand:
    """What a loop reads: a Body input, or a literal too large to write into the code.

    shape: as it broadcasts, aligned at the right with the loop's shape. stored: its own shape,
    where that is another: a table of which the loop reads one row at a time.
    """

    name: str
    dtype: DataType
    shape: tuple[int, ...]
    literal: Literal | None = None
    stored: tuple[int, ...] | None = None


class Translator:
    """Turns nodes into lines. Operands are shared; ``lines`` grows in order.

    reads: operands that the lines so far need, by their index.
    """

    def __init__(self, body: Body, operands: list[Operand]) -> None:
        self.body = body
        self.operands = operands
        self.lines: list[str] = []
        self.reads: dict[int, None] = {}
        self.values: dict[str, Value] = {}
        self._producers = {o: n for n in body.nodes for o in n.outputs if o}
        self._inputs = {i.name: i for i in body.inputs}

    def producer(self, name: str) -> Node | None:
        """The node that makes a value, None for an input."""
        return self._producers.get(name)

    def define(self, name: str, text: str) -> None:
        """A value computed elsewhere, such as a reduction's result."""
        t = self.body.types[name]
        self.values[name] = Value(text, t.dtype, t.shape)

    def value(self, name: str) -> Value:
        """The scalar of a value, with the lines that compute it. Raises Untranslatable."""
        if name not in self.values:
            self.values[name] = self._make(name)
        return self.values[name]

    def operand(self, name: str, shape: tuple[int, ...]) -> Value:
        """An element of a Body input or literal, read as if it had this shape."""
        node = self._producers.get(name)
        literal: Literal | None = None
        if node is not None:
            if node.operator is not CONSTANT:
                raise Untranslatable(f"'{name}' must be an input or a literal, {node.op} gives it")
            literal = node.attributes["value"]
        t = self.body.types[name]
        _check_storage(name, t.dtype)
        if literal is not None and len(literal.values) == 1:
            return Value(constant(literal.values[0], t.dtype), t.dtype, shape)
        wanted = Operand(name, t.dtype, shape, literal)
        if wanted not in self.operands:
            self.operands.append(wanted)
        index = self.operands.index(wanted)
        self.reads[index] = None
        return Value(f"x{index}", t.dtype, shape)

    def _make(self, name: str) -> Value:
        node = self._producers.get(name)
        t = self.body.types[name]
        if name in self._inputs or (node is not None and node.operator is CONSTANT):
            return self.operand(name, t.shape)
        assert node is not None
        _check_storage(name, t.dtype)
        text = self._translate(node)
        return self.assign(text, name)

    def assign(self, text: str, name: str) -> Value:
        """A new variable that holds a value of the Body."""
        t = self.body.types[name]
        variable = f"v{len(self.lines)}_{len(self.operands)}"
        self.lines.append(f"{variable} = {working_name(t.dtype)}({text})")
        return Value(variable, t.dtype, t.shape)

    def _translate(self, node: Node) -> str:
        if node.op in ("QuantizeLinear", "DequantizeLinear"):
            return self._affine(node)
        if not node.operator.pointwise or node.op not in RULES:
            raise Untranslatable(f"{node.op} is not computed element by element here")
        args = [self.value(v) if v else None for v in node.inputs]
        texts = [a.text if a is not None else "" for a in args]
        kinds = [a.dtype if a is not None else None for a in args]
        out = self.body.types[node.outputs[0]].dtype
        return RULES[node.op](Scalars(node, texts, kinds, out, constant))

    def _affine(self, node: Node) -> str:
        shape = self.body.types[node.inputs[0]].shape
        if node.attributes.get("block_size"):
            raise Untranslatable("blocked quantization has a scale for every block")
        parameters = [
            self.operand(v, self._spread(v, node, shape)).text if v else None
            for v in node.inputs[1:]
        ]
        x = self.value(node.inputs[0])
        scale, point = [*parameters, None][:2]
        if node.op == "DequantizeLinear":
            centered = x.text if point is None else f"(int32({x.text}) - int32({point}))"
            return f"float32({centered}) * float32({scale})"
        info = self.body.types[node.outputs[0]].dtype.info
        if info.kind != "integer" or info.bits > 16:
            raise Untranslatable(f"quantizes to {self.body.types[node.outputs[0]].dtype}")
        k = f"q{len(self.lines)}_{len(self.operands)}"
        shift = "" if point is None else f" + float32({point})"
        self.lines += [
            f"{k} = rint(float32({x.text}) / float32({scale})){shift}",
            f"{k} = float32({info.low}) if {k} < float32({info.low}) else {k}",
            f"{k} = float32({info.high}) if {k} > float32({info.high}) else {k}",
            f"{k} = {k} if {k} == {k} else float32(0.0)",
        ]
        return f"int32({k})"

    def _spread(self, name: str, node: Node, shape: tuple[int, ...]) -> tuple[int, ...]:
        own = self.body.types[name].shape
        if math.prod(own) == 1:
            return (1,)
        if len(own) != 1:
            raise Untranslatable(f"scale '{name}' has rank {len(own)}")
        axis = node.attributes["axis"] % len(shape)
        return (*own, *(1,) * (len(shape) - axis - 1))


def _check_storage(name: str, dtype: DataType) -> None:
    if dtype not in STORAGE:
        raise Untranslatable(f"'{name}' is {dtype}, which generated kernels do not read")
    if dtype is DataType.HALF and not converts_half():
        raise Untranslatable(f"'{name}' is HALF, which this processor does not convert (f16c)")


@functools.cache
def converts_half() -> bool:
    """Whether the processor converts IEEE halves; elsewhere LLVM would call a missing function."""
    from llvmlite import binding

    arm = platform.machine().lower() in ("aarch64", "arm64")
    return arm or bool(binding.get_host_cpu_features().get("f16c"))
