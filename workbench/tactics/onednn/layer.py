"""A Body as oneDNN runs it: one primitive, its operands, and post-operations on its result.

``read_layer`` takes a Problem apart or refuses, naming the node that does not fit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from workbench.body import CONSTANT, Array, Node, TensorType
from workbench.datatypes import DataType
from workbench.records import Refusal
from workbench.tactics.onednn.activations import (
    BINARY,
    UNARY,
    Eltwise,
    named,
    recognized,
    with_scalar,
)
from workbench.tactics.onednn.constants import Algorithm
from workbench.tactics.onednn.descriptors import ELEMENT_TYPES
from workbench.tactics.onednn.parts import Affine, Combine, Layer, Operand, PostOperation
from workbench.tactics.protocol import Problem


def read_layer(problem: Problem) -> Layer | Refusal:
    """The Body as one primitive with post-operations, or why it is not one."""
    return _Reader(problem).read()


POINTWISE = frozenset(
    (*UNARY, *BINARY, "Cast", "Identity", "QuantizeLinear", "DequantizeLinear", "Pow")
)
"""Operators that are read as a chain even where a Body calls one its anchor."""

_DATA_INPUTS = {
    "Conv": 3,
    "ConvTranspose": 3,
    "Gemm": 3,
    "MatMul": 2,
    "LayerNormalization": 3,
}
"""Leading inputs that are tensors; every other listed anchor reads one, Concat all."""


class _Reader:
    """Walks one Body from its anchor outward."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.body = problem.body
        self.types = problem.body.types
        self.producers = {v: n for n in self.body.nodes for v in n.outputs if v}
        self.dynamic = {i.name: k for k, i in enumerate(self.body.dynamic_inputs)}
        self.known: dict[str, Array | None] = {}

    def read(self) -> Layer | Refusal:
        body = self.body
        if len(body.outputs) != 1:
            return Refusal(f"the layer has {len(body.outputs)} outputs, oneDNN writes one")
        for i in body.dynamic_inputs:
            if i.type.dtype not in ELEMENT_TYPES:
                return Refusal(f"oneDNN does not compute with {i.type.dtype.value}", i.name)
        anchor = body.anchor_node
        if anchor is None or anchor.op in POINTWISE:
            chain = self._chain()
            if isinstance(chain, Refusal):
                return chain
            anchor, current, tail = chain
            read = self.operand(current)
            operands = read if isinstance(read, Refusal) else (read,)
        else:
            current = anchor.outputs[0]
            operands, tail = self._operands(anchor), self._after(current)
        if isinstance(operands, Refusal):
            return operands
        rest = self._post_operations(current, tail)
        if isinstance(rest, Refusal):
            return rest
        post, affine = rest
        result, output = self.types[current], self.types[body.outputs[0]]
        for t in (result, output, *(o.type for o in operands if o is not None)):
            if t.dtype not in ELEMENT_TYPES:
                return Refusal(f"oneDNN does not compute with {t.dtype.value}", anchor.op)
            if not all(t.shape):
                return Refusal(f"tensor {t} is empty", anchor.op)
        # A tensor's value is in its operand: dequantized weights would be computed for nobody.
        data = len(operands)
        values = tuple(
            self.constant(v) if v and k >= data else None for k, v in enumerate(anchor.inputs)
        )
        return Layer(self.problem, anchor, operands, values, post, result, output, affine)

    # -- what the anchor reads ------------------------------------------------------------
    def _chain(self) -> tuple[Node, str, list[Node]] | Refusal:
        """First node, value that it transforms, and the nodes after that value."""
        reading = [
            n
            for n in self.body.nodes
            if n.operator is not CONSTANT and any(v and self.constant(v) is None for v in n.inputs)
        ]
        if not reading:
            return Refusal("the layer reads no input at run time")
        first = next((n for n in reading if n.op != "DequantizeLinear"), None)
        if first is None:
            return reading[0], reading[0].outputs[0], []
        shape = self.types[first.outputs[0]].shape
        for v in first.inputs:
            if v and self.constant(v) is None and self.types[v].shape == shape:
                return first, v, self._after(v)
        return Refusal(f"no input of {first.op} has the shape of its result, {shape}")

    def _operands(self, anchor: Node) -> tuple[Operand | None, ...] | Refusal:
        if any(anchor.outputs[1:]):
            return Refusal(f"{anchor.op} has a second output, '{anchor.outputs[1]}'")
        count = len(anchor.inputs) if anchor.op == "Concat" else _DATA_INPUTS.get(anchor.op, 1)
        found: list[Operand | None] = []
        for v in anchor.inputs[:count]:
            operand = self.operand(v) if v else None
            if isinstance(operand, Refusal):
                return operand
            found.append(operand)
        return tuple(found)

    def constant(self, value: str) -> Array | None:
        """The value where it is known at build time (literals and constant inputs folded)."""
        if value not in self.known:
            self.known[value] = self._fold(value)
        return self.known[value]

    def _fold(self, value: str) -> Array | None:
        if value in self.problem.constants:
            return self.problem.constants[value]
        node = self.producers.get(value)
        if node is None:
            return None
        if node.operator is CONSTANT:
            return node.attributes["value"].array()
        if any(v and self.constant(v) is None for v in node.inputs):
            return None
        given = [self.constant(v) if v else None for v in node.inputs]
        wide = [None if a is None else _computable(a) for a in given]
        made = node.operator.reference(node.attributes, wide)
        folded = made[node.outputs.index(value)]
        return np.asarray(folded).astype(self.types[value].dtype.numpy, copy=False)

    def operand(self, value: str) -> Operand | Refusal:
        """What the anchor reads, seen through DequantizeLinear and Transpose."""
        node = self.producers.get(value)
        if node is not None and node.op == "DequantizeLinear" and not self._unpacked(node):
            return self._dequantized(node)
        array = self.constant(value)
        if array is not None:
            return Operand(self.types[value], array=array)
        if value in self.dynamic:
            return Operand(self.types[value], index=self.dynamic[value])
        assert node is not None
        if node.op == "Transpose":
            inner = self.operand(node.inputs[0])
            if isinstance(inner, Refusal):
                return inner
            if inner.permutation is not None or (inner.affine and inner.affine.axis is not None):
                return Refusal("two transposes, or one of per-axis scales", f"{node.op} '{value}'")
            axes = node.attributes["perm"] or tuple(reversed(range(len(inner.shape))))
            return Operand(inner.type, inner.index, inner.array, inner.affine, tuple(axes))
        return Refusal(f"{node.op} before the anchor is not part of any oneDNN primitive", value)

    def _unpacked(self, node: Node) -> bool:
        """Whether it dequantizes constants of a type that oneDNN has not: before it runs."""
        stored = self.types[node.inputs[0]].dtype
        return stored not in ELEMENT_TYPES and self.constant(node.outputs[0]) is not None

    def _dequantized(self, node: Node) -> Operand | Refusal:
        place = f"DequantizeLinear '{node.outputs[0]}'"
        stored = self.operand(node.inputs[0])
        if isinstance(stored, Refusal):
            return stored
        affine = self.affine(node, self.types[node.inputs[0]])
        if isinstance(affine, Refusal):
            return affine
        if stored.permutation is not None or stored.affine is not None:
            return Refusal("it follows another layout or scale change", place)
        return Operand(stored.type, stored.index, stored.array, affine)

    def affine(self, node: Node, quantized: TensorType) -> Affine | Refusal:
        """The constant scale and zero point of a QuantizeLinear or DequantizeLinear."""
        place = f"{node.op} '{node.outputs[0]}'"
        scale = self.constant(node.inputs[1])
        point = node.inputs[2] if len(node.inputs) > 2 else ""
        zero = self.constant(point) if point else np.zeros((), np.int32)
        if scale is None or zero is None:
            return Refusal("its scale or zero point arrives at run time", place)
        if node.attributes.get("block_size"):
            return Refusal("it is quantized in blocks", place)
        zeros = np.unique(zero.astype(np.int64))
        if zeros.size > 1:
            return Refusal("its zero points differ between channels", place)
        flat = scale.astype(np.float32).reshape(-1)
        if flat.size == 1:
            return Affine(flat, int(zeros[0]), None)
        axis = node.attributes.get("axis", 1) % max(len(quantized.shape), 1)
        return Affine(flat, int(zeros[0]), axis)

    # -- what follows the anchor ----------------------------------------------------------
    def _after(self, value: str) -> list[Node]:
        reached = {value}
        after: list[Node] = []
        for n in self.body.nodes:
            if any(v in reached for v in n.inputs):
                reached.update(n.outputs)
                after.append(n)
        return after

    def _post_operations(
        self, current: str, tail: list[Node]
    ) -> tuple[tuple[PostOperation, ...], Affine | None] | Refusal:
        found: list[PostOperation] = []
        affine: Affine | None = None
        while tail:
            node = tail[0]
            if node.op in ("QuantizeLinear", "Cast", "Identity"):
                taken = 1
                # What lies between its post-operations is float32, whatever it is cast to.
                if len(tail) > 1 and node.op == "QuantizeLinear":
                    return Refusal(f"{tail[1].op} follows its {node.op}", node.op)
                if node.op == "QuantizeLinear":
                    read = self.affine(node, self.types[node.outputs[0]])
                    if isinstance(read, Refusal):
                        return read
                    if not read.is_per_tensor:
                        return Refusal("the output is quantized per channel", node.op)
                    affine = read
                elif node.op == "Cast" and not self.types[node.outputs[0]].dtype.is_float:
                    return Refusal("oneDNN rounds where a Cast to integers truncates", node.op)
            else:
                step = self._step(current, tail)
                if isinstance(step, Refusal):
                    return step
                operations, taken = step
                found.extend(operations)
            current = tail[taken - 1].outputs[0]
            tail = tail[taken:]
        if current != self.body.outputs[0]:
            return Refusal(f"output '{self.body.outputs[0]}' is not the end of the chain")
        return tuple(found), affine

    def _step(
        self, current: str, tail: list[Node]
    ) -> tuple[tuple[PostOperation, ...], int] | Refusal:
        regions = self._closed(current, tail)
        for taken in regions:
            operation = self._activation(current, tail[:taken])
            if operation is not None and self._keeps_shape(current, tail[taken - 1]):
                return (operation,), taken
        if regions:
            ops = "+".join(n.op for n in tail[: regions[0]])
            return Refusal(f"oneDNN has no post-operation for {ops}", tail[0].outputs[0])
        node, last = tail[0], tail[0].outputs[0]
        if node.op not in BINARY or current not in node.inputs or len(node.inputs) != 2:
            return Refusal(f"oneDNN has no post-operation for {node.op}", last)
        if any(current in n.inputs for n in tail[1:]):
            return Refusal(f"the result is read by {node.op} and later again", last)
        if not self._keeps_shape(current, node):
            return Refusal(f"{node.op} changes the shape of the result", last)
        first = node.inputs[0] == current
        other = self.operand(node.inputs[1 if first else 0])
        if isinstance(other, Refusal):
            return other
        if first or node.op not in ("Sub", "Div"):
            return (Combine(BINARY[node.op], other),), 1
        if node.op == "Sub":
            return (Eltwise(Algorithm.LINEAR, -1.0), Combine(Algorithm.ADD, other)), 1
        return Refusal("the result is the divisor", last)

    def _keeps_shape(self, current: str, node: Node) -> bool:
        return self.types[node.outputs[0]].shape == self.types[current].shape

    def _closed(self, current: str, tail: list[Node]) -> list[int]:
        """Counts of leading nodes of ``tail`` that are one function of ``current`` alone."""
        inside = {current}
        counts: list[int] = []
        for k, n in enumerate(tail):
            if len(n.outputs) != 1 or not all(
                not v or v in inside or self._scalar(v) is not None for v in n.inputs
            ):
                break
            read_later = {v for m in tail[k + 1 :] for v in m.inputs}
            if not inside & (read_later | set(self.body.outputs)):
                counts.append(k + 1)
            inside.add(n.outputs[0])
        return counts

    def _scalar(self, value: str) -> float | None:
        array = self.constant(value)
        if array is None or array.size != 1 or array.dtype == object:
            return None
        return float(array.reshape(-1)[0])

    def _activation(self, current: str, nodes: Sequence[Node]) -> Eltwise | None:
        if not self.types[current].dtype.is_float:
            return None
        if len(nodes) == 1:
            n = nodes[0]
            if n.op in UNARY:
                return named(n, [self._scalar(v) if v else None for v in n.inputs[1:]])
            if len(n.inputs) == 2 and n.inputs[0] != n.inputs[1]:
                first = n.inputs[0] != current
                scalar = self._scalar(n.inputs[0 if first else 1])
                if scalar is not None:
                    return with_scalar(n.op, scalar, scalar_first=first)
        scalars = {
            v: array
            for n in nodes
            for v in n.inputs
            if v and v != current and (array := self.constant(v)) is not None
        }
        return recognized(nodes, current, scalars)


def _computable(array: Array) -> Array:
    """Halves as float32, in which the references compute."""
    kind = DataType.of(array)
    return array.astype(np.float32) if kind.is_float and kind.itemsize < 4 else array
