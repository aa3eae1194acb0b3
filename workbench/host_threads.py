"""Work on large arrays that the host's processors share: bringing into order, digests.

NumPy and hashlib work without Python's lock, so threads are enough.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from workbench.host import usable_cpus

PIECE = 1 << 20
"""Bytes that a thread copies at once: within its cache, and long beside handing it over."""
LEAF = 1 << 20
"""Bytes of one digest; part of what a plan file's digest means."""
MOST_THREADS = 16


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(MOST_THREADS, usable_cpus()), thread_name_prefix="host")


def contiguous(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The array in C order: itself if it is, else a copy."""
    if array.flags.c_contiguous:
        return array
    target = np.empty(array.shape, array.dtype)
    copy_to(target, array)
    return target


def copy_to(target: np.ndarray[Any, Any], source: np.ndarray[Any, Any]) -> None:
    """``target[...] = source`` of the same shape, in pieces of the target's largest axis."""
    if not target.ndim or target.nbytes <= PIECE:
        target[...] = source
        return
    axis = max(range(target.ndim), key=lambda k: target.shape[k])
    size = target.shape[axis]
    step = max(1, -(-size * PIECE // target.nbytes))

    def piece(start: int) -> None:
        place = (*[slice(None)] * axis, slice(start, start + step))
        target[place] = source[place]

    for _ in _pool().map(piece, range(0, size, step)):
        pass


def digest(parts: Iterable[bytes | memoryview]) -> str:
    """SHA-256 over the SHA-256 of each piece of LEAF bytes of each part, in hexadecimal.

    A tree of one level: pieces are digested side by side.
    """
    pieces = [
        view[start : start + LEAF]
        for view in map(memoryview, parts)
        for start in range(0, max(1, view.nbytes), LEAF)
    ]
    import hashlib  # it loads OpenSSL, which a plan that is verified later does without

    whole = hashlib.sha256()
    for found in _digests(pieces):
        whole.update(found)
    return whole.hexdigest()


def _digests(pieces: Sequence[memoryview]) -> Iterable[bytes]:
    import hashlib

    def one(piece: memoryview) -> bytes:
        return hashlib.sha256(piece).digest()

    if sum(p.nbytes for p in pieces) <= LEAF:
        return map(one, pieces)
    return _pool().map(one, pieces)
