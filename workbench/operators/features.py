"""Operators of ai.onnx.ml that prepare features: scaling, encoding, looking up, choosing.

Source: ONNX-ML operators. Where its text leaves a choice, ONNX Runtime's is taken.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from workbench.body import (
    Array,
    Attributes,
    HostType,
    Inference,
    InferRule,
    Literal,
    Operator,
    Reference,
    TensorType,
    UnrankedType,
)
from workbench.datatypes import DataType
from workbench.errors import ExecutionError, InferenceError
from workbench.operators.rules import no_error, same_type

DOMAIN = "ai.onnx.ml"


def ml_row(
    name: str,
    infer: InferRule,
    reference: Reference,
    attributes: Mapping[str, Any] = MappingProxyType({}),
) -> Operator:
    """A row of the domain."""
    return Operator(
        name=name,
        infer=infer,
        reference=reference,
        bound=no_error,
        layer_type="FEATURES",
        family="machine learning",
        attributes=MappingProxyType(dict(attributes)),
        domain=DOMAIN,
        host=True,
        stored=True,
    )


def shaped(x: TensorType, dtype: DataType, *more: Any) -> TensorType:
    """As ``x``, of another element type, with more axes at the end."""
    if isinstance(x, HostType):
        return UnrankedType(dtype)
    return TensorType(dtype, (*x.shape, *more))


def features_of(x: Any) -> Array:
    """Numbers to compute with: float64 of float64 and integers, float32 of floats."""
    return x if x.dtype in (np.float32, np.float64) else x.astype(np.float64)


def _to_float(inference: Inference) -> tuple[TensorType, ...]:
    return (shaped(inference.input(0), DataType.FLOAT),)


def _row_of(attributes: Attributes, key: str, x: Array) -> Array:
    """A list of one number a feature, or of one for all, in the type of ``x``."""
    return np.asarray(attributes[key], x.dtype)


def _check_length(inference: Inference, *keys: str) -> None:
    """Raise InferenceError unless these lists have one entry, or one a feature."""
    x = inference.input(0)
    size = x.shape[-1] if not isinstance(x, HostType) and x.shape else None
    for key in keys:
        count = len(inference.attributes[key] or ())
        if not count or (count != 1 and isinstance(size, int) and count != size):
            raise InferenceError(
                f"{key} has {count} entries, the input {x} has {size} features",
                remedy="give one, or one a feature",
            )


# -- Scaler, Normalizer, Binarizer, Imputer -----------------------------------------------
def _scaler_types(inference: Inference) -> tuple[TensorType, ...]:
    _check_length(inference, "offset", "scale")
    return _to_float(inference)


def _scaler(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x = features_of(inputs[0])
    scaled = (x - _row_of(attributes, "offset", x)) * _row_of(attributes, "scale", x)
    return (scaled.astype(np.float32),)


def _normalizer_types(inference: Inference) -> tuple[TensorType, ...]:
    norm = inference.attributes["norm"]
    if norm not in ("MAX", "L1", "L2"):
        raise InferenceError(f"norm is {norm!r}", remedy="known: MAX, L1, L2")
    return _to_float(inference)


def _normalizer(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    """Along the last axis; where the divisor is zero, the input."""
    x = features_of(inputs[0])
    match attributes["norm"]:
        case "MAX":
            divisor = x.max(-1, keepdims=True, initial=-np.inf)
        case "L1":
            divisor = np.abs(x).sum(-1, keepdims=True)
        case _:
            divisor = np.sqrt(np.square(x).sum(-1, keepdims=True))
    return ((x / np.where(divisor == 0, 1, divisor)).astype(np.float32),)


def _binarizer(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    (x,) = inputs
    return ((x > attributes["threshold"]).astype(x.dtype),)


def _imputed(dtype: DataType) -> tuple[str, str]:
    if dtype.is_float:
        return "imputed_value_floats", "replaced_value_float"
    return "imputed_value_int64s", "replaced_value_int64"


def _imputer_types(inference: Inference) -> tuple[TensorType, ...]:
    x = inference.input(0)
    _check_length(inference, _imputed(x.dtype)[0])
    return (x,)


def _imputer(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    (x,) = inputs
    values, replaced = (attributes[key] for key in _imputed(DataType.of(x)))
    missing = np.isnan(x) if np.isnan(replaced) else x == np.asarray(replaced, x.dtype)
    return (np.where(missing, np.asarray(values, x.dtype), x),)


# -- ArrayFeatureExtractor, FeatureVectorizer ---------------------------------------------
def _extractor_types(inference: Inference) -> tuple[TensorType, ...]:
    x, indices = inference.input(0), inference.input(1)
    if isinstance(x, HostType):
        return (x,)
    count = inference.later(max(len(x.shape), 2) - 1)
    if not isinstance(indices, HostType) and all(isinstance(d, int) for d in indices.shape):
        count = int(np.prod(indices.shape))
    return (TensorType(x.dtype, (*(x.shape[:-1] or (1,)), count)),)


def _extractor(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x, indices = inputs
    return (np.take(np.atleast_2d(x), indices.reshape(-1), axis=-1),)


def _vectorizer_types(inference: Inference) -> tuple[TensorType, ...]:
    types = [inference.input(i) for i in range(len(inference.inputs))]
    sizes = inference.attributes["inputdimensions"]
    if not types or not sizes or len(sizes) != len(types):
        raise InferenceError(
            f"{len(types)} inputs, inputdimensions {sizes}", remedy="give one size an input"
        )
    first = types[0]
    rows: Any = inference.later(0)
    if not isinstance(first, HostType):
        rows = first.shape[0] if len(first.shape) > 1 else 1
    return (TensorType(DataType.FLOAT, (rows, sum(sizes))),)


def _vectorizer(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    """Columns beside each other; each input cut, or filled up with zeros, to its size."""
    parts: list[Array] = []
    for x, size in zip(inputs, attributes["inputdimensions"], strict=True):
        x = np.atleast_2d(x).astype(np.float32)
        x = x.reshape(x.shape[0], -1)[:, :size]
        parts.append(np.pad(x, ((0, 0), (0, size - x.shape[1]))))
    return (np.concatenate(parts, axis=1),)


# -- LabelEncoder, CategoryMapper, OneHotEncoder ------------------------------------------
_LISTS = {
    "tensor": None,
    "strings": DataType.STRING,
    "int64s": DataType.INT64,
    "floats": DataType.FLOAT,
}
_DEFAULTS = {"strings": "default_string", "int64s": "default_int64", "floats": "default_float"}


def _table(attributes: Attributes, what: str) -> tuple[str, Array, DataType]:
    """The list of keys, or of values, that is set: its kind, as an array, and its type."""
    given = [k for k in _LISTS if attributes[f"{what}_{k}"] is not None]
    if len(given) != 1:
        raise InferenceError(
            f"{len(given)} of the attributes {what}_* are set", remedy="set exactly one"
        )
    (kind,) = given
    stored, dtype = attributes[f"{what}_{kind}"], _LISTS[kind]
    if isinstance(stored, Literal):
        return kind, stored.array().reshape(-1), stored.dtype
    assert dtype is not None
    return kind, np.asarray(stored, dtype.numpy), dtype


def _encoder_types(inference: Inference) -> tuple[TensorType, ...]:
    x = inference.input(0)
    _, keys, kind = _table(inference.attributes, "keys")
    _, values, made = _table(inference.attributes, "values")
    if kind is not x.dtype or len(keys) != len(values):
        raise InferenceError(
            f"input is {x}; {len(keys)} keys are {kind}, {len(values)} values {made}",
            remedy="give keys of the input's type, and one value a key",
        )
    return (shaped(x, made),)


def _encoder(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    """A repeated key means its last value; every NaN is one key."""
    (x,) = inputs
    _, keys, _ = _table(attributes, "keys")
    kind, values, made = _table(attributes, "values")
    if kind == "tensor":
        given = attributes["default_tensor"]
        default = _default_of(made) if given is None else given.array().reshape(-1)[0]
    else:
        default = attributes[_DEFAULTS[kind]]
    return (mapped(x, keys, values, default, made.numpy),)


def _default_of(dtype: DataType) -> Any:
    return "_Unused" if dtype is DataType.STRING else -0.0 if dtype.is_float else -1


def _key(value: Any) -> Hashable:
    return None if value != value else value


def mapped(x: Array, keys: Sequence[Any] | Array, values: Any, default: Any, dtype: Any) -> Array:
    """Each element's value by its key, else the default."""
    table = {_key(k): v for k, v in zip(np.asarray(keys).tolist(), values, strict=True)}
    made = np.empty(x.size, dtype)
    for k, v in enumerate(x.reshape(-1).tolist()):
        made[k] = table.get(_key(v), default)
    return made.reshape(x.shape)


