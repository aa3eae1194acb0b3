"""Affine quantization: real = scale * (stored - zero point)."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from workbench import dimensions
from workbench.body import Array, Attributes, Cost, Inference, Operator, TensorType
from workbench.datatypes import DataType
from workbench.dimensions import Shape
from workbench.errors import InferenceError
from workbench.operators.products import is_exact, operand

STORED = (
    DataType.INT8,
    DataType.UINT8,
    DataType.INT16,
    DataType.UINT16,
    DataType.INT4,
    DataType.UINT4,
    DataType.INT2,
    DataType.UINT2,
    DataType.FP8,
    DataType.FP8E5M2,
    DataType.FP8E4M3FNUZ,
    DataType.FP8E5M2FNUZ,
    DataType.FP4,
)
"""What QuantizeLinear gives. Source: ONNX QuantizeLinear-25, type constraint T3."""

_DIVISIONS = (None, 0, 1, DataType.FLOAT)
"""Values of ``precision`` that mean: in FLOAT, as halves are widened anyway. 1 is ONNX's number."""


# -- granularity --------------------------------------------------------------------------
def _checked_scale(attributes: Attributes, x: Shape, scale: Shape) -> None:
    """Raise InferenceError unless the scale is per tensor, per axis or blocked for this input."""
    block = attributes["block_size"]
    if scale in ((), (1,)) and not block:
        return
    rank = len(x)
    axis = attributes["axis"]
    if not -rank <= axis < rank:
        raise InferenceError(f"axis is {axis}, input has rank {rank}")
    size = x[axis]
    if not block:
        fits = len(scale) == 1 and (scale[0] == size or not dimensions.is_static((size, scale[0])))
        if not fits:
            raise InferenceError(f"scale is {scale}; axis {axis} of the input has size {size}")
        return
    blocks = dimensions.ceildiv(size, block)
    wanted = tuple(blocks if i == axis % rank else d for i, d in enumerate(x))
    if len(scale) != rank or any(
        isinstance(s, int) and isinstance(w, int) and s != w
        for s, w in zip(scale, wanted, strict=True)
    ):
        raise InferenceError(f"scale is {scale}; blocks of {block} on axis {axis} need {wanted}")


def spread(attributes: Attributes, parameter: Any, shape: tuple[int, ...]) -> Any:
    """A scale or zero point, made to broadcast against the input's shape."""
    v = np.asarray(parameter)
    if v.size == 1 and v.ndim < 2:
        return v.reshape(())
    axis = attributes["axis"] % len(shape)
    if attributes["block_size"]:
        wide = np.repeat(v, attributes["block_size"], axis=axis)
        return wide[(*(slice(None),) * axis, slice(shape[axis]))]
    return v.reshape(-1, *(1,) * (len(shape) - axis - 1))


# -- QuantizeLinear -----------------------------------------------------------------------
def _quantize_types(inference: Inference) -> tuple[TensorType, ...]:
    x, scale = inference.input(0), inference.input(1)
    if not (x.dtype.is_float or x.dtype is DataType.INT32):
        raise InferenceError(f"input is {x.dtype}; need a float or INT32")
    _checked_scale(inference.attributes, x.shape, scale.shape)
    precision = inference.attributes["precision"]
    if precision not in _DIVISIONS:
        raise InferenceError(
            f"precision is {precision}; the division is done in FLOAT",
            remedy="leave the attribute out",
        )
    zero = operand(inference.inputs, 2)
    asked = inference.attributes["output_dtype"]
    stored = zero.dtype if zero is not None else asked or DataType.UINT8
    if zero is not None and asked not in (None, stored):
        raise InferenceError(f"output_dtype is {asked}, zero point is {stored}")
    if zero is not None and not _same_grain(zero.shape, scale.shape):
        raise InferenceError(f"scale is {scale.shape}, zero point {zero.shape}")
    if stored not in STORED:
        raise InferenceError(f"cannot quantize to {stored}", remedy=f"known: {STORED}")
    if asked is None and (stored.is_float or stored.info.bits < 8):
        # The reference sees such a zero point widened, and could not tell the range.
        raise InferenceError(f"quantizing to {stored} needs the attribute output_dtype")
    return (TensorType(stored, x.shape),)


def stored_type(attributes: Attributes, zero_point: Any) -> DataType:
    """What a QuantizeLinear stores, from its attribute, else from its zero point's type."""
    asked = attributes["output_dtype"]
    if asked is not None:
        return asked
    return DataType.UINT8 if zero_point is None else DataType.of(zero_point)


