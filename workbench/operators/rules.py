"""Rules that many operators share: types and shapes, and how far a correct result may be off.

An input bound is an array that broadcasts to its input, a plain 0.0 where the input is exact,
None where it is absent (see ``Operator.bound``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from workbench import dimensions
from workbench.body import (
    Array,
    Attributes,
    BoundRule,
    Cost,
    CostRule,
    Inference,
    InferRule,
    MisfitRule,
    Operator,
    Reference,
    TensorType,
)
from workbench.datatypes import DataType
from workbench.dimensions import LARGEST, Shape, SymbolicDim
from workbench.errors import InferenceError, NetworkError, ValueNeeded
from workbench.operators.products import is_exact


# -- types --------------------------------------------------------------------------------
def same_type(inference: Inference) -> tuple[TensorType, ...]:
    """The first input's type."""
    return (inference.input(0),)


def present(inference: Inference) -> tuple[TensorType, ...]:
    """The types of the inputs that are there."""
    return tuple(t for t in inference.inputs if t is not None)


def broadcast_shape(*types: TensorType) -> Shape:
    """The shape that the inputs broadcast to. Raises InferenceError naming both shapes."""
    try:
        return dimensions.broadcast(*(t.shape for t in types))
    except InferenceError:
        raise
    except NetworkError as e:
        raise InferenceError(e.problem, remedy=e.remedy) from None


def one_dtype(*types: TensorType) -> DataType:
    """The type that all share. Raises InferenceError naming the two that differ."""
    first = types[0].dtype
    for i, t in enumerate(types):
        if t.dtype is not first:
            raise InferenceError(
                f"input 0 is {first!r}, input {i} is {t.dtype!r}", remedy="cast one of them"
            )
    return first


def elementwise(inference: Inference) -> tuple[TensorType, ...]:
    """Inputs of one type, broadcast against each other."""
    types = present(inference)
    if not types:
        raise InferenceError("no inputs", remedy="give at least one")
    return (TensorType(one_dtype(*types), broadcast_shape(*types)),)


def comparison(inference: Inference) -> tuple[TensorType, ...]:
    """As ``elementwise``, answering yes or no."""
    (t,) = elementwise(inference)
    return (TensorType(DataType.BOOL, t.shape),)


def numeric(inference: Inference) -> TensorType:
    """The first input's type, which must be of numbers; STRING is allowed where data only moves."""
    t = inference.input(0)
    if t.dtype is DataType.STRING:
        raise InferenceError(f"input 0 is {t}, needs numbers", remedy="insert a Cast")
    return t


def floating(inference: Inference) -> tuple[TensorType, ...]:
    """The first input's type, which must be a float."""
    t = inference.input(0)
    if not t.dtype.is_float:
        raise InferenceError(f"input 0 is {t.dtype!r}, needs a float type", remedy="insert a Cast")
    return (t,)


def axis_of(axis: int, rank: int) -> int:
    """The axis counted from the front. Raises InferenceError naming axis and rank."""
    if not -rank <= axis < rank:
        raise InferenceError(
            f"axis {axis} lies outside rank {rank}", remedy=f"use {-rank} to {rank - 1}"
        )
    return axis % rank


