"""How many threads NumPy's BLAS uses while a kernel of ours runs.

NumPy's wheels bring OpenBLAS, whose threads spin for some 25 ms after a product: oneDNN's, which
share the processors, then wait for them. Measured on 2 cores: two BLAS products among MobileNetV2's
70 layers took a run from 11 ms to 40. So BLAS computes on the calling thread where oneDNN is used.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workbench.tactics.onednn.library import Library, load
from workbench.tactics.protocol import Launch


@dataclass(frozen=True)
class Control:
    """Reads and sets the number of threads of one BLAS."""

    get: Callable[[], int]
    set: Callable[[int], None]


def blas_threads(allowed: int) -> int:
    """Threads that BLAS may use in a kernel that may use ``allowed``."""
    return 1 if isinstance(load(), Library) else allowed


def on_threads(launch: Launch, count: int) -> Launch:
    """The launch with BLAS on ``count`` threads, and as it was after it.

    The launch itself where NumPy's BLAS cannot be told (MKL, Accelerate).
    """
    if _control() is None:
        return launch

    def limited() -> None:
        with limited_to(count):
            launch()

    return limited


@contextlib.contextmanager
def limited_to(count: int) -> Generator[None]:
    """BLAS on ``count`` threads inside, where it can be told."""
    control = _control()
    before = count if control is None else control.get()
    if control is None or before == count:
        yield
        return
    control.set(count)
    try:
        yield
    finally:
        control.set(before)


@functools.cache
def _control() -> Control | None:
    for path in _bundled():
        library: Any = None
        with contextlib.suppress(OSError):  # a library for something else beside it
            library = ctypes.CDLL(str(path))
        if hasattr(library, "scipy_openblas_set_num_threads64_"):
            get, put = (
                getattr(library, f"scipy_openblas_{v}_num_threads64_") for v in ("get", "set")
            )
            get.argtypes, put.argtypes, put.restype = (), (ctypes.c_int,), None
            return Control(get, put)
    return None


def _bundled() -> Iterator[Path]:
    """OpenBLAS as NumPy's wheels bring it: Linux and Windows, then macOS."""
    package = Path(np.__file__).parent
    for folder in (package.parent / "numpy.libs", package / ".dylibs"):
        yield from sorted(folder.glob("*openblas*"))
