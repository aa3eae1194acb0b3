"""LayerApi: TensorRT's add_* calls, as far as our operators go.

Names, argument order and enumerations are TensorRT's; what its layers have as properties are
keyword arguments here, because a layer is never half made. Each call returns the Layer whose
``get_output(0)`` is the result, also where it took several layers. Arrays are copied.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from workbench.datatypes import DataType
from workbench.errors import NetworkError
from workbench.network.graph import Layer, Tensor
from workbench.network.layer_types import (
    ACTIVATION_OPERATORS,
    ELEMENTWISE_OPERATORS,
    REDUCE_OPERATORS,
    UNARY_OPERATORS,
    ActivationType,
    ElementWiseOperation,
    MatrixOperation,
    ReduceOperation,
    ScaleMode,
    UnaryOperation,
)
from workbench.network.window_api import WindowApi


class LayerApi(WindowApi):
    """The add_* methods of a network definition."""

    # -- pointwise ------------------------------------------------------------------------
    def add_activation(
        self,
        input: Tensor,
        type: ActivationType,
        *,
        alpha: float | None = None,
        beta: float | None = None,
        name: str = "",
    ) -> Layer:
        """An activation; alpha and beta default to ONNX's. Raises NetworkError if unused."""
        given = {k: v for k, v in (("alpha", alpha), ("beta", beta)) if v is not None}
        if type in (ActivationType.CLIP, ActivationType.SCALED_TANH):
            if len(given) != 2:
                raise NetworkError(f"{type.value} needs alpha and beta", place=name)
            low, high = (self._scalar(input, given[k], k) for k in ("alpha", "beta"))
            if type is ActivationType.CLIP:
                return self.add_layer("Clip", [input, low, high], name=name)
            inner = self.add_layer("Mul", [input, high]).get_output(0)
            inner = self.add_layer("Tanh", [inner]).get_output(0)
            return self.add_layer("Mul", [inner, low], name=name)
        op, known, fixed = ACTIVATION_OPERATORS[type]
        unused = sorted(set(given) - set(known))
        if unused:
            raise NetworkError(f"{type.value} has no {' and '.join(unused)}", place=name)
        attributes = {**fixed, **{known[k]: v for k, v in given.items()}}
        return self.add_layer(op, [input], attributes, name=name)

    def add_elementwise(
        self, input1: Tensor, input2: Tensor, op: ElementWiseOperation, *, name: str = ""
    ) -> Layer:
        """Two tensors, element by element, broadcast."""
        if op is not ElementWiseOperation.FLOOR_DIV:
            return self.add_layer(ELEMENTWISE_OPERATORS[op], [input1, input2], name=name)
        if input1.dtype.is_float:
            ratio = self.add_layer("Div", [input1, input2]).get_output(0)
            return self.add_layer("Floor", [ratio], name=name)
        # ONNX divides integers towards zero; a - mod(a, b) divides without a remainder.
        rest = self.add_layer("Mod", [input1, input2]).get_output(0)
        whole = self.add_layer("Sub", [input1, rest]).get_output(0)
        return self.add_layer("Div", [whole, input2], name=name)

    def add_unary(self, input: Tensor, op: UnaryOperation, *, name: str = "") -> Layer:
        """A function of each element."""
        return self.add_layer(UNARY_OPERATORS[op], [input], name=name)

    def add_parametric_relu(self, input: Tensor, slopes: Any, *, name: str = "") -> Layer:
        """x where x >= 0, slope * x elsewhere."""
        return self.add_layer("PRelu", [input, self.operand(slopes, "slopes")], name=name)

    def add_select(
        self, condition: Tensor, then_input: Tensor, else_input: Tensor, *, name: str = ""
    ) -> Layer:
        """The one tensor where the condition holds, the other elsewhere."""
        return self.add_layer("Where", [condition, then_input, else_input], name=name)

    def add_cast(self, input: Tensor, to_type: DataType, *, name: str = "") -> Layer:
        """The input in another type."""
        return self.add_layer("Cast", [input], {"to": DataType.of(to_type)}, name=name)

    def add_scale(
        self,
        input: Tensor,
        mode: ScaleMode,
        shift: Any = None,
        scale: Any = None,
        power: Any = None,
        *,
        channel_axis: int = 1,
        name: str = "",
    ) -> Layer:
        """(input * scale + shift) ** power; a coefficient that is None is left out."""
        layer: Layer | None = None
        for op, given in (("Mul", scale), ("Add", shift), ("Pow", power)):
            if given is None or np.size(given) == 0:
                continue
            fitted = _coefficients(np.asarray(given), mode, input, channel_axis)
            before = input if layer is None else layer.get_output(0)
            layer = self.add_layer(op, [before, self.constant(fitted, op.lower())], name=name)
        return layer or self.add_layer("Identity", [input], name=name)

    # -- products and reductions ----------------------------------------------------------
    def add_matrix_multiply(
        self,
        input0: Tensor,
        op0: MatrixOperation,
        input1: Tensor,
        op1: MatrixOperation,
        *,
        name: str = "",
    ) -> Layer:
        """A batched matrix product; VECTOR reads an operand's last axis as a vector."""
        turned = [op is MatrixOperation.TRANSPOSE for op in (op0, op1)]
        if len(input0.shape) == len(input1.shape) == 2 and any(turned):
            if MatrixOperation.VECTOR not in (op0, op1):
                attributes = {"transA": int(turned[0]), "transB": int(turned[1])}
                return self.add_layer("Gemm", [input0, input1], attributes, name=name)
        a, b = self._factor(input0, op0, -2), self._factor(input1, op1, -1)
        extra = [
            axis
            for axis, t, made, op in ((-2, input0, a, op0), (-1, input1, b, op1))
            if op is MatrixOperation.VECTOR and made is not t
        ]
        if not extra:
            return self.add_layer("MatMul", [a, b], name=name)
        product = self.add_layer("MatMul", [a, b]).get_output(0)
        return self.add_squeeze(product, extra, name=name)

    def _factor(self, tensor: Tensor, op: MatrixOperation, axis: int) -> Tensor:
        rank = len(tensor.shape)
        if op is MatrixOperation.NONE or (op is MatrixOperation.VECTOR and rank == 1):
            return tensor
        if op is MatrixOperation.VECTOR:
            return self.add_unsqueeze(tensor, [axis]).get_output(0)
        perm = (*range(rank - 2), rank - 1, rank - 2)
        return self.add_layer("Transpose", [tensor], {"perm": perm}).get_output(0)

    def add_einsum(self, inputs: Sequence[Tensor], equation: str, *, name: str = "") -> Layer:
        """The product that the equation says."""
        return self.add_layer("Einsum", list(inputs), {"equation": equation}, name=name)

    def add_softmax(self, input: Tensor, *, axes: int | None = None, name: str = "") -> Layer:
        """Softmax over one axis, given as a bit mask.

        By default over the third axis from the last, else the first, as TensorRT has it.
        """
        rank = len(input.shape)
        chosen = [max(rank - 3, 0)] if axes is None else axes_of_mask(axes, rank)
        if len(chosen) != 1:
            raise NetworkError(f"axes is {axes:#b}; softmax takes one axis", place=name)
        return self.add_layer("Softmax", [input], {"axis": chosen[0]}, name=name)

    def add_reduce(
        self, input: Tensor, op: ReduceOperation, axes: int, keep_dims: bool, *, name: str = ""
    ) -> Layer:
        """A reduction over the axes of a bit mask."""
        chosen = np.array(axes_of_mask(axes, len(input.shape)), np.int64)
        operands = [input, self.constant(chosen, "axes")]
        attributes = {"keepdims": int(keep_dims)}
        return self.add_layer(REDUCE_OPERATORS[op], operands, attributes, name=name)

    # -- normalization --------------------------------------------------------------------
    def add_normalization(
        self,
        input: Tensor,
        scale: Any,
        bias: Any,
        axesMask: int,  # noqa: N803 - TensorRT's spelling
        *,
        epsilon: float = 1e-5,
        num_groups: int = 1,
        name: str = "",
    ) -> Layer:
        """Group, instance or layer normalization, by axes and groups.

        axesMask: the spatial axes for a scale of one number a channel; else the last axes, and
        the scale has their sizes. Raises NetworkError for other axes.
        """
        rank = len(input.shape)
        axes = axes_of_mask(axesMask, rank)
        factors = [self.operand(scale, "scale"), self.operand(bias, "bias")]
        spatial, channels = list(range(2, rank)), input.shape[1]
        per_channel = all(_is_per_channel(t.shape, channels) for t in factors)
        if axes == spatial and per_channel:
            operands = [input, *(self._flat(t) for t in factors)]
            if num_groups == 1:
                return self.add_layer(
                    "InstanceNormalization", operands, {"epsilon": epsilon}, name=name
                )
            attributes = {"epsilon": epsilon, "num_groups": num_groups}
            return self.add_layer("GroupNormalization", operands, attributes, name=name)
        if num_groups != 1 or axes != list(range(axes[0] if axes else rank, rank)):
            raise NetworkError(
                f"axes {axes} with {num_groups} groups and a scale of shape {factors[0].shape}",
                place=name,
                remedy="normalize the last axes, or the spatial axes with one scale a channel",
            )
        attributes = {"axis": axes[0], "epsilon": epsilon}
        return self.add_layer("LayerNormalization", [input, *factors], attributes, name=name)

    def add_lrn(
        self, input: Tensor, window: int, alpha: float, beta: float, k: float, *, name: str = ""
    ) -> Layer:
        """Local response normalization over ``window`` channels."""
        attributes = {"size": window, "alpha": alpha, "beta": beta, "bias": k}
        return self.add_layer("LRN", [input], attributes, name=name)

    # -- quantization ---------------------------------------------------------------------
    def add_quantize(
        self,
        input: Tensor,
        scale: Any,
        output_type: DataType = DataType.INT8,
        *,
        axis: int | None = None,
        name: str = "",
    ) -> Layer:
        """Symmetric quantization: per tensor, or per axis with one scale each."""
        factor = self._scale(scale, input)
        # The zero point says the stored type; it is 0 in a symmetric quantization.
        zero = self.constant(np.zeros(factor.shape, output_type.numpy), "zero_point")
        attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
        if output_type.is_float or output_type.info.bits < 8:
            attributes["output_dtype"] = output_type
        return self.add_layer("QuantizeLinear", [input, factor, zero], attributes, name=name)

    def add_dequantize(
        self,
        input: Tensor,
        scale: Any,
        output_type: DataType = DataType.FLOAT,
        *,
        axis: int | None = None,
        name: str = "",
    ) -> Layer:
        """The real numbers that symmetric quantization stored."""
        attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
        factor = self._scale(scale, input)
        if factor.dtype is not output_type:
            attributes["output_dtype"] = output_type
        return self.add_layer("DequantizeLinear", [input, factor], attributes, name=name)

    # -- operands -------------------------------------------------------------------------
    def _scalar(self, like: Tensor, value: float, name: str) -> Tensor:
        return self.constant(np.array(value, like.dtype.numpy), name)

    def _scale(self, scale: Any, input: Tensor) -> Tensor:
        if isinstance(scale, Tensor):
            return scale
        kind = input.dtype if input.dtype.is_float else DataType.FLOAT
        return self.constant(np.asarray(scale, kind.numpy), "scale")

    def _flat(self, tensor: Tensor) -> Tensor:
        if len(tensor.shape) == 1:
            return tensor
        if tensor.value is not None:
            return self.constant(tensor.value.reshape(-1), tensor.name)
        return self.add_shuffle(tensor, reshape_dims=(-1,)).get_output(0)


