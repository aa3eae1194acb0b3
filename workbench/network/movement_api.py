"""The add_* calls that move, cut or join data: shuffle, slice, gather, concatenation, padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.body import Operator
from workbench.errors import NetworkError
from workbench.network.graph import Cause, Layer, Tensor
from workbench.network.layer_types import GatherMode

BACKWARD_END = np.iinfo(np.int64).min
"""Slice's end that lies before the first element: a negative end would count from the back."""


@dataclass(frozen=True)
class ConstantLayer:
    """What ``add_constant`` returns: a stored tensor needs no layer, but is asked like one."""

    tensor: Tensor

    @property
    def name(self) -> str:
        """The constant's name."""
        return self.tensor.name

    @property
    def type(self) -> str:
        """TensorRT's LayerType name."""
        return "CONSTANT"

    def get_output(self, index: int) -> Tensor:
        """The constant; IndexError for any index but 0."""
        return (self.tensor,)[index]


class Editable:
    """What the add_* calls are written with; NetworkDefinition provides it."""

    def constant(self, array: Any, name: str = "constant") -> Tensor:
        """A constant tensor."""
        raise NotImplementedError

    def add_layer(
        self,
        operator: str | Operator,
        inputs: Sequence[Tensor | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        name: str = "",
        outputs: Sequence[str] | int = 1,
        origin: Sequence[str] = (),
        cause: Cause | None = None,
    ) -> Layer:
        """Apply an operator."""
        raise NotImplementedError

    def operand(self, value: Any, name: str) -> Tensor:
        """A tensor as it is; anything else copied into a constant."""
        return value if isinstance(value, Tensor) else self.constant(value, name)


class MovementApi(Editable):
    """Layers that compute nothing."""

    def add_constant(self, shape: Sequence[int], weights: Any, *, name: str = "") -> ConstantLayer:
        """A constant of this shape.

        Raises NetworkError if the weights do not have that many elements.
        """
        array = np.asarray(weights)
        if array.size != int(np.prod(tuple(shape))):
            raise NetworkError(
                f"shape {tuple(shape)} has {int(np.prod(tuple(shape)))} elements, "
                f"the weights {array.size}",
                place=f"constant '{name}'",
            )
        return ConstantLayer(self.constant(array.reshape(tuple(shape)), name or "constant"))

    def add_identity(self, input: Tensor, *, name: str = "") -> Layer:
        """The input, unchanged."""
        return self.add_layer("Identity", [input], name=name)

    def add_shape(self, input: Tensor, *, name: str = "") -> Layer:
        """The input's sizes, INT64."""
        return self.add_layer("Shape", [input], name=name)

    def add_shuffle(
        self,
        input: Tensor,
        *,
        first_transpose: Sequence[int] | None = None,
        reshape_dims: Sequence[int] | Tensor | None = None,
        second_transpose: Sequence[int] | None = None,
        zero_is_placeholder: bool = True,
        name: str = "",
    ) -> Layer:
        """Transpose, reshape, transpose: the last of the layers that are needed.

        reshape_dims: -1 once for the size that is left; 0 copies the input's, unless
        zero_is_placeholder is off.
        """
        steps: list[tuple[str, list[Any], dict[str, Any]]] = []
        if first_transpose is not None:
            steps.append(("Transpose", [], {"perm": tuple(first_transpose)}))
        if reshape_dims is not None:
            given = reshape_dims
            sizes = given if isinstance(given, Tensor) else np.array(list(given), np.int64)
            steps.append(("Reshape", [sizes], {"allowzero": 0 if zero_is_placeholder else 1}))
        if second_transpose is not None:
            steps.append(("Transpose", [], {"perm": tuple(second_transpose)}))
        if not steps:
            return self.add_identity(input, name=name)
        layer: Layer | None = None
        for op, operands, attributes in steps:
            before = input if layer is None else layer.get_output(0)
            others = [self.operand(v, "reshape_dims") for v in operands]
            layer = self.add_layer(op, [before, *others], attributes, name=name)
        assert layer is not None
        return layer

    def add_squeeze(self, input: Tensor, axes: Sequence[int], *, name: str = "") -> Layer:
        """The input without these axes of size 1."""
        chosen = self.constant(np.array(list(axes), np.int64), "axes")
        return self.add_layer("Squeeze", [input, chosen], name=name)

    def add_unsqueeze(self, input: Tensor, axes: Sequence[int], *, name: str = "") -> Layer:
        """The input with axes of size 1 at these places of the result."""
        chosen = self.constant(np.array(list(axes), np.int64), "axes")
        return self.add_layer("Unsqueeze", [input, chosen], name=name)

    def add_concatenation(
        self, inputs: Sequence[Tensor], *, axis: int | None = None, name: str = ""
    ) -> Layer:
        """Tensors joined along an axis; by default the third from the last, else the first."""
        if axis is None:
            axis = max(len(inputs[0].shape) - 3, 0)
        return self.add_layer("Concat", list(inputs), {"axis": axis}, name=name)

    def add_slice(
        self,
        input: Tensor,
        start: Sequence[int],
        shape: Sequence[int],
        stride: Sequence[int],
        *,
        name: str = "",
    ) -> Layer:
        """``shape`` elements from ``start``, ``stride`` apart, on every axis (strict bounds).

        Raises NetworkError if that reaches outside.
        """
        place = f"slice '{name}'" if name else "slice"
        counts = (len(input.shape), len(start), len(shape), len(stride))
        if len(set(counts)) != 1:
            raise NetworkError(
                f"input has rank {counts[0]}, start {counts[1]}, shape {counts[2]}, "
                f"stride {counts[3]}",
                place=place,
                remedy="give one number an axis",
            )
        ends: list[int] = []
        for axis, (s, n, step) in enumerate(zip(start, shape, stride, strict=True)):
            size, last = input.shape[axis], s + (n - 1) * step
            if s < 0 or last < 0 or (isinstance(size, int) and max(s, last) >= size):
                raise NetworkError(
                    f"axis {axis} of size {size}: elements {s} to {last} are not all inside",
                    place=place,
                )
            end = s + n * step
            ends.append(BACKWARD_END if end < 0 else end)
        rows = (list(start), ends, list(range(len(ends))), list(stride))
        names = ("starts", "ends", "axes", "steps")
        operands = [
            self.constant(np.array(r, np.int64), k) for r, k in zip(rows, names, strict=True)
        ]
        return self.add_layer("Slice", [input, *operands], name=name)

    def add_gather(self, input: Tensor, indices: Any, axis: int, *, name: str = "") -> Layer:
        """Slices of the input along an axis, by index."""
        return self.add_layer(
            "Gather", [input, self.operand(indices, "indices")], {"axis": axis}, name=name
        )

    def add_gather_v2(
        self,
        input: Tensor,
        indices: Any,
        mode: GatherMode,
        *,
        axis: int = 0,
        num_elementwise_dims: int = 0,
        name: str = "",
    ) -> Layer:
        """Gather by slices (DEFAULT), by element, or by index tuples (ND)."""
        operands = [input, self.operand(indices, "indices")]
        if mode is GatherMode.ND:
            return self.add_layer(
                "GatherND", operands, {"batch_dims": num_elementwise_dims}, name=name
            )
        if num_elementwise_dims:
            raise NetworkError(f"num_elementwise_dims is {num_elementwise_dims}; only for ND")
        op = "GatherElements" if mode is GatherMode.ELEMENT else "Gather"
        return self.add_layer(op, operands, {"axis": axis}, name=name)

    def add_padding_nd(
        self,
        input: Tensor,
        pre_padding: Sequence[int],
        post_padding: Sequence[int],
        *,
        name: str = "",
    ) -> Layer:
        """Zeros around the last axes; negative numbers crop."""
        if len(pre_padding) != len(post_padding) or len(pre_padding) > len(input.shape):
            raise NetworkError(
                f"pre_padding is {tuple(pre_padding)}, post_padding {tuple(post_padding)}, "
                f"input has rank {len(input.shape)}",
                place=f"padding '{name}'",
            )
        rest = [0] * (len(input.shape) - len(pre_padding))
        pads = self.constant(
            np.array([*rest, *pre_padding, *rest, *post_padding], np.int64), "pads"
        )
        return self.add_layer("Pad", [input, pads], name=name)
