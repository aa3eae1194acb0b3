"""p-norms and determinants: LpPool, GlobalLpPool, LpNormalization, Det."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from workbench import dimensions
from workbench.body import REQUIRED, Array, Attributes, Cost, Inference, Operator, TensorType
from workbench.errors import InferenceError
from workbench.operators.products import gamma
from workbench.operators.rules import axis_of, filled, floating, input_cost
from workbench.operators.windows import kernel_axes, patches, window_of


# -- pools --------------------------------------------------------------------------------
def _image(inference: Inference) -> TensorType:
    (x,) = floating(inference)
    if len(x.shape) < 3:
        raise InferenceError(f"input is {x.shape}; need batch, channels and spatial axes")
    if inference.attributes["p"] < 1:
        raise InferenceError(f"p is {inference.attributes['p']}", remedy="use 1 or more")
    return x


def _pool_types(inference: Inference) -> tuple[TensorType, ...]:
    x = _image(inference)
    window = window_of(inference.attributes, x.shape[2:], inference.attributes["kernel_shape"])
    return (TensorType(x.dtype, (*x.shape[:2], *window.output)),)


def _global_types(inference: Inference) -> tuple[TensorType, ...]:
    x = _image(inference)
    return (TensorType(x.dtype, (*x.shape[:2], *(1,) * (len(x.shape) - 2))),)


def _norm(x: Array, p: int, axes: tuple[int, ...], *, keepdims: bool = False) -> Array:
    """(Σ|x|ᵖ)^(1/p), scaled by the largest so that no power overflows."""
    size = np.abs(x)
    largest = size.max(axis=axes, keepdims=True, initial=0)
    unit = np.where((largest > 0) & np.isfinite(largest), largest, 1).astype(x.dtype)
    total = np.power(size / unit, p).sum(axis=axes, keepdims=True)
    found = (np.power(total, 1 / p) * unit).astype(x.dtype)
    return found if keepdims else found.reshape(np.squeeze(found, axis=axes).shape)


def _lp_pool(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x = inputs[0]
    window = window_of(attributes, x.shape[2:], attributes["kernel_shape"])
    return (_norm(patches(x, window, 0), attributes["p"], kernel_axes(x.ndim - 2)),)


def _global_lp_pool(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x = inputs[0]
    return (_norm(x, attributes["p"], kernel_axes(x.ndim - 2), keepdims=True),)


def _lp_pool_bound(
    attributes: Attributes, inputs: Sequence[Any], bounds: Sequence[Any], outputs: Any, unit: float
) -> tuple[Any, ...]:
    """A norm of errors is at least the error of the norm."""
    (spread,) = _lp_pool(attributes, (filled(bounds[0], inputs[0]).astype(np.float64),))
    own = _norm_error(attributes["p"], math.prod(attributes["kernel_shape"]), unit)
    return (spread + own * (outputs[0] + spread),)


def _global_bound(
    attributes: Attributes, inputs: Sequence[Any], bounds: Sequence[Any], outputs: Any, unit: float
) -> tuple[Any, ...]:
    x = inputs[0]
    (spread,) = _global_lp_pool(attributes, (filled(bounds[0], x).astype(np.float64),))
    own = _norm_error(attributes["p"], math.prod(x.shape[2:]), unit)
    return (spread + own * (outputs[0] + spread),)


def _norm_error(p: int, terms: int, unit: float) -> float:
    """Relative: the sum's, divided by p, and the powers' (four last places each)."""
    return 4 * gamma(terms + p, unit) + 16 * unit


def _pool_cost(
    attributes: Attributes, inputs: Sequence[TensorType | None], outputs: Sequence[TensorType]
) -> Cost:
    moved = sum(int(t.nbytes()) for t in (*inputs, *outputs) if t is not None)
    taps = math.prod(attributes["kernel_shape"])
    return Cost(2 * taps * int(dimensions.volume(outputs[0].shape)), moved)


# -- LpNormalization ----------------------------------------------------------------------
def _normal_types(inference: Inference) -> tuple[TensorType, ...]:
    (x,) = floating(inference)
    axis_of(inference.attributes["axis"], len(x.shape))
    if inference.attributes["p"] not in (1, 2):
        raise InferenceError(f"p is {inference.attributes['p']}", remedy="use 1 or 2")
    return (x,)


def _lp_normal(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x = inputs[0]
    size = _norm(x, attributes["p"], (attributes["axis"],), keepdims=True)
    return (np.where(size == 0, 0, x / size).astype(x.dtype),)


def _normal_bound(
    attributes: Attributes, inputs: Sequence[Any], bounds: Sequence[Any], outputs: Any, unit: float
) -> tuple[Any, ...]:
    x, p, axes = inputs[0], attributes["p"], (attributes["axis"],)
    error = filled(bounds[0], x)
    size, spread = (_norm(v.astype(np.float64), p, axes, keepdims=True) for v in (x, error))
    own = _norm_error(p, x.shape[axes[0]], unit)
    low = size * (1 - own) - spread
    wide = (error + np.abs(outputs[0]) * (spread + own * size)) / np.where(low > 0, low, 1)
    zero = (size == 0) & (spread == 0)
    return (np.where(zero, 0.0, np.where(low > 0, wide + 4 * unit * np.abs(outputs[0]), np.inf)),)


# -- Det ----------------------------------------------------------------------------------
def _det_types(inference: Inference) -> tuple[TensorType, ...]:
    (x,) = floating(inference)
    if len(x.shape) < 2 or not dimensions.may_equal(x.shape[-1:], x.shape[-2:-1]):
        raise InferenceError(f"input is {x.shape}", remedy="give square matrices")
    return (TensorType(x.dtype, x.shape[:-2]),)


def _det(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    return (np.asarray(np.linalg.det(inputs[0])),)


def _det_bound(
    attributes: Attributes, inputs: Sequence[Any], bounds: Sequence[Any], outputs: Any, unit: float
) -> tuple[Any, ...]:
    """Of a matrix whose rows are off by E: Σ ‖E_i‖·Π‖rows‖, after Hadamard.

    Elimination with pivoting is exact for such a matrix. Source: Higham, Accuracy and Stability
    of Numerical Algorithms, theorem 9.3; its growth factor is taken as n.
    """
    x = inputs[0].astype(np.float64)
    n = x.shape[-1]
    if n == 0:
        return (0.0,)
    size = np.linalg.norm(x, axis=-1)
    largest = np.max(np.abs(x), axis=(-2, -1), keepdims=True)[..., 0]
    off = np.linalg.norm(filled(bounds[0], x), axis=-1)
    off = off + 4 * gamma(n + 1, unit) * n * math.sqrt(n) * largest
    rows = size + off
    total: Any = 0.0
    for i in range(n):
        total = total + off[..., i] * np.prod(np.delete(rows, i, axis=-1), axis=-1)
    return (total,)


_GEOMETRY = {
    "auto_pad": "NOTSET",
    "ceil_mode": 0,
    "dilations": None,
    "kernel_shape": REQUIRED,
    "p": 2,
    "pads": None,
    "strides": None,
}

NORMS: tuple[Operator, ...] = (
    Operator(
        name="LpPool",
        infer=_pool_types,
        reference=_lp_pool,
        bound=_lp_pool_bound,
        layer_type="POOLING",
        family="pooling",
        cost=_pool_cost,
        attributes=MappingProxyType(_GEOMETRY),
    ),
    Operator(
        name="GlobalLpPool",
        infer=_global_types,
        reference=_global_lp_pool,
        bound=_global_bound,
        layer_type="POOLING",
        family="pooling",
        cost=input_cost(2),
        attributes=MappingProxyType({"p": 2}),
    ),
    Operator(
        name="LpNormalization",
        infer=_normal_types,
        reference=_lp_normal,
        bound=_normal_bound,
        layer_type="NORMALIZATION",
        family="normalization",
        cost=input_cost(3),
        attributes=MappingProxyType({"axis": -1, "p": 2}),
    ),
    Operator(
        name="Det",
        infer=_det_types,
        reference=_det,
        bound=_det_bound,
        layer_type="REDUCE",
        family="matrix",
        attributes=MappingProxyType({}),
    ),
)
