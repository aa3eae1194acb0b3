"""The cuBLASLt library by ctypes: loading, its handles, status checks, its numbers for types."""

from __future__ import annotations

import ctypes
import functools
import glob
import sys
from pathlib import Path
from typing import Any

from workbench.datatypes import DataType
from workbench.errors import DeviceError
from workbench.gpu_device import GpuDevice
from workbench.gpu_packages import EXTRA, cuda_version
from workbench.records import Refusal

INVALID_VALUE = 7
"""CUBLAS_STATUS_INVALID_VALUE."""
NOT_SUPPORTED = 15
"""CUBLAS_STATUS_NOT_SUPPORTED: no algorithm, or not this one."""

TYPES = {
    DataType.FLOAT: 0,
    DataType.HALF: 2,
    DataType.INT8: 3,
    DataType.INT32: 10,
    DataType.BF16: 14,
    DataType.FP8: 28,
}
"""cudaDataType_t of the element types of its matrices."""


def check(status: int, call: str) -> None:
    """Raises DeviceError unless the status is 0."""
    if status:
        raise DeviceError(f"cublasLt{call} answers status {status}", place="CUBLAS_LT")


NAME = "libcublasLt.so"
SYSTEM = ("/usr/local/cuda*/lib64", "/usr/local/cuda*/targets/*/lib")
"""Folders of CUDA's own installation."""


@functools.cache
def load() -> Any:
    """The library of the CUDA major version that CuPy uses, or why none is loaded.

    Prefers the wheels' (nvidia/cublas, nvidia/cu13) over the system's. One of another major version
    would have a run-time library of its own, which knows nothing of CuPy's streams and memory.
    """
    try:
        major, minor = cuda_version()
    except DeviceError as e:
        return Refusal(e.problem, remedy=e.remedy, code="library")
    wanted, found = f"{NAME}.{major}", files()
    said = ""
    for path in (*(p for p in found if Path(p).name == wanted), wanted):
        try:
            return ctypes.CDLL(path)
        except OSError as e:
            said = said or str(e)
    others = ", ".join(p for p in found if Path(p).name != wanted)
    return Refusal(
        f"{wanted} is needed beside CuPy's CUDA {major}.{minor}, and does not load: {said}"
        + (f" (found: {others})" if others else ""),
        remedy=EXTRA,
        code="library",
    )


def files() -> tuple[str, ...]:
    """Paths of every cuBLASLt of a major version in the known folders, the wheels' first."""
    places = (*(f"{folder}/nvidia/*/lib" for folder in sys.path if folder), *SYSTEM)
    found = (p for place in places for p in sorted(glob.glob(f"{place}/{NAME}.*")))
    # Those with a longer version are what these link to.
    return tuple(
        p for p in dict.fromkeys(found) if Path(p).name.removeprefix(f"{NAME}.").isdecimal()
    )


class _Place(ctypes.Structure):
    """Dl_info of dlfcn.h."""

    _fields_ = (
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("symbol", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


def file_of(library: Any) -> str:
    """The file that a loaded library came from."""
    place = _Place()
    address = ctypes.cast(library.cublasLtGetVersion, ctypes.c_void_p)
    if not ctypes.CDLL(None).dladdr(address, ctypes.byref(place)) or place.file is None:
        raise DeviceError("the loader does not know where it lies", place="CUBLAS_LT")
    return place.file.decode()


def library_version(library: Any) -> int:
    """The library's own version number."""
    library.cublasLtGetVersion.restype = ctypes.c_size_t
    return int(library.cublasLtGetVersion())


_HANDLES: dict[int, Any] = {}


def handle_of(device: GpuDevice) -> Any:
    """The process's library handle on this device; any thread may use it."""
    if device.index not in _HANDLES:
        made = ctypes.c_void_p()
        with device.current:
            check(load().cublasLtCreate(ctypes.byref(made)), "Create")
        _HANDLES[device.index] = made
    return _HANDLES[device.index]
