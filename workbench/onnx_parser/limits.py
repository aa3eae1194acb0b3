"""Limits: how large a model may make things before it counts as hostile, or as a mistake."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.body import HostType, TensorType
from workbench.dimensions import is_static
from workbench.network import Tensor

MOST_BYTES = 1 << 31
"""Of a tensor that a model computes at sizes that it fixes; stored weights may be larger."""
MOST_AXES = 64
"""Of a tensor: NumPy's NPY_MAXDIMS."""
MOST_INLINED = 200_000
"""Nodes that calls of model-local functions may become."""
MOST_FILE_BYTES = (1 << 31) - 1
"""Of a serialized model: protobuf's own limit; larger weights lie in files beside it."""


@dataclass(frozen=True)
class Limits:
    """What a caller of the parser may set. max_loop_steps: None: as the operator has it."""

    max_loop_steps: int | None = None
    max_tensor_bytes: int = MOST_BYTES


_LARGEST_SIZE = (1 << 63) - 1


def wrong_shape(shape: Sequence[Any]) -> str:
    """Why no array can have this shape, symbolic sizes aside; empty where one can."""
    sizes = [d for d in shape if isinstance(d, int)]
    if sizes and min(sizes) < 0:
        return f"has the negative size {min(sizes)} in its shape {_listed(shape)}"
    if len(shape) > MOST_AXES:
        return f"has {len(shape)} axes, the most are {MOST_AXES}"
    # Zeros do not help: NumPy wants the product of the others to be a count, too.
    if math.prod(d for d in sizes if d) * 16 > _LARGEST_SIZE:
        return f"has the shape {_listed(shape)}, more elements than memory can have"
    return ""


def too_large(type_: TensorType, most_bytes: int = MOST_BYTES) -> str:
    """Why a value of this type is not computed; empty where it may be."""
    if isinstance(type_, HostType):
        return ""
    if wrong := wrong_shape(type_.shape):
        return wrong
    if not is_static(type_.shape) or int(type_.nbytes()) <= most_bytes:
        return ""
    return f"is {type_}: {size_text(int(type_.nbytes()))}, the most are {size_text(most_bytes)}"


def wrong_scale(operator: str, inputs: Sequence[Tensor | None]) -> str:
    """Why a quantization cannot have its stored scale; empty where it can."""
    if operator not in ("QuantizeLinear", "DequantizeLinear") or len(inputs) < 2:
        return ""
    scale = inputs[1]
    if scale is None or scale.weight is None or not scale.dtype.is_float:
        return ""
    values = scale.weight.array.astype(np.float32).reshape(-1)
    bad = np.flatnonzero(~(np.isfinite(values) & (values != 0)))
    if not bad.size:
        return ""
    where = f" at {bad[0]}" if values.size > 1 else ""
    return f"its scale '{scale.name}' is {values[bad[0]]:g}{where}"


def size_text(nbytes: int) -> str:
    """Bytes for people."""
    value, unit = float(nbytes), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{nbytes} bytes" if unit == "bytes" else f"{value:.4g} {unit}"


def _listed(shape: Sequence[Any]) -> str:
    return f"({', '.join(map(str, shape))})"
