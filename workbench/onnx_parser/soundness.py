"""Warnings about a model that can be imported, and will hardly do what it was made for."""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np

from workbench.body import Array
from workbench.network import NetworkDefinition, Tensor
from workbench.onnx_parser.problems import ErrorCode, ParserErrorRecord, record

CHUNK = 1 << 20
"""Elements looked at together."""
MASKS = frozenset({"Add", "Where", "Max", "Min", "Expand", "Concat", "Slice", "Unsqueeze", "Cast"})
"""Readers of which a stored -infinity is expected: it is how attention masks are written."""


def warnings_of(network: NetworkDefinition) -> tuple[ParserErrorRecord, ...]:
    """A record for each weight that holds NaN, or infinities where none belong."""
    found: list[ParserErrorRecord] = []
    for tensor in network.tensors.values():
        if tensor.weight is None or not tensor.dtype.is_float:
            continue
        nans, above, below = not_finite(tensor.weight.array)
        if _masks(tensor):
            below = 0
        if not nans and not above + below:
            continue
        parts = [f"{nans} NaN"] * bool(nans) + [f"{above + below} infinities"] * bool(above + below)
        found.append(
            record(
                ErrorCode.INVALID_VALUE,
                f"weight '{tensor.name}' holds {' and '.join(parts)} "
                f"among its {tensor.weight.array.size} values",
                rule="not_finite",
                remedy="its outputs will hold them, too; train or export the model again",
            )
        )
    return tuple(found)


def _masks(tensor: Tensor) -> bool:
    return tensor.weight is not None and (
        tensor.weight.array.size == 1 or all(u.op in MASKS for u in tensor.users)
    )


def not_finite(array: Array) -> tuple[int, int, int]:
    """NaNs, infinities above and below zero, of floats."""
    nans = above = below = 0
    for part in in_chunks(array):
        if part.dtype.kind != "f":
            part = part.astype(np.float32)
        with np.errstate(all="ignore"):
            # Faster than looking at each: a sum is finite only where all are.
            if math.isfinite(part.sum()):
                continue
            nans += int(np.isnan(part).sum())
            above += int((part == np.inf).sum())
            below += int((part == -np.inf).sum())
    return nans, above, below


def in_chunks(array: Array) -> Iterator[Array]:
    """The elements in pieces; what was read of a mapped file is given back after each."""
    flat = array.reshape(-1)
    mapped = _mapping(flat)
    origin = 0 if mapped is None else np.frombuffer(mapped, np.uint8, 1).ctypes.data
    for start in range(0, flat.size, CHUNK):
        part = flat[start : start + CHUNK]
        yield part
        if mapped is not None:
            first = (part.ctypes.data - origin) // mmap.PAGESIZE * mmap.PAGESIZE
            last = part.ctypes.data - origin + part.nbytes
            mapped.madvise(mmap.MADV_DONTNEED, first, last - first)


def _mapping(array: Array) -> mmap.mmap | None:
    """The file that the array is a view of, where the system can be told to forget it."""
    view: Any = array
    while isinstance(view, np.ndarray):
        view = view.base
    known = isinstance(view, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED")
    return view if known else None