def axes_of_mask(mask: int, rank: int) -> list[int]:
    """The axes of a bit mask. Raises NetworkError for an axis that is not there, or for none."""
    axes = [a for a in range(mask.bit_length()) if mask >> a & 1]
    if not axes or axes[-1] >= rank:
        raise NetworkError(f"axis mask {mask:#b} does not fit rank {rank}")
    return axes


def _coefficients(
    given: np.ndarray[Any, Any], mode: ScaleMode, input: Tensor, axis: int
) -> np.ndarray[Any, Any]:
    """A scale, shift or power, shaped to broadcast against the input."""
    if mode is ScaleMode.UNIFORM:
        if given.size != 1:
            raise NetworkError(f"UNIFORM takes one number, given {given.size}")
        return given.reshape(())
    inner = input.shape[1:] if mode is ScaleMode.ELEMENTWISE else (input.shape[axis],)
    count = math.prod(inner)
    if given.size != count:
        raise NetworkError(f"{mode.value} takes {count} numbers, given {given.size}")
    if mode is ScaleMode.ELEMENTWISE:
        return given.reshape(inner)
    return given.reshape(-1, *(1,) * (len(input.shape) - axis % len(input.shape) - 1))


def _is_per_channel(shape: Sequence[Any], channels: Any) -> bool:
    """Whether a shape is (C,) or (1, C, 1...)."""
    if len(shape) < 3:
        return tuple(shape) == (channels,)
    return shape[0] == 1 and shape[1] == channels and all(d == 1 for d in shape[2:])
