"""The cuBLASLt library by ctypes: loading, its handles, status checks, its numbers for types."""

from __future__ import annotations

import ctypes
import functools
import glob
import sysconfig
from pathlib import Path
from typing import Any

from workbench.datatypes import DataType
from workbench.errors import DeviceError
from workbench.gpu_device import EXTRA, GpuDevice
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


_PLACES = (
    f"{sysconfig.get_path('purelib')}/nvidia/*/lib",
    "/usr/local/cuda*/lib64",
    "/usr/local/cuda*/targets/*/lib",
)
"""Folders of the wheels (nvidia/cublas, nvidia/cu13) and of CUDA's own installation."""


@functools.cache
def load() -> Any:
    """The library, or why it cannot be loaded. Prefers the wheels' over the system's."""
    found = [p for place in _PLACES for p in glob.glob(f"{place}/libcublasLt.so.1[23]")]
    tried: list[str] = []
    for name in (*sorted(found), "libcublasLt.so.13", "libcublasLt.so.12"):
        try:
            return ctypes.CDLL(name)
        except OSError as e:
            tried.append(f"{Path(name).name}: {e}")
    return Refusal(f"libcublasLt is not found ({tried[-1]})", remedy=EXTRA, code="library")


def library_version(library: Any) -> int:
    """The library's own version number."""
    library.cublasLtGetVersion.restype = ctypes.c_size_t
    return int(library.cublasLtGetVersion())


_HANDLES: dict[int, Any] = {}


def handle_of(device: GpuDevice) -> Any:
    """The process's library handle on this device; any thread may use it."""
    if device.index not in _HANDLES:
        made = ctypes.c_void_p()
        with device.cupy.cuda.Device(device.index):
            check(load().cublasLtCreate(ctypes.byref(made)), "Create")
        _HANDLES[device.index] = made
    return _HANDLES[device.index]
