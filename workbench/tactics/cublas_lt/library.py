"""The cuBLASLt library by ctypes: loading, its handle, status checks."""

from __future__ import annotations

import ctypes
import functools
import glob
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np

from workbench.errors import DeviceError
from workbench.records import Refusal


def stored_bits(array: Any) -> Any:
    """A contiguous array in a type that CuPy stores: bfloat16 travels as its bits."""
    own = np.ascontiguousarray(array)
    return own.view(np.uint16) if own.dtype.name == "bfloat16" else own


def check(status: int, call: str) -> None:
    """Raises DeviceError unless the status is 0."""
    if status:
        raise DeviceError(f"cublasLt{call} answers status {status}", place="CUBLAS_LT")


@functools.cache
def load() -> Any:
    """The library, or why it cannot be loaded. Prefers the wheels' over the system's."""
    roots = [sysconfig.get_path("purelib"), "/usr/local/cuda"]
    found = [p for r in roots for p in glob.glob(f"{r}/nvidia/**/libcublasLt.so.*", recursive=True)]
    found += glob.glob("/usr/local/cuda*/**/libcublasLt.so.1[23]", recursive=True)
    tried: list[str] = []
    for name in (*sorted(found), "libcublasLt.so.13", "libcublasLt.so.12"):
        try:
            return ctypes.CDLL(name)
        except OSError as e:
            tried.append(f"{Path(name).name}: {e}")
    return Refusal(f"libcublasLt is not found ({tried[-1]})", remedy="install the extra gpu")


def library_version(library: Any) -> int:
    """The library's own version number."""
    library.cublasLtGetVersion.restype = ctypes.c_size_t
    return int(library.cublasLtGetVersion())


@functools.cache
def handle() -> Any:
    """The process's one library handle."""
    library = load()
    made = ctypes.c_void_p()
    check(library.cublasLtCreate(ctypes.byref(made)), "Create")
    return made
