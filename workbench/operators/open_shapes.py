"""Output types while the value that decides a shape is not known: the rank, and sizes for later.

The ``open`` rule of a row (see ``Operator.open``): such a layer runs on the host, and a run binds
the sizes.
"""

from __future__ import annotations

from collections.abc import Callable

from workbench.body import Inference, InferRule, TensorType
from workbench.datatypes import DataType
from workbench.dimensions import Shape
from workbench.errors import ValueNeeded
from workbench.operators.rules import absent, axes_of, axis_of, sizes_of

Rank = Callable[[Inference], int]


def length(inference: Inference, index: int) -> int:
    """How many entries a shape tensor has. Raises ValueNeeded where not even that is known."""
    shape = inference.input(index).shape
    count = shape[0] if shape else 1
    if not isinstance(count, int):
        raise ValueNeeded(
            f"input {index} has {count} entries, as many as the output has axes",
            index=index,
            remedy="give it a fixed length",
        )
    return count


def later_shape(inference: Inference, rank: int, output: int = 0) -> Shape:
    """A size for later on each axis."""
    return tuple(inference.later(k, output) for k in range(rank))


def of_rank(rank: Rank) -> InferRule:
    """The first input's type at this rank, every size for later."""

    def rule(inference: Inference) -> tuple[TensorType, ...]:
        return (TensorType(inference.input(0).dtype, later_shape(inference, rank(inference))),)

    return rule


def same_rank(inference: Inference) -> tuple[TensorType, ...]:
    """Each output of the first input's rank, every size for later."""
    x = inference.input(0)
    rank = len(x.shape)
    return tuple(
        TensorType(x.dtype, later_shape(inference, rank, o)) for o in range(inference.outputs)
    )


reshaped = of_rank(lambda i: length(i, 1))
expanded = of_rank(lambda i: max(len(i.input(0).shape), length(i, 1)))
unsqueezed = of_rank(lambda i: len(i.input(0).shape) + length(i, 1))
counted = of_rank(lambda i: 1)


def squeezed(inference: Inference) -> tuple[TensorType, ...]:
    """Squeeze; without axes not even the rank is known. Raises ValueNeeded then."""
    if absent(inference, 1):
        raise ValueNeeded("sizes decide the rank", index=0, remedy="give axes")
    x = inference.input(0)
    return (TensorType(x.dtype, later_shape(inference, len(x.shape) - length(inference, 1))),)


def reduced(inference: Inference) -> tuple[TensorType, ...]:
    """Of a reduction over axes that are computed."""
    x = inference.input(0)
    if inference.attributes["keepdims"]:
        return (TensorType(x.dtype, later_shape(inference, len(x.shape))),)
    return (TensorType(x.dtype, later_shape(inference, len(x.shape) - length(inference, 1))),)


def filled(inference: Inference) -> tuple[TensorType, ...]:
    """ConstantOfShape: its value's type, an axis an entry."""
    shape = later_shape(inference, length(inference, 0))
    return (TensorType(inference.attributes["value"].dtype, shape),)


def sliced(inference: Inference) -> tuple[TensorType, ...]:
    """Slice: axes that are known not to be cut keep their sizes."""
    x = inference.input(0)
    rank = len(x.shape)
    cut = range(rank) if absent(inference, 3) else None
    if cut is None and (axes := inference.value(3)) is not None:
        cut = axes_of(sizes_of(axes), rank)
    chosen = range(rank) if cut is None else cut
    shape = tuple(inference.later(k) if k in chosen else d for k, d in enumerate(x.shape))
    return (TensorType(x.dtype, shape),)


def top(inference: Inference) -> tuple[TensorType, ...]:
    """TopK with a K that is computed: values and indices of one shape."""
    x = inference.input(0)
    axis = axis_of(inference.attributes["axis"], len(x.shape))
    shape = (*x.shape[:axis], inference.later(axis), *x.shape[axis + 1 :])
    return TensorType(x.dtype, shape), TensorType(DataType.INT64, shape)


def one_hot(inference: Inference) -> tuple[TensorType, ...]:
    """OneHot with a depth that is computed."""
    indices, values = inference.input(0), inference.input(2)
    axis = axis_of(inference.attributes["axis"], len(indices.shape) + 1)
    shape = (*indices.shape[:axis], inference.later(axis), *indices.shape[axis:])
    return (TensorType(values.dtype, shape),)


def image(inference: Inference) -> tuple[TensorType, ...]:
    """Col2Im of an image whose size is computed."""
    x, rank = inference.input(0), 2 + length(inference, 1)
    return (TensorType(x.dtype, (x.shape[0], *later_shape(inference, rank)[1:])),)


def frames(inference: Inference) -> tuple[TensorType, ...]:
    """STFT whose frames are computed: batch, frames, frequencies, real and imaginary part."""
    x = inference.input(0)
    return (TensorType(x.dtype, (x.shape[0], inference.later(1), inference.later(2), 2)),)


def bands(inference: Inference) -> tuple[TensorType, ...]:
    """MelWeightMatrix whose sizes are computed."""
    return (TensorType(inference.attributes["output_datatype"], later_shape(inference, 2)),)


def grid(inference: Inference) -> tuple[TensorType, ...]:
    """AffineGrid of sizes that are computed."""
    theta, spatial = inference.input(0), length(inference, 1) - 2
    shape = (theta.shape[0], *(inference.later(1 + k) for k in range(spatial)), spatial)
    return (TensorType(theta.dtype, shape),)
