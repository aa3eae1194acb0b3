"""Arrays of other libraries: by NumPy's interface, ``__cuda_array_interface__``, or DLPack."""

from __future__ import annotations

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


def on_host(place: Any) -> bool:
    """Whether an array that speaks DLPack lies in the host's memory."""
    return int(place.__dlpack_device__()[0]) in (CPU, CUDA_HOST)
