"""Tensor maps: how the copy engine of compute capability 9.0 reads tiles of a matrix.

Source: CUDA driver API, cuTensorMapEncodeTiled; CUDA C++ Programming Guide, "Tensor Memory
Access".
"""

from __future__ import annotations

import ctypes
from typing import Any

from workbench.errors import DeviceError
from workbench.tactics.wgmma.matrices import Windows
from workbench.tactics.wgmma.tiles import LINE

_WORDS = 16
"""Words of 64 bits of a CUtensorMap."""
_BYTES, _NO_INTERLEAVE, _SWIZZLE_128, _PROMOTE_128, _ZEROS_OUTSIDE = 0, 0, 3, 2, 0
"""CU_TENSOR_MAP_DATA_TYPE_UINT8, and the other enumerations' values."""


def _room() -> Any:
    """Room for a map, aligned to 64 bytes."""
    room = (ctypes.c_uint64 * (2 * _WORDS))()
    return (ctypes.c_uint64 * _WORDS).from_buffer(room, -ctypes.addressof(room) % 64)


def window_map(driver: Any, address: int, windows: Windows, pixel_bytes: int, box_rows: int) -> Any:
    """The map of an image's windows, as a kernel's argument: 128 bytes of so many positions' tap.

    pixel_bytes: of all channels. Taps outside the image are read as zeros. Raises DeviceError.
    """
    found = _room()
    images, high, wide, _ = windows.image
    sizes = (ctypes.c_uint64 * 4)(pixel_bytes, wide, high, images)
    line = pixel_bytes * wide
    strides = (ctypes.c_uint64 * 3)(pixel_bytes, line, line * high)
    low, last = ((ctypes.c_int * 2)(*reversed(corner)) for corner in windows.corners)
    steps = (ctypes.c_uint32 * 4)(1, windows.strides[1], windows.strides[0], 1)
    error = driver.cuTensorMapEncodeIm2col(
        *(ctypes.byref(found), _BYTES, ctypes.c_uint32(4), ctypes.c_void_p(address)),
        *(sizes, strides, low, last, ctypes.c_uint32(LINE), ctypes.c_uint32(box_rows), steps),
        *(_NO_INTERLEAVE, _SWIZZLE_128, _PROMOTE_128, _ZEROS_OUTSIDE),
    )
    _check(error, f"windows of {windows.image}", address)
    return found


def _check(error: int, what: str, address: int) -> None:
    if error:
        raise DeviceError(
            f"CUDA maps no {what} at {address:#x}: error {error}",
            place="WGMMA",
            remedy="'workbench doctor' says whether CUDA works here",
        )


def tensor_map(driver: Any, address: int, rows: int, row_bytes: int, box_rows: int) -> Any:
    """The map of a matrix, as a kernel's argument: 128 bytes of ``box_rows`` rows at a time.

    driver: the driver's library. What lies outside the matrix is read as zeros. Raises DeviceError.
    """
    found = _room()
    sizes = (ctypes.c_uint64 * 2)(row_bytes, rows)
    strides = (ctypes.c_uint64 * 1)(row_bytes)
    box = (ctypes.c_uint32 * 2)(LINE, box_rows)
    steps = (ctypes.c_uint32 * 2)(1, 1)
    error = driver.cuTensorMapEncodeTiled(
        *(ctypes.byref(found), _BYTES, ctypes.c_uint32(2), ctypes.c_void_p(address)),
        *(sizes, strides, box, steps),
        *(_NO_INTERLEAVE, _SWIZZLE_128, _PROMOTE_128, _ZEROS_OUTSIDE),
    )
    _check(error, f"matrix of {rows} rows of {row_bytes} bytes", address)
    return found
