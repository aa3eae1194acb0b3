"""Arrays of other libraries: by NumPy's interface, ``__cuda_array_interface__``, or DLPack."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from workbench.errors import DeviceError

CPU, CUDA_HOST = 1, 3
"""kDLCPU and kDLCUDAHost: DLPack's numbers of the host's memory. Source: dlpack.h."""


def host_array(place: Any) -> np.ndarray[Any, Any]:
    """An array in the host's memory as NumPy's, without a copy. Raises DeviceError."""
    if isinstance(place, np.ndarray):
        return place
    if hasattr(place, "__dlpack__") and on_host(place):
        try:
            return np.from_dlpack(place)
        except (BufferError, RuntimeError, TypeError, ValueError) as e:
            raise DeviceError(
                f"its DLPack is not NumPy's: {e}",
                place=type(place).__name__,
                remedy="give a NumPy array",
            ) from None
    raise DeviceError(
        "it is no array in the host's memory",
        place=type(place).__name__,
        remedy="give a NumPy array, or one that speaks DLPack",
    )


def address_in(interface: Mapping[str, Any], nbytes: int) -> int:
    """Where an array begins, by its ``__cuda_array_interface__``.

    Raises DeviceError for one in pieces or with less than so many bytes.
    """
    shape, itemsize = interface["shape"], int(interface["typestr"][2:])
    step, whole = itemsize, True
    strides = interface.get("strides")
    for size, stride in zip(reversed(shape), reversed(strides or ()), strict=False):
        whole = whole and (size == 1 or stride == step)
        step *= size
    require_whole(whole or 0 in shape, prod(shape) * itemsize, nbytes)
    return int(interface["data"][0])


def require_whole(whole: bool, nbytes: int, needed: int) -> None:
    """Raises DeviceError for an array in pieces, or of fewer bytes than are needed."""
    if not whole or nbytes < needed:
        raise DeviceError(
            f"the array has {nbytes} bytes{'' if whole else ' in pieces'}, {needed} are needed",
            remedy="give a C-contiguous array of the tensor's type and shape",
        )


def on_host(place: Any) -> bool:
    """Whether an array that speaks DLPack lies in the host's memory."""
    return int(place.__dlpack_device__()[0]) in (CPU, CUDA_HOST)
