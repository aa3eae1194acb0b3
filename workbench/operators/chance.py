"""Random numbers: RandomNormal, RandomUniform, their Like forms, and Multinomial.

No two implementations give the same numbers: a check of values says that they lie in the range of
what can be drawn. With a seed, the reference gives the same numbers at every call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from workbench.body import (
    REQUIRED,
    Array,
    Attributes,
    BoundRule,
    Inference,
    InferRule,
    Operator,
    Reference,
    TensorType,
)
from workbench.datatypes import DataType
from workbench.errors import InferenceError

Draw = Callable[["np.random.Generator", Attributes, tuple[int, ...]], Array]
"""numpy.random, 2 MB, is loaded where a number is drawn."""


def _generator(attributes: Attributes) -> np.random.Generator:
    """Seeded with the bits of the attribute; without it, unpredictable."""
    seed = attributes["seed"]
    return np.random.default_rng(None if seed is None else int(np.float64(seed).view(np.uint64)))


def _uniform(generator: np.random.Generator, a: Attributes, shape: tuple[int, ...]) -> Array:
    return generator.uniform(a["low"], a["high"], shape)


def _normal(generator: np.random.Generator, a: Attributes, shape: tuple[int, ...]) -> Array:
    return generator.normal(a["mean"], a["scale"], shape)


FARTHEST = 16.0
"""Standard deviations within which every normal number lies (all but one of 10**56)."""


def _uniform_range(
    attributes: Attributes, inputs: Sequence[Any], bounds: Any, outputs: Any, unit: float
) -> tuple[Any, ...]:
    """Two numbers of the range are this far apart at most."""
    return (abs(attributes["high"] - attributes["low"]),)


def _normal_range(
    attributes: Attributes, inputs: Sequence[Any], bounds: Any, outputs: Any, unit: float
) -> tuple[Any, ...]:
    return (2 * FARTHEST * abs(attributes["scale"]),)


def _class_range(
    attributes: Attributes, inputs: Sequence[Any], bounds: Any, outputs: Any, unit: float
) -> tuple[Any, ...]:
    """Any class may come out."""
    return (float(inputs[0].shape[1] - 1),)


def _shaped_types(inference: Inference) -> tuple[TensorType, ...]:
    return (TensorType(inference.attributes["dtype"], tuple(inference.attributes["shape"])),)


def _like_types(inference: Inference) -> tuple[TensorType, ...]:
    x = inference.input(0)
    drawn = inference.attributes["dtype"] or x.dtype
    if not drawn.is_float:
        raise InferenceError(f"draws {drawn}", remedy="say a float type in dtype")
    return (TensorType(drawn, x.shape),)


def _drawn(draw: Draw) -> Reference:
    def reference(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
        shape = np.shape(inputs[0]) if inputs else tuple(attributes["shape"])
        # Stored in the output's type by the interpreter; halves are widened here.
        return (draw(_generator(attributes), attributes, shape),)

    return reference


def _multinomial_types(inference: Inference) -> tuple[TensorType, ...]:
    x = inference.input(0)
    if len(x.shape) != 2 or not x.dtype.is_float:
        raise InferenceError(f"input is {x}", remedy="give floats of [batch, classes]")
    shape = (x.shape[0], inference.attributes["sample_size"])
    return (TensorType(inference.attributes["dtype"], shape),)


def _multinomial(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    """Classes drawn by their unnormalized log-probabilities: the largest of logit + Gumbel."""
    logits, count = inputs[0].astype(np.float64), attributes["sample_size"]
    noise = _generator(attributes).gumbel(size=(logits.shape[0], count, logits.shape[1]))
    return (np.argmax(logits[:, None, :] + noise, axis=2),)


def _row(
    name: str,
    infer: InferRule,
    reference: Reference,
    bound: BoundRule,
    attributes: Mapping[str, Any],
) -> Operator:
    return Operator(
        name=name,
        infer=infer,
        reference=reference,
        bound=bound,
        layer_type="FILL",
        family="random",
        deterministic=False,
        attributes=MappingProxyType({**attributes, "seed": None}),
    )


_NORMAL = {"mean": 0.0, "scale": 1.0}
_UNIFORM = {"high": 1.0, "low": 0.0}
_SHAPED = {"dtype": DataType.FLOAT, "shape": REQUIRED}

CHANCE: tuple[Operator, ...] = (
    _row("RandomNormal", _shaped_types, _drawn(_normal), _normal_range, {**_NORMAL, **_SHAPED}),
    _row(
        "RandomNormalLike", _like_types, _drawn(_normal), _normal_range, {**_NORMAL, "dtype": None}
    ),
    _row("RandomUniform", _shaped_types, _drawn(_uniform), _uniform_range, {**_UNIFORM, **_SHAPED}),
    _row(
        "RandomUniformLike",
        _like_types,
        _drawn(_uniform),
        _uniform_range,
        {**_UNIFORM, "dtype": None},
    ),
    _row(
        "Multinomial",
        _multinomial_types,
        _multinomial,
        _class_range,
        {"dtype": DataType.INT32, "sample_size": 1},
    ),
)
