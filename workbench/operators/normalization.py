"""Normalizations: batch, layer, instance, group, root mean square, and local response."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from workbench import dimensions
from workbench.body import (
    REQUIRED,
    Array,
    Attributes,
    BoundRule,
    Cost,
    CostRule,
    Inference,
    InferRule,
    Operator,
    Reference,
    TensorType,
)
from workbench.datatypes import DataType
from workbench.errors import InferenceError
from workbench.operators.moments import Axes, MomentErrors, Moments, moment_errors, moments
from workbench.operators.products import gamma, operand


# -- types --------------------------------------------------------------------------------
def _floats(inference: Inference, least_rank: int) -> TensorType:
    x = inference.input(0)
    if not x.dtype.is_float:
        raise InferenceError(f"input is {x.dtype}; need a float")
    if len(x.shape) < least_rank:
        raise InferenceError(f"input is {x.shape}; need rank >= {least_rank}")
    return x


def _per_channel(inference: Inference, indices: Sequence[int], channels: Any) -> None:
    for i in indices:
        shape = inference.input(i).shape
        if len(shape) != 1 or (
            isinstance(shape[0], int) and isinstance(channels, int) and shape[0] != channels
        ):
            raise InferenceError(f"input {i} is {shape}, expected ({channels},): one a channel")


def _batch_types(inference: Inference) -> tuple[TensorType, ...]:
    if inference.attributes["training_mode"] or inference.outputs > 1:
        raise InferenceError("training mode is not for inference", remedy="export in eval mode")
    x = _floats(inference, 2)
    _per_channel(inference, (1, 2, 3, 4), x.shape[1])
    return (x,)


def _instance_types(inference: Inference) -> tuple[TensorType, ...]:
    x = _floats(inference, 3)
    _per_channel(inference, (1, 2), x.shape[1])
    return (x,)


def _group_types(inference: Inference) -> tuple[TensorType, ...]:
    x, groups = _floats(inference, 2), inference.attributes["num_groups"]
    _per_channel(inference, (1, 2), x.shape[1])
    if isinstance(x.shape[1], int) and x.shape[1] % groups:
        raise InferenceError(f"{x.shape[1]} channels do not divide into {groups} groups")
    return (x,)


def _first_axis(attributes: Attributes, rank: int) -> int:
    axis = attributes["axis"]
    if not -rank <= axis < rank:
        raise InferenceError(f"axis is {axis}, input has rank {rank}")
    return axis % rank


def _layer_types(inference: Inference) -> tuple[TensorType, ...]:
    x = _floats(inference, 1)
    axis = _first_axis(inference.attributes, len(x.shape))
    for i in (1, 2):
        t = operand(inference.inputs, i)
        if t is not None:
            _fits(t, x, i)
    inner = TensorType(_stash(inference.attributes), _kept(x.shape, axis))
    return (x, inner, inner)[: inference.outputs]


def _rms_types(inference: Inference) -> tuple[TensorType, ...]:
    x = _floats(inference, 1)
    _first_axis(inference.attributes, len(x.shape))
    _fits(inference.input(1), x, 1)
    return (x,)


def _fits(t: TensorType, x: TensorType, index: int) -> None:
    """Unidirectional broadcast: the scale or bias must not widen the input."""
    pairs = zip(reversed(t.shape), reversed(x.shape), strict=False)
    if len(t.shape) > len(x.shape) or any(
        isinstance(s, int) and isinstance(n, int) and s not in (1, n) for s, n in pairs
    ):
        raise InferenceError(f"input {index} is {t.shape}; it does not broadcast to {x.shape}")


def _stash(attributes: Attributes) -> DataType:
    """Type of Mean and InvStdDev. Source: TensorProto.DataType of ONNX, 1 float32, 16 bfloat16."""
    kinds = {1: DataType.FLOAT, 16: DataType.BF16, 11: DataType.DOUBLE, 10: DataType.HALF}
    stash = attributes["stash_type"]
    if isinstance(stash, DataType):
        return stash
    if stash not in kinds:
        raise InferenceError(f"stash_type is {stash}; known: {', '.join(map(str, kinds))}")
    return kinds[stash]


def _kept(shape: Sequence[Any], axis: int) -> tuple[Any, ...]:
    return (*shape[:axis], *(1,) * (len(shape) - axis))


# -- affine -----------------------------------------------------------------------------
def affine_bound(
    normal: tuple[Any, Any], scale: tuple[Any, Any], bias: tuple[Any, Any], unit: float
) -> Any:
    """Bound of normal·scale + bias, each given as (value, bound)."""
    (n, e_n), (s, e_s), (b, e_b) = normal, scale, bias
    propagated = e_n * (np.abs(s) + e_s) + np.abs(n) * e_s + e_b
    return propagated + 4 * unit * (np.abs(n * s) + np.abs(b)) + 4 * unit * propagated


def _standard_bound(
    x: tuple[Array, Any],
    m: Moments,
    e: MomentErrors,
    scale: tuple[Any, Any],
    bias: tuple[Any, Any],
    unit: float,
) -> Any:
    normal = m.centred * m.inverse
    e_normal = np.abs(m.centred) * e.inverse + e.centred * (m.inverse + e.inverse)
    # x·a - mean·a instead of (x - mean)·a rounds relative to both terms.
    both = (np.abs(x[0]) + x[1] + np.abs(m.mean)) * m.inverse
    return affine_bound((normal, e_normal + 4 * unit * both), scale, bias, unit)


def _channels(v: Any, rank: int) -> Any:
    """A vector of one value a channel, ready to broadcast against (N, C, ...)."""
    return v.reshape(-1, *(1,) * (rank - 2)) if np.ndim(v) else v


def _pair(inputs: Sequence[Any], bounds: Sequence[Any], index: int) -> tuple[Any, Any]:
    value = operand(inputs, index)
    return (0.0, 0.0) if value is None else (value, operand(bounds, index))


# -- batch --------------------------------------------------------------------------------
def _batch(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x = inputs[0]
    scale, bias, mean, variance = (_channels(v, x.ndim) for v in inputs[1:5])
    inverse = 1 / np.sqrt(variance + variance.dtype.type(attributes["epsilon"]))
    return (((x - mean) * (scale * inverse) + bias).astype(x.dtype, copy=False),)


def _batch_bound(
    attributes: Attributes,
    inputs: Sequence[Any],
    bounds: Sequence[Any],
    outputs: Sequence[Any],
    unit: float,
) -> tuple[Any, ...]:
    x, e_x = inputs[0], bounds[0]
    scale, bias, mean, variance = (_channels(v, x.ndim) for v in inputs[1:5])
    e_scale, e_bias, e_mean, e_variance = (_channels(v, x.ndim) for v in bounds[1:5])
    epsilon = attributes["epsilon"]
    inverse = 1 / np.sqrt(variance + epsilon)
    low = 1 / np.sqrt(variance + e_variance + epsilon)
    high = 1 / np.sqrt(np.maximum(variance - e_variance, 0) + epsilon)
    e_inverse = np.maximum(inverse - low, high - inverse) + 4 * unit * high
    centred, e_centred = x - mean, e_x + e_mean
    # Also covers x·a + (bias - mean·a), the folded form: it rounds relative to each term.
    e_centred = e_centred + 4 * unit * (np.abs(x) + e_x + np.abs(mean) + e_mean)
    normal = centred * inverse
    e_normal = np.abs(centred) * e_inverse + e_centred * (inverse + e_inverse)
    return (affine_bound((normal, e_normal), (scale, e_scale), (bias, e_bias), unit),)


# -- layer and root mean square -----------------------------------------------------------
def _last_axes(attributes: Attributes, rank: int) -> Axes:
    return tuple(range(_first_axis(attributes, rank), rank))


def _layer(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x, bias = inputs[0], operand(inputs, 2)
    m = moments(x, _last_axes(attributes, x.ndim), attributes["epsilon"])
    y = m.centred * m.inverse * inputs[1]
    return y if bias is None else y + bias, m.mean, m.inverse


def _layer_bound(
    attributes: Attributes,
    inputs: Sequence[Any],
    bounds: Sequence[Any],
    outputs: Sequence[Any],
    unit: float,
) -> tuple[Any, ...]:
    x, e_x = inputs[0], bounds[0]
    axes, epsilon = _last_axes(attributes, x.ndim), attributes["epsilon"]
    m = moments(x, axes, epsilon)
    e = moment_errors(x, e_x, m, axes, epsilon, unit, centre=True)
    scale, bias = _pair(inputs, bounds, 1), _pair(inputs, bounds, 2)
    return _standard_bound((x, e_x), m, e, scale, bias, unit), e.mean, e.inverse


def _rms(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x = inputs[0]
    m = moments(x, _last_axes(attributes, x.ndim), attributes["epsilon"], centre=False)
    return (x * m.inverse * inputs[1],)


def _rms_bound(
    attributes: Attributes,
    inputs: Sequence[Any],
    bounds: Sequence[Any],
    outputs: Sequence[Any],
    unit: float,
) -> tuple[Any, ...]:
    x, e_x = inputs[0], bounds[0]
    axes, epsilon = _last_axes(attributes, x.ndim), attributes["epsilon"]
    m = moments(x, axes, epsilon, centre=False)
    e = moment_errors(x, e_x, m, axes, epsilon, unit, centre=False)
    scale = _pair(inputs, bounds, 1)
    return (_standard_bound((x, e_x), m, e, scale, (0.0, 0.0), unit),)


# -- group and instance -------------------------------------------------------------------
def _groups(attributes: Attributes, x: Array) -> int:
    """Instance normalization is group normalization with one channel a group."""
    return attributes.get("num_groups", x.shape[1])


def _grouped(attributes: Attributes, x: Array) -> Array:
    groups = _groups(attributes, x)
    return x.reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])


def _group(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x = inputs[0]
    parts = _grouped(attributes, x)
    m = moments(parts, tuple(range(2, parts.ndim)), attributes["epsilon"])
    scale, bias = (_channels(v, x.ndim) for v in inputs[1:3])
    return ((m.centred * m.inverse).reshape(x.shape) * scale + bias,)


def _group_bound(
    attributes: Attributes,
    inputs: Sequence[Any],
    bounds: Sequence[Any],
    outputs: Sequence[Any],
    unit: float,
) -> tuple[Any, ...]:
    x = inputs[0]
    parts = _grouped(attributes, x)
    error = _grouped(attributes, np.broadcast_to(bounds[0], x.shape))
    axes, epsilon = tuple(range(2, parts.ndim)), attributes["epsilon"]
    m = moments(parts, axes, epsilon)
    e = moment_errors(parts, error, m, axes, epsilon, unit, centre=True)
    shape = (1, *parts.shape[1:3], *(1,) * (parts.ndim - 3))

    def spread(v: Any) -> Any:
        return np.broadcast_to(v, (x.shape[1],)).reshape(shape)

    scale, bias = ((spread(inputs[i]), spread(bounds[i])) for i in (1, 2))
    return (_standard_bound((parts, error), m, e, scale, bias, unit).reshape(x.shape),)


# -- local response -----------------------------------------------------------------------
def _neighbours(x: Array, size: int) -> Array:
    """Sum over a window of ``size`` channels around each channel (shorter at the ends)."""
    before, after = (size - 1) // 2, math.ceil((size - 1) / 2)
    widths = ((0, 0), (before, after), *((0, 0),) * (x.ndim - 2))
    padded = np.pad(x, widths)
    return np.lib.stride_tricks.sliding_window_view(padded, size, axis=1).sum(axis=-1)


def _response(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x, size = inputs[0], attributes["size"]
    share = attributes["alpha"] / size
    base = attributes["bias"] + share * _neighbours(np.square(x), size)
    return ((x * base ** -attributes["beta"]).astype(x.dtype, copy=False),)


def _response_bound(
    attributes: Attributes,
    inputs: Sequence[Any],
    bounds: Sequence[Any],
    outputs: Sequence[Any],
    unit: float,
) -> tuple[Any, ...]:
    x, error, size = inputs[0], bounds[0], attributes["size"]
    share, power = attributes["alpha"] / size, -attributes["beta"]
    base = attributes["bias"] + share * _neighbours(np.square(x), size)
    wide = np.abs(x) + error
    change = (wide + np.abs(x)) * error + 4 * gamma(size + 1, unit) * np.square(wide)
    e_base = abs(share) * _neighbours(np.broadcast_to(change, x.shape), size)
    e_base = e_base + 4 * unit * np.abs(base)
    # The power is monotone in its base, so its ends bound it.
    ends = [np.power(np.maximum(base + s * e_base, 0), power) for s in (-1, 1)]
    factor = np.power(base, power)
    # exp(power·ln base) rounds the exponent: unit·|power·ln base|, and a few last digits.
    spent = 4 * unit * (2 + np.abs(power * np.log(base)))
    e_factor = np.maximum(*(np.abs(v - factor) for v in ends)) + spent * np.maximum(*ends)
    return (error * (factor + e_factor) + np.abs(x) * e_factor + 2 * unit * np.abs(x) * factor,)


def _same_type(inference: Inference) -> tuple[TensorType, ...]:
    return (_floats(inference, 2),)


def _cost(per_element: int) -> CostRule:
    def cost(
        attributes: Attributes, inputs: Sequence[TensorType | None], outputs: Sequence[TensorType]
    ) -> Cost:
        moved = sum(int(t.nbytes()) for t in (*inputs, *outputs) if t is not None)
        return Cost(per_element * int(dimensions.volume(outputs[0].shape)), moved)

    return cost


def _row(
    name: str,
    infer: InferRule,
    reference: Reference,
    bound: BoundRule,
    flops: int,
    attributes: Mapping[str, Any],
    *,
    layer_type: str = "NORMALIZATION",
) -> Operator:
    return Operator(
        name=name,
        infer=infer,
        reference=reference,
        bound=bound,
        layer_type=layer_type,
        family="normalization",
        attributes=MappingProxyType(dict(attributes)),
        cost=_cost(flops),
    )


_EPSILON = {"epsilon": 1e-5}
_LAST_AXES = {"axis": -1, "epsilon": 1e-5, "stash_type": 1}

# Operations an element: batch (x - m)·a + b = 3; standardizing: mean 1, centre 1, square 2,
# scale 2, affine 2; root mean square: 2, 2, 1.
NORMALIZATION: tuple[Operator, ...] = (
    _row(
        "BatchNormalization",
        _batch_types,
        _batch,
        _batch_bound,
        3,
        {"epsilon": 1e-5, "momentum": 0.9, "training_mode": 0},
        layer_type="SCALE",
    ),
    _row("LayerNormalization", _layer_types, _layer, _layer_bound, 8, _LAST_AXES),
    _row("InstanceNormalization", _instance_types, _group, _group_bound, 8, _EPSILON),
    _row(
        "GroupNormalization",
        _group_types,
        _group,
        _group_bound,
        8,
        {"epsilon": 1e-5, "num_groups": REQUIRED, "stash_type": 1},
    ),
    _row("RMSNormalization", _rms_types, _rms, _rms_bound, 5, _LAST_AXES),
    _row(
        "LRN",
        _same_type,
        _response,
        _response_bound,
        6,
        {"alpha": 1e-4, "beta": 0.75, "bias": 1.0, "size": REQUIRED},
        layer_type="LRN",
    ),
)