def _scaled(attributes: Attributes, inputs: Sequence[Any]) -> Array:
    """x / scale, in the scale's type."""
    x, scale = inputs[0], inputs[1]
    return x.astype(scale.dtype, copy=False) / spread(attributes, scale, x.shape)


def _limits(stored: DataType, attributes: Attributes) -> tuple[float, float]:
    if stored.is_float and not attributes["saturate"]:
        return -np.inf, np.inf
    return stored.info.low, stored.info.high


def _zero(attributes: Attributes, inputs: Sequence[Any]) -> Any:
    zero = operand(inputs, 2)
    if zero is None:
        return 0.0
    # int16 and smaller are exact in any float that a scale may have been widened to.
    return spread(attributes, zero, inputs[0].shape).astype(inputs[1].dtype)


def _quantize(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    stored = stored_type(attributes, operand(inputs, 2))
    q = _scaled(attributes, inputs)
    if not stored.is_float:
        q = np.rint(q)
    q = np.clip(q + _zero(attributes, inputs), *_limits(stored, attributes))
    if not stored.is_float:
        return (np.nan_to_num(q).astype(stored.numpy),)
    # Through float32: ml_dtypes rounds a double to nearest from there, ties to even.
    return (q.astype(np.float32).astype(stored.numpy),)


def _quantize_exact(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    stored = stored_type(attributes, operand(inputs, 2))
    q = _scaled(attributes, inputs) + _zero(attributes, inputs)
    return (np.clip(q, *_limits(stored, attributes)),)


def _quantize_bound(
    attributes: Attributes,
    inputs: Sequence[Any],
    bounds: Sequence[Any],
    outputs: Sequence[Any],
    unit: float,
) -> tuple[Any, ...]:
    stored = stored_type(attributes, operand(inputs, 2))
    ratio = np.abs(_scaled(attributes, inputs))
    # Beyond the range every correct result is clipped alike, but for what lies at its edge.
    low, high = _limits(stored, attributes)
    ratio = np.minimum(ratio, max(abs(low), abs(high)) + np.abs(_zero(attributes, inputs)))
    error = _ratio_error(attributes, inputs, bounds, ratio) + 4 * unit * ratio
    # Half a step of rounding; a float's own rounding is added where it is stored.
    return (error if stored.is_float else error + 0.5,)


def _ratio_error(
    attributes: Attributes, inputs: Sequence[Any], bounds: Sequence[Any], ratio: Array
) -> Any:
    """Error that x / scale inherits from x and from the scale."""
    shape = inputs[0].shape
    scale = np.abs(spread(attributes, inputs[1], shape))
    error = bounds[0] / scale
    if is_exact(bounds[1]):
        return error
    lost = spread(attributes, np.broadcast_to(bounds[1], inputs[1].shape), shape)
    return error + (ratio + error) * lost / np.maximum(scale - lost, 0)


def _same_grain(zero: Shape, scale: Shape) -> bool:
    """Whether zero point and scale are one number each, or of one shape."""
    return zero == scale or (zero in ((), (1,)) and scale in ((), (1,)))


# -- DequantizeLinear ---------------------------------------------------------------------
def _dequantize_types(inference: Inference) -> tuple[TensorType, ...]:
    x, scale = inference.input(0), inference.input(1)
    if x.dtype not in (*STORED, DataType.INT32):
        raise InferenceError(f"input is {x.dtype}; need one of {STORED} or INT32")
    if not scale.dtype.is_float:
        raise InferenceError(f"scale is {scale.dtype}; need a float")
    _checked_scale(inference.attributes, x.shape, scale.shape)
    zero = operand(inference.inputs, 2)
    if zero is not None and (zero.dtype is not x.dtype or not _same_grain(zero.shape, scale.shape)):
        raise InferenceError(f"zero point is {zero}, expected {TensorType(x.dtype, scale.shape)}")
    return (TensorType(inference.attributes["output_dtype"] or scale.dtype, x.shape),)


def _centred(attributes: Attributes, inputs: Sequence[Any]) -> Array:
    """x - zero point, exactly."""
    x, zero = inputs[0], operand(inputs, 2)
    if x.dtype.kind in "iu":
        x = x.astype(np.int64)
    return x if zero is None else x - spread(attributes, zero, x.shape)


def _dequantize(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    scale = spread(attributes, inputs[1], inputs[0].shape)
    return (_centred(attributes, inputs).astype(scale.dtype) * scale,)


def _dequantize_bound(
    attributes: Attributes,
    inputs: Sequence[Any],
    bounds: Sequence[Any],
    outputs: Sequence[Any],
    unit: float,
) -> tuple[Any, ...]:
    # The product's own rounding is the stored type's, which the interpreter adds.
    shape = inputs[0].shape
    scale = np.abs(spread(attributes, inputs[1], shape))
    own = 2 * unit * np.abs(outputs[0])
    error = own if is_exact(bounds[0]) else own + bounds[0] * scale
    if is_exact(bounds[1]):
        return (error,)
    lost = spread(attributes, np.broadcast_to(bounds[1], inputs[1].shape), shape)
    return (error + (np.abs(_centred(attributes, inputs)) + bounds[0]) * lost,)


# -- DynamicQuantizeLinear ----------------------------------------------------------------
def _dynamic_types(inference: Inference) -> tuple[TensorType, ...]:
    x = inference.input(0)
    if x.dtype is not DataType.FLOAT:
        raise InferenceError(f"input is {x.dtype}; need FLOAT")
    scalar = (TensorType(DataType.FLOAT, ()), TensorType(DataType.UINT8, ()))
    return (TensorType(DataType.UINT8, x.shape), *scalar)[: inference.outputs]


def _range(x: Array) -> tuple[Any, Any]:
    return np.minimum(x.min(initial=0), 0), np.maximum(x.max(initial=0), 0)


def _dynamic_scale(x: Array) -> tuple[Any, Any]:
    """Scale and unrounded zero point that map [min(x, 0), max(x, 0)] to 0..255."""
    low, high = _range(x)
    scale = (high - low) / x.dtype.type(255)
    scale = np.where(scale == 0, x.dtype.type(1), scale)
    return scale, np.clip(-low / scale, 0, 255)


def _dynamic(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x = inputs[0]
    scale, zero = _dynamic_scale(x)
    zero = np.rint(zero)
    q = np.clip(np.rint(x / scale) + zero, 0, 255)
    return q.astype(np.uint8), np.asarray(scale), np.asarray(zero).astype(np.uint8)


def _dynamic_exact(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x = inputs[0]
    scale, zero = _dynamic_scale(x)
    return np.clip(x / scale + zero, 0, 255), np.asarray(scale), np.asarray(zero)


def _dynamic_bound(
    attributes: Attributes,
    inputs: Sequence[Any],
    bounds: Sequence[Any],
    outputs: Sequence[Any],
    unit: float,
) -> tuple[Any, ...]:
    x = inputs[0]
    scale = float(outputs[1])
    worst = float(np.max(bounds[0], initial=0.0))
    # Both ends of the range may move by the worst input error.
    e_scale = 2 * worst / 255 + 4 * unit * scale
    # |x| / scale <= 255: error of the quotient in steps, relative error of the scale times 255.
    steps = worst / scale + 255 * (e_scale / max(scale - e_scale, 1e-300) + 4 * unit)
    rounded = steps + 0.5
    return np.full(x.shape, 2 * rounded), e_scale, rounded


def _moved(inputs: Sequence[TensorType | None], outputs: Sequence[TensorType]) -> int:
    return sum(int(t.nbytes()) for t in (*inputs, *outputs) if t is not None)


def _quantize_cost(
    attributes: Attributes, inputs: Sequence[TensorType | None], outputs: Sequence[TensorType]
) -> Cost:
    # Divide or multiply, add the zero point.
    return Cost(2 * int(dimensions.volume(outputs[0].shape)), _moved(inputs, outputs))


_GRANULARITY = {"axis": 1, "block_size": 0, "output_dtype": None}

QUANTIZATION: tuple[Operator, ...] = (
    Operator(
        name="QuantizeLinear",
        infer=_quantize_types,
        reference=_quantize,
        bound=_quantize_bound,
        layer_type="QUANTIZE",
        family="quantization",
        attributes=MappingProxyType({**_GRANULARITY, "precision": None, "saturate": 1}),
        cost=_quantize_cost,
        exact=_quantize_exact,
    ),
    Operator(
        name="DequantizeLinear",
        infer=_dequantize_types,
        reference=_dequantize,
        bound=_dequantize_bound,
        layer_type="DEQUANTIZE",
        family="quantization",
        attributes=MappingProxyType(_GRANULARITY),
        cost=_quantize_cost,
    ),
    Operator(
        name="DynamicQuantizeLinear",
        infer=_dynamic_types,
        reference=_dynamic,
        bound=_dynamic_bound,
        layer_type="DYNAMIC_QUANTIZE",
        family="quantization",
        cost=_quantize_cost,
        exact=_dynamic_exact,
    ),
)