def axes_of(axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """Distinct axes counted from the front, in the order given."""
    found = tuple(axis_of(int(a), rank) for a in axes)
    if len(set(found)) != len(found):
        raise InferenceError(f"axes {tuple(axes)} name one axis twice", remedy="list each once")
    return found


def known(inference: Inference, index: int, what: str) -> Array:
    """An input's value, which the type depends on. Raises ValueNeeded when it is not known."""
    value = inference.value(index)
    if value is None:
        raise ValueNeeded(
            f"input {index} ({what}) is computed from data, but it decides the output's shape",
            index=index,
            remedy=f"make {what} a constant, or compute it from shapes",
        )
    return value


def absent(inference: Inference, index: int) -> bool:
    """Whether an optional input is left out."""
    return index >= len(inference.inputs) or inference.inputs[index] is None


def sizes_of(array: Array) -> tuple[Any, ...]:
    """The entries as Python numbers, or symbolic sizes."""
    return tuple(
        v if isinstance(v, SymbolicDim) else int(v) for v in np.asarray(array).reshape(-1).tolist()
    )


def numbers_of(array: Array, what: str) -> tuple[int, ...]:
    """The entries as numbers. Raises InferenceError when one is symbolic."""
    sizes = sizes_of(array)
    if not dimensions.is_static(sizes):
        raise ValueNeeded(
            f"{what} is {sizes}; it must be numbers", index=0, remedy="give the input fixed sizes"
        )
    return sizes


def range_of(size: Any) -> tuple[int, int]:
    """Smallest and largest value, whatever the symbols' sizes; ±``LARGEST`` without a limit."""
    try:
        return dimensions.interval(size, {s: (0, LARGEST) for s in dimensions.symbols_of(size)})
    except ZeroDivisionError:  # a divisor that may be zero
        return -LARGEST, LARGEST


def at_least(low: int, size: Any) -> Any:
    """max(size, low), without the max where the size can't be smaller."""
    return size if range_of(size)[0] >= low else dimensions.maximum(size, low)


def reduced_shape(shape: Shape, axes: tuple[int, ...], keepdims: Any) -> Shape:
    """The shape without these axes, or with size 1 there."""
    if keepdims:
        return tuple(1 if i in axes else d for i, d in enumerate(shape))
    return tuple(d for i, d in enumerate(shape) if i not in axes)


# -- bounds -------------------------------------------------------------------------------
def difference(a: Any, b: Any) -> Any:
    """|a - b|; 0 where both are the same infinity or both NaN, infinite where one alone is."""
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    gap = np.where(same, 0.0, np.abs(a - b))
    return np.where(np.isnan(gap), np.inf, gap)


def no_error(
    attributes: Attributes,
    inputs: Sequence[Any],
    bounds: Sequence[Any],
    outputs: Sequence[Any],
    unit: float,
) -> tuple[Any, ...]:
    """Of results that only depend on shapes: exact."""
    return (0.0,) * len(outputs)


def certain(bound: Any) -> bool:
    """Whether no element of this input has an error."""
    return is_exact(bound) or not np.any(bound)


def filled(bound: Any, like: Any) -> Array:
    """A bound as an array of its input's shape."""
    return np.broadcast_to(np.asarray(0.0 if bound is None else bound), np.shape(like))


Size = float | Callable[[Attributes, Array], Any]
"""An absolute error in units of roundoff: a number, or a function of (attributes, x)."""


def corners(
    function: Reference,
    *,
    ulps: float = 4.0,
    absolute: Size = 0.0,
    curvature: Size = 0.0,
    low: float = -np.inf,
    high: float = np.inf,
) -> BoundRule:
    """Bound of a function of input 0 alone: its change at x ± e, plus its own rounding.

    ulps: relative error of an implementation, in units of the last place (2 units of roundoff).
    absolute: error besides, in units of roundoff, where implementations are only accurate so.
    curvature: the largest |f''|, for a function that turns inside [x - e, x + e]: at an extremum
    in there it differs from f(x) by at most |f''|·e²/2. low, high: ends of the domain.
    """

    def bound(
        attributes: Attributes,
        inputs: Sequence[Any],
        bounds: Sequence[Any],
        outputs: Sequence[Any],
        unit: float,
    ) -> tuple[Any, ...]:
        x, e, y = np.asarray(inputs[0]), bounds[0], np.asarray(outputs[0])
        own: Any = 0.0
        if y.dtype.kind == "f" and (ulps or absolute):
            finite = np.where(np.isfinite(y), np.abs(y), 0.0)
            own = unit * (2 * ulps * finite + _size(absolute, attributes, x))
        if is_exact(e):
            return (own,)
        real, rest = x.astype(np.float64), tuple(inputs[1:])
        center = _real(function(attributes, (real, *rest)))
        sides = (np.maximum(real - e, low), np.minimum(real + e, high))
        change = [difference(_real(function(attributes, (s, *rest))), center) for s in sides]
        turn = _size(curvature, attributes, real)
        return (own + np.maximum(*change) + turn * np.square(e) / 2,)

    return bound


def _real(outputs: Sequence[Any]) -> Array:
    return np.asarray(outputs[0]).astype(np.float64)


def _size(size: Size, attributes: Attributes, x: Array) -> Any:
    return size(attributes, x) if callable(size) else size


def moved(reference: Reference, *, data: tuple[int, ...] | None = (0,)) -> BoundRule:
    """Bound of moved data: the bounds, moved alike. data: the inputs that are moved; None: all.

    Where another input (an index) may be wrong, anything may come out: infinite.
    """

    def bound(
        attributes: Attributes,
        inputs: Sequence[Any],
        bounds: Sequence[Any],
        outputs: Sequence[Any],
        unit: float,
    ) -> tuple[Any, ...]:
        chosen = range(len(inputs)) if data is None else data
        if not all(certain(b) for i, b in enumerate(bounds) if i not in chosen):
            return (np.inf,) * len(outputs)
        if all(is_exact(b) for b in bounds):
            return (0.0,) * len(outputs)
        arguments = [
            filled(bounds[i], x) if i in chosen and x is not None else x
            for i, x in enumerate(inputs)
        ]
        return reference(attributes, arguments)

    return bound


def mover(
    name: str,
    infer: InferRule,
    reference: Reference,
    *,
    layer_type: str = "SHUFFLE",
    bound: BoundRule | None = None,
    structural: frozenset[int] = frozenset(),
    attributes: Mapping[str, Any] = MappingProxyType({}),
    symbolic: bool = False,
    open: InferRule | None = None,
    misfit: MisfitRule | None = None,
) -> Operator:
    """A row of the movement family: its bound moves the inputs' bounds, unless given."""
    return Operator(
        name=name,
        infer=infer,
        reference=reference,
        bound=bound or moved(reference),
        layer_type=layer_type,
        family="movement",
        attributes=MappingProxyType(dict(attributes)),
        structural=structural,
        symbolic=symbolic,
        open=open,
        misfit=misfit,
    )


def squeezed(attributes: Attributes, y: Any, axes: tuple[int, ...]) -> Array:
    """A result of axes reduced to size 1, without them unless ``keepdims`` says so."""
    return np.asarray(y) if attributes["keepdims"] else np.squeeze(y, axis=axes)


def input_cost(flops: int) -> CostRule:
    """So many operations an input element; every input and output moved once."""

    def cost(
        attributes: Attributes, inputs: Sequence[TensorType | None], outputs: Sequence[TensorType]
    ) -> Cost:
        moved = sum(int(t.nbytes()) for t in (*inputs, *outputs) if t is not None)
        assert inputs[0] is not None
        return Cost(flops * int(dimensions.volume(inputs[0].shape)), moved)

    return cost


def reducer(
    name: str,
    infer: InferRule,
    reference: Reference,
    bound: BoundRule,
    *,
    layer_type: str = "REDUCE",
    flops: int = 1,
    structural: frozenset[int] = frozenset(),
    attributes: Mapping[str, Any] = MappingProxyType({}),
    symbolic: bool = False,
    open: InferRule | None = None,
) -> Operator:
    """A row of the reduction family. flops: operations an input element."""
    return Operator(
        name=name,
        infer=infer,
        reference=reference,
        bound=bound,
        layer_type=layer_type,
        family="reduction",
        attributes=MappingProxyType(dict(attributes)),
        cost=input_cost(flops),
        structural=structural,
        symbolic=symbolic,
        open=open,
    )
