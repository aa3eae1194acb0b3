"""Data movement: reshaping and reordering; the family's table."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import Any

import numpy as np

from workbench import dimensions
from workbench.body import (
    REQUIRED,
    Array,
    Attributes,
    Inference,
    Operator,
    TensorType,
)
from workbench.dimensions import Shape
from workbench.errors import InferenceError, ValueNeeded
from workbench.operators import open_shapes
from workbench.operators.indexing import INDEXING
from workbench.operators.joining import JOINS
from workbench.operators.numerals import is_text
from workbench.operators.rules import (
    absent,
    axes_of,
    axis_of,
    known,
    mover,
    numbers_of,
    range_of,
    sizes_of,
)


# -- Reshape, Flatten, Squeeze, Unsqueeze, Transpose --------------------------------------
def _reshape_types(inference: Inference) -> tuple[TensorType, ...]:
    x = inference.input(0)
    target = sizes_of(known(inference, 1, "shape"))
    sizes = list(target)
    if not inference.attributes["allowzero"]:
        for i, size in enumerate(target):
            if size == 0:
                if i >= len(x.shape):
                    raise InferenceError(
                        f"shape {target} copies axis {i} of {x}", remedy="write the size itself"
                    )
                sizes[i] = x.shape[i]
    if sizes.count(-1) > 1 or any(range_of(s)[1] < -1 for s in sizes):
        raise InferenceError(f"shape {target} has more than one -1", remedy="leave one unknown")
    if -1 in sizes:
        free = sizes.index(-1)
        sizes[free] = _left(x, target, sizes[:free] + sizes[free + 1 :])
    _check_volume(x, tuple(sizes))
    return (TensorType(x.dtype, tuple(sizes)),)


def _left(x: TensorType, target: Shape, others: list[Any]) -> Any:
    """The size that -1 stands for."""
    rest = dimensions.volume(others)
    if isinstance(rest, int) and rest == 0:
        raise InferenceError(
            f"shape {target} has -1 beside 0: any size fits", remedy="write the size itself"
        )
    return dimensions.floordiv(dimensions.volume(x.shape), rest)


def _check_volume(x: TensorType, shape: Shape) -> None:
    given, wanted = dimensions.volume(x.shape), dimensions.volume(shape)
    if isinstance(given, int) and isinstance(wanted, int) and given != wanted:
        raise InferenceError(
            f"{x} has {given} elements, shape {shape} has {wanted}",
            remedy="give a shape of as many elements",
        )


def _reshape(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x, shape = inputs
    target = [index(size) for size in np.asarray(shape).reshape(-1).tolist()]
    if not attributes["allowzero"]:
        target = [x.shape[i] if size == 0 else size for i, size in enumerate(target)]
    return (x.reshape(target),)


def _flatten_types(inference: Inference) -> tuple[TensorType, ...]:
    x, axis = inference.input(0), inference.attributes["axis"]
    axis = len(x.shape) if axis == len(x.shape) else axis_of(axis, max(len(x.shape), 1))
    rows, columns = dimensions.volume(x.shape[:axis]), dimensions.volume(x.shape[axis:])
    return (TensorType(x.dtype, (rows, columns)),)


def _flatten(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    (x,) = inputs
    axis = attributes["axis"] + (x.ndim if attributes["axis"] < 0 else 0)
    return (x.reshape(int(np.prod(x.shape[:axis])), int(np.prod(x.shape[axis:]))),)


def _squeeze_types(inference: Inference) -> tuple[TensorType, ...]:
    x = inference.input(0)
    if absent(inference, 1):
        if not dimensions.is_static(x.shape):
            raise ValueNeeded(
                f"{x} has symbolic sizes, which may or may not be 1", index=0, remedy="give axes"
            )
        return (TensorType(x.dtype, tuple(d for d in x.shape if d != 1)),)
    axes = axes_of(numbers_of(known(inference, 1, "axes"), "axes"), len(x.shape))
    for axis in axes:
        if isinstance(x.shape[axis], int) and x.shape[axis] != 1:
            raise InferenceError(
                f"axis {axis} of {x} has size {x.shape[axis]}, not 1", remedy="leave it out of axes"
            )
    return (TensorType(x.dtype, tuple(d for i, d in enumerate(x.shape) if i not in axes)),)


def _squeeze(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x = inputs[0]
    axes = inputs[1] if len(inputs) > 1 else None
    return (np.squeeze(x, axis=None if axes is None else tuple(int(a) for a in axes)),)


def _unsqueeze_types(inference: Inference) -> tuple[TensorType, ...]:
    x = inference.input(0)
    axes = numbers_of(known(inference, 1, "axes"), "axes")
    rank = len(x.shape) + len(axes)
    chosen, sizes = axes_of(axes, rank), iter(x.shape)
    return (TensorType(x.dtype, tuple(1 if i in chosen else next(sizes) for i in range(rank))),)


def _unsqueeze(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x, axes = inputs
    return (np.expand_dims(x, tuple(int(a) for a in np.asarray(axes).reshape(-1))),)


def _transpose_types(inference: Inference) -> tuple[TensorType, ...]:
    x, perm = inference.input(0), inference.attributes["perm"]
    rank = len(x.shape)
    perm = tuple(reversed(range(rank))) if perm is None else axes_of(perm, rank)
    if len(perm) != rank:
        raise InferenceError(
            f"perm {perm} orders {len(perm)} axes of {x}", remedy="give each axis one place"
        )
    return (TensorType(x.dtype, tuple(x.shape[i] for i in perm)),)


def _transpose(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    return (np.transpose(inputs[0], attributes["perm"]),)


# -- DepthToSpace, SpaceToDepth, Trilu ----------------------------------------------------
def _depth_to_space_types(inference: Inference) -> tuple[TensorType, ...]:
    x, block = inference.input(0), inference.attributes["blocksize"]
    n, c, h, w = _images(x)
    if isinstance(c, int) and c % (block * block):
        raise InferenceError(
            f"{c} channels do not divide into blocks of {block}x{block}", remedy="mend blocksize"
        )
    depth = dimensions.floordiv(c, block * block)
    return (TensorType(x.dtype, (n, depth, h * block, w * block)),)


def _images(x: TensorType) -> Shape:
    if len(x.shape) != 4:
        raise InferenceError(f"input is {x}, needs rank 4 (N, C, H, W)", remedy="reshape it")
    return x.shape


def _depth_to_space(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    (x,), b = inputs, attributes["blocksize"]
    n, c, h, w = x.shape
    if attributes["mode"] == "DCR":
        apart = x.reshape(n, b, b, c // (b * b), h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        apart = x.reshape(n, c // (b * b), b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
    return (apart.reshape(n, c // (b * b), h * b, w * b),)


def _space_to_depth_types(inference: Inference) -> tuple[TensorType, ...]:
    x, block = inference.input(0), inference.attributes["blocksize"]
    n, c, h, w = _images(x)
    for size in (h, w):
        if isinstance(size, int) and size % block:
            raise InferenceError(
                f"size {size} does not divide into blocks of {block}", remedy="mend blocksize"
            )
    rows, columns = dimensions.floordiv(h, block), dimensions.floordiv(w, block)
    return (TensorType(x.dtype, (n, c * block * block, rows, columns)),)


def _space_to_depth(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    (x,), b = inputs, attributes["blocksize"]
    n, c, h, w = x.shape
    order = (0, 3, 5, 1, 2, 4) if attributes["mode"] == "DCR" else (0, 1, 3, 5, 2, 4)
    apart = x.reshape(n, c, h // b, b, w // b, b).transpose(order)
    return (apart.reshape(n, c * b * b, h // b, w // b),)


def _trilu_types(inference: Inference) -> tuple[TensorType, ...]:
    x = inference.input(0)
    if len(x.shape) < 2:
        raise InferenceError(f"input is {x}, needs matrices", remedy="reshape it to rank 2")
    return (x,)


def _trilu(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x = inputs[0]
    given = inputs[1] if len(inputs) > 1 else None
    k = 0 if given is None else int(np.asarray(given).reshape(()))
    if x.dtype == object and is_text(x):
        rows, columns = np.indices(x.shape[-2:])
        kept = columns - rows >= k if attributes["upper"] else columns - rows <= k
        return (np.where(kept, x, ""),)
    return ((np.triu if attributes["upper"] else np.tril)(x, k),)


_SECOND = frozenset({1})

SHUFFLES: tuple[Operator, ...] = (
    mover(
        "Reshape",
        _reshape_types,
        _reshape,
        structural=_SECOND,
        attributes={"allowzero": 0},
        symbolic=True,
        open=open_shapes.reshaped,
    ),
    mover("Flatten", _flatten_types, _flatten, attributes={"axis": 1}, symbolic=True),
    mover(
        "Squeeze",
        _squeeze_types,
        _squeeze,
        structural=_SECOND,
        symbolic=True,
        open=open_shapes.squeezed,
    ),
    mover(
        "Unsqueeze",
        _unsqueeze_types,
        _unsqueeze,
        structural=_SECOND,
        symbolic=True,
        open=open_shapes.unsqueezed,
    ),
    mover("Transpose", _transpose_types, _transpose, attributes={"perm": None}, symbolic=True),
    mover(
        "DepthToSpace",
        _depth_to_space_types,
        _depth_to_space,
        attributes={"blocksize": REQUIRED, "mode": "DCR"},
    ),
    mover(
        "SpaceToDepth",
        _space_to_depth_types,
        _space_to_depth,
        attributes={"blocksize": REQUIRED, "mode": "DCR"},
    ),
    mover(
        "Trilu",
        _trilu_types,
        _trilu,
        layer_type="SELECT",
        structural=_SECOND,
        attributes={"upper": 1},
    ),
)

MOVEMENT: tuple[Operator, ...] = (*SHUFFLES, *JOINS, *INDEXING)
