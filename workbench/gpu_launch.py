"""Launches of generated kernels, whose blocks are placed while the kernel before them ends.

Code for compute capability 9.0 and later begins with ``griddepcontrol.wait``, which ends when the
kernel before it has ended and its results are seen. So it may be launched as soon as the blocks of
that one have ended, which saves a microsecond or so a kernel. In a CUDA graph, such a launch is a
programmatic dependency.
Source: CUDA C++ Programming Guide, "Programmatic Dependent Launch and Synchronization".

A kernel of ours may also let the next one start before it ends (``launch_dependents``): the blocks
of that one are then placed beside its own, and wait. Its last argument says so, launch by launch.
That is only done where a kernel of ours follows. Where cuDNN's followed, ResNet-50 at batch 1 gave
wrong results on an H200, as if they wrote to memory that ours still read. And only where a plan was
measured to be faster so (``runtime.early_starts``): blocks that wait hold shared memory and
registers, and lie where there was room at that moment.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from workbench.errors import DeviceError

WAITS_SINCE = 90
"""Compute capability, times ten, from which on kernels wait for the one before them themselves."""
_START_EARLY = 6  # CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION


def waits(target: str) -> bool:
    """Whether code for a target (``sm_90``, ``compute_80``) waits for the kernel before it."""
    return int(target.partition("_")[2]) >= WAITS_SINCE


class _Attribute(ctypes.Structure):
    """CUlaunchAttribute: its number, padding, and a union of 64 bytes, of which this is an int."""

    _fields_ = (
        ("id", ctypes.c_int),
        ("padding", ctypes.c_int),
        ("value", ctypes.c_int),
        ("rest", ctypes.c_int * 15),
    )


class _Config(ctypes.Structure):
    """CUlaunchConfig."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(_Attribute)),
        ("attribute_count", ctypes.c_uint),
    )


@dataclass(frozen=True, eq=False)
class LoadedKernel:
    """A kernel on its device, and its block.

    device: a GpuDevice. function: as CuPy's module gives it; its last argument says whether it
    lets the next kernel start. shared: bytes of dynamic shared memory. waits: whether the code
    waits for the kernel before it.
    """

    device: Any
    function: Any
    block: tuple[int, int, int]
    shared: int
    waits: bool


class KernelLaunch:
    """One grid of a kernel on a stream. A Launch.

    arguments: addresses, and what is passed by value (a tensor map). lets_next_start: whether a
    kernel of ours that follows may start before this one has ended.
    """

    def __init__(
        self,
        kernel: LoadedKernel,
        grid: tuple[int, int, int],
        arguments: Sequence[int | ctypes.Array[Any]],
        stream: Any,
    ) -> None:
        self.kernel = kernel
        self.lets_next_start = False
        self._lets = ctypes.c_uint64(0)
        own = [ctypes.c_uint64(a) if isinstance(a, int) else a for a in arguments]
        self._kept = (*own, self._lets)
        places = [ctypes.addressof(a) for a in self._kept]
        self._arguments = (ctypes.c_void_p * len(places))(*places)
        early = ctypes.pointer(_Attribute(id=_START_EARLY, value=1))
        self._config = _Config(grid, kernel.block, kernel.shared, stream.ptr, early, 0)
        self._function = ctypes.c_void_p(kernel.function.ptr)
        self._launch = kernel.device.library.cuLaunchKernelEx

    def follow(self, earlier: KernelLaunch) -> None:
        """Start while ``earlier`` ends, or before, right after which this is always launched."""
        both = self.kernel.waits and earlier.kernel.waits
        self._config.attribute_count = int(both)
        earlier._lets.value = int(both and earlier.lets_next_start)

    def __call__(self) -> None:
        """Enqueue it. Raises DeviceError."""
        with self.kernel.device.current:
            config = ctypes.byref(self._config)
            error = self._launch(config, self._function, self._arguments, None)
        if error:
            grid, block = (tuple(v) for v in (self._config.grid, self._config.block))
            raise DeviceError(
                f"CUDA launches no grid of {grid} with blocks of {block} and "
                f"{self.kernel.shared} bytes of shared memory: error {error}",
                place="gpu",
                remedy="'workbench doctor' says whether CUDA works here",
            )


def overlapped(launches: Sequence[Any]) -> Sequence[Any]:
    """Launches of one stream, in the order in which they always run, each as early as it may."""
    for earlier, later in pairwise(launches):
        if isinstance(earlier, KernelLaunch) and isinstance(later, KernelLaunch):
            later.follow(earlier)
    return launches
