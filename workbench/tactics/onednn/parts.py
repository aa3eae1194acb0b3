"""A Body as oneDNN runs it, in parts: operands, quantization, post-operations, the layer."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.body import Array, Node, TensorType
from workbench.records import Refusal
from workbench.tactics.onednn.activations import Eltwise
from workbench.tactics.onednn.constants import Algorithm
from workbench.tactics.protocol import Problem


@dataclass(frozen=True, eq=False)
class Affine:
    """A quantization known at build time: real = scale * (stored - zero_point).

    scale: float32 (1,), or one per index of ``axis``. zero_point: one integer.
    """

    scale: Array
    zero_point: int
    axis: int | None

    @property
    def is_per_tensor(self) -> bool:
        return self.axis is None


@dataclass(frozen=True, eq=False)
class Operand:
    """What a primitive reads: a dynamic input of the Body, or a constant.

    index: position among the dynamic inputs; None for a constant, whose value is ``array``.
    type: as stored. affine: how stored integers become the real numbers that are computed with.
    permutation: axes as the primitive sees them; None for as stored.
    """

    type: TensorType
    index: int | None = None
    array: Array | None = None
    affine: Affine | None = None
    permutation: tuple[int, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes as the primitive sees them."""
        stored: tuple[int, ...] = self.type.shape
        return stored if self.permutation is None else tuple(stored[a] for a in self.permutation)

    @property
    def is_constant(self) -> bool:
        return self.array is not None


@dataclass(frozen=True, eq=False)
class Combine:
    """x = algorithm(x, operand), the operand broadcast to x."""

    algorithm: Algorithm
    operand: Operand


PostOperation = Eltwise | Combine


@dataclass(frozen=True, eq=False)
class Layer:
    """One primitive with what follows it.

    anchor: the node that names the primitive. operands: its inputs that carry data, in ONNX order
    (None where absent; weights and bias included). values: of the other inputs, by position, where
    they are known at build time (axes, scales); None for an operand's. A chain of pointwise nodes
    has one operand, the tensor that it transforms, and ``post`` holds the whole chain. result: what
    ``post`` starts from. affine: how the output is quantized, None where it is not.
    """

    problem: Problem
    anchor: Node
    operands: tuple[Operand | None, ...]
    values: tuple[Array | None, ...]
    post: tuple[PostOperation, ...]
    result: TensorType
    output: TensorType
    affine: Affine | None

    def operand(self, position: int) -> Operand | None:
        """The operand at this position, or None where it is absent."""
        return self.operands[position] if position < len(self.operands) else None

    @property
    def place(self) -> str:
        return f"{self.anchor.op} '{self.anchor.outputs[0]}'"

    def refusal(self, reason: str, remedy: str = "") -> Refusal:
        """A refusal at this layer."""
        return Refusal(reason, self.place, remedy)