def _mapper_types(inference: Inference) -> tuple[TensorType, ...]:
    x, attributes = inference.input(0), inference.attributes
    counts = [len(attributes[k] or ()) for k in ("cats_int64s", "cats_strings")]
    if counts[0] != counts[1]:
        raise InferenceError(
            f"{counts[0]} cats_int64s, {counts[1]} cats_strings", remedy="give as many of each"
        )
    return (shaped(x, DataType.INT64 if x.dtype is DataType.STRING else DataType.STRING),)


def _mapper(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    (x,) = inputs
    numbers, words = attributes["cats_int64s"] or (), attributes["cats_strings"] or ()
    if x.dtype.kind in "iu":
        return (mapped(x, numbers, words, attributes["default_string"], np.object_),)
    return (mapped(x, words, numbers, attributes["default_int64"], np.int64),)


def _one_hot_types(inference: Inference) -> tuple[TensorType, ...]:
    x = inference.input(0)
    key = "cats_strings" if x.dtype is DataType.STRING else "cats_int64s"
    categories = inference.attributes[key]
    if not categories:
        raise InferenceError(f"input is {x}, and there are no {key}", remedy=f"give {key}")
    return (shaped(x, DataType.FLOAT, len(categories)),)


def _one_hot(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    (x,) = inputs
    words = x.dtype.kind in "OUS"
    categories = attributes["cats_strings" if words else "cats_int64s"]
    index = mapped(
        x if words else x.astype(np.int64), categories, range(len(categories)), -1, np.int64
    )
    if not attributes["zeros"] and (index < 0).any():
        raise ExecutionError(
            f"{x[index < 0][0]!r} is none of the categories", remedy="set zeros, or mend the input"
        )
    return ((index[..., None] == np.arange(len(categories))).astype(np.float32),)


FEATURES: tuple[Operator, ...] = (
    ml_row("Scaler", _scaler_types, _scaler, {"offset": None, "scale": None}),
    ml_row("Normalizer", _normalizer_types, _normalizer, {"norm": "MAX"}),
    ml_row("Binarizer", same_type, _binarizer, {"threshold": 0.0}),
    ml_row(
        "Imputer",
        _imputer_types,
        _imputer,
        {
            "imputed_value_floats": None,
            "imputed_value_int64s": None,
            "replaced_value_float": 0.0,
            "replaced_value_int64": 0,
        },
    ),
    ml_row("ArrayFeatureExtractor", _extractor_types, _extractor),
    ml_row("FeatureVectorizer", _vectorizer_types, _vectorizer, {"inputdimensions": None}),
    ml_row(
        "LabelEncoder",
        _encoder_types,
        _encoder,
        {
            **dict.fromkeys(f"{w}_{k}" for w in ("keys", "values") for k in _LISTS),
            "default_float": -0.0,
            "default_int64": -1,
            "default_string": "_Unused",
            "default_tensor": None,
        },
    ),
    ml_row(
        "CategoryMapper",
        _mapper_types,
        _mapper,
        {
            "cats_int64s": None,
            "cats_strings": None,
            "default_int64": -1,
            "default_string": "_Unused",
        },
    ),
    ml_row(
        "OneHotEncoder",
        _one_hot_types,
        _one_hot,
        {"cats_int64s": None, "cats_strings": None, "zeros": 1},
    ),
)
