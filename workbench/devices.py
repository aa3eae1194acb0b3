"""The only door to arrays and devices: Buffer, Device, fingerprints.

GPU libraries are imported when a GPU is asked for, never before.
"""

from __future__ import annotations

import ctypes
import functools
import math
import platform
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from workbench.cpu_clock import samples_us, timer
from workbench.datatypes import DataType
from workbench.errors import DeviceError
from workbench.foreign_arrays import host_array, require_whole
from workbench.host import free_bytes, usable_cpus

LARGE = 1 << 26
"""Bytes from which on an allocation asks how much memory is free."""
ALIGNMENT = 64
"""Bytes: a cache line, and what vector loads and oneDNN like."""


@dataclass(frozen=True, eq=False)
class Buffer:
    """A stretch of device memory. ``memory`` is a one-dimensional uint8 array that owns it."""

    memory: Any
    address: int
    nbytes: int

    def view(self, dtype: DataType, shape: Sequence[int]) -> Any:
        """The start of the buffer as an array of the device's library (no copy)."""
        count = math.prod(shape) * dtype.itemsize
        return self.memory[:count].view(dtype.numpy).reshape(tuple(shape))

    def slice(self, offset: int, nbytes: int) -> Buffer:
        """A part of this buffer."""
        if offset + nbytes > self.nbytes:
            raise DeviceError(f"slice {offset}+{nbytes} ends outside {self.nbytes} bytes")
        return Buffer(self.memory[offset : offset + nbytes], self.address + offset, nbytes)


@dataclass(frozen=True)
class Fingerprint:
    """What a plan or a timing depends on: the processor and its instruction sets.

    features: sorted instruction sets (CPU) or compute capability (GPU).
    """

    kind: str
    name: str
    features: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "name": self.name, "features": list(self.features)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Fingerprint:
        return cls(data["kind"], data["name"], tuple(data["features"]))

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(self.features)})"


class Device(Protocol):
    """A place to run: allocation, copies, streams, timing."""

    kind: str

    @property
    def fingerprint(self) -> Fingerprint: ...

    def native(self, dtype: DataType) -> bool:
        """Whether the processor multiplies this type in hardware."""
        ...

    def allocate(self, nbytes: int) -> Buffer:
        """Zeroed memory, aligned to ALIGNMENT."""
        ...

    def upload(self, array: np.ndarray[Any, Any], buffer: Buffer, stream: Any = None) -> None:
        """Copy a host array to the start of a buffer."""
        ...

    def download(
        self, buffer: Buffer, dtype: DataType, shape: Sequence[int], stream: Any = None
    ) -> np.ndarray[Any, Any]:
        """A host copy of the start of a buffer."""
        ...

    def copy_in(self, slot: Buffer, source: Any, stream: Any = None) -> None:
        """Fill a buffer from an address or array of the caller's."""
        ...

    def copy_out(self, target: Any, slot: Buffer, stream: Any = None) -> None:
        """Write a buffer to an address or array of the caller's."""
        ...

    def address_of(self, place: Any, nbytes: int) -> int:
        """The address of an array of the caller's, or what already is one.

        Raises DeviceError for an array in pieces or of fewer bytes, and for what is none.
        """
        ...

    def array(self, place: Any, stream: Any = None) -> Any:
        """An array of the device's library over the caller's, copied only from the host's memory.

        Raises DeviceError for what is no array.
        """
        ...

    def pinned(self, nbytes: int) -> Buffer:
        """Memory of the host that the device copies from and to while others compute."""
        ...

    def foreign(self, place: Any, nbytes: int) -> Buffer | None:
        """The caller's memory as kernels may use it, without a copy; None where they cannot."""
        ...

    def capture(self, launches: Sequence[Callable[[], None]], stream: Any) -> Any:
        """Record launches as a graph with a method ``launch(stream)``. Raises DeviceError."""
        ...

    def annotated(self, launch: Callable[[], None], name: str) -> Callable[[], None]:
        """The launch within an NVTX range of this name. Raises DeviceError where there is none."""
        ...

    def stream(self) -> Any:
        """A new stream for ``execute_async_v3``."""
        ...

    def as_stream(self, handle: Any) -> Any:
        """A stream from what the caller has: one of ours, or a raw handle."""
        ...

    def wait(self, later: Any, earlier: Any) -> None:
        """Work enqueued on ``later`` from now on starts after what is on ``earlier``."""
        ...

    def mark(self, stream: Any) -> Any:
        """The end of what is on a stream now, for others to wait for."""
        ...

    def reach(self, mark: Any) -> None:
        """The caller waits for a mark."""
        ...

    def wait_for(self, stream: Any, mark: Any) -> None:
        """Work enqueued on ``stream`` from now on starts after a mark."""
        ...

    def timer(
        self, launch: Callable[[], None], stream: Any, threads: int = 1
    ) -> Callable[[int], list[float]]:
        """Times a bound launch by itself: given a number of samples, microseconds of a run each.

        On the CPU a long launch finds its data in the last-level cache, as it does among the other
        layers of a run, and a short one is repeated until its clock can tell; the ``threads`` that
        it may use are awake. The GPU's L2 cache is emptied before each run.
        """
        ...

    def fixed_work(self) -> Callable[[], None]:
        """A launch that always does the same, some tens of microseconds long."""
        ...

    def synchronize(self, stream: Any = None) -> None: ...

    def time_us(self, launch: Callable[[], None], repeats: int, stream: Any = None) -> list[float]:
        """Microseconds of each of ``repeats`` runs, by the device's own clock."""
        ...

    def steps_us(self, launches: Sequence[Callable[[], None]], stream: Any = None) -> list[float]:
        """Microseconds of each of several launches in a row, without the gaps of launching."""
        ...


class CpuStream:
    """A queue of work on one thread of its own, started on first use."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._pending: list[Future[None]] = []

    def submit(self, work: Callable[[], None]) -> None:
        """Run ``work`` after everything submitted before it."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="workbench-stream")
        self._pending.append(self._pool.submit(work))

    def synchronize(self) -> None:
        """Wait for all work; raises the first error that occurred in it."""
        pending, self._pending = self._pending, []
        for future in pending:
            future.result()


def host_address(given: Any, nbytes: int) -> int:
    """Where the caller's array begins. Raises DeviceError for one in pieces or too small."""
    if isinstance(given, int):
        return given
    place = host_array(given)
    require_whole(place.flags.c_contiguous, place.nbytes, nbytes)
    return int(place.ctypes.data)


class CpuDevice:
    """The host processor, through NumPy. ``threads`` is what kernels may use."""

    kind = "cpu"

    def __init__(self, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise DeviceError(f"{threads} threads", place="cpu", remedy="use 1 or more")
        self.threads = threads or usable_cpus()

    @property
    def fingerprint(self) -> Fingerprint:
        return _cpu_fingerprint()

    def native(self, dtype: DataType) -> bool:
        features = set(self.fingerprint.features)
        match dtype:
            case DataType.BF16:
                return bool(features & {"avx512_bf16", "amx_bf16", "bf16"})
            case DataType.HALF:
                return bool(features & {"avx512_fp16", "amx_fp16", "asimdhp"})
            case DataType.INT8:
                return bool(features & {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "avx2"})
            case _:
                return dtype in (DataType.FLOAT, DataType.DOUBLE, DataType.INT32, DataType.INT64)

    def allocate(self, nbytes: int) -> Buffer:
        # Linux promises more than there is, and kills who takes it at its word.
        if nbytes > LARGE and nbytes > (free := free_bytes()):
            raise DeviceError(
                f"{nbytes:,} bytes are asked for, {free:,} are free",
                place="cpu",
                remedy="use smaller sizes, or run where more memory is free",
            )
        raw = np.zeros(nbytes + ALIGNMENT, np.uint8)
        start = -raw.ctypes.data % ALIGNMENT
        memory = raw[start : start + nbytes]
        return Buffer(memory, memory.ctypes.data, nbytes)

    def upload(self, array: np.ndarray[Any, Any], buffer: Buffer, stream: Any = None) -> None:
        buffer.view(DataType.of(array), array.shape)[...] = array

    def download(
        self, buffer: Buffer, dtype: DataType, shape: Sequence[int], stream: Any = None
    ) -> np.ndarray[Any, Any]:
        return buffer.view(dtype, shape).copy()

    def copy_in(self, slot: Buffer, source: Any, stream: Any = None) -> None:
        ctypes.memmove(slot.address, host_address(source, slot.nbytes), slot.nbytes)

    def copy_out(self, target: Any, slot: Buffer, stream: Any = None) -> None:
        ctypes.memmove(host_address(target, slot.nbytes), slot.address, slot.nbytes)

    def address_of(self, place: Any, nbytes: int) -> int:
        return host_address(place, nbytes)

    def array(self, place: Any, stream: Any = None) -> Any:
        return np.ascontiguousarray(host_array(place))

    def pinned(self, nbytes: int) -> Buffer:
        return self.allocate(nbytes)

    def foreign(self, place: Any, nbytes: int) -> Buffer | None:
        return None  # copies within the host's caches are cheap, binding anew is not

    def capture(self, launches: Sequence[Callable[[], None]], stream: Any) -> Any:
        raise DeviceError("a CPU records no graphs", place=self.fingerprint.name)

    def annotated(self, launch: Callable[[], None], name: str) -> Callable[[], None]:
        raise DeviceError(
            "NVTX ranges are NVIDIA's: a CPU has none", remedy="set context.profiler instead"
        )

    def stream(self) -> CpuStream:
        return CpuStream()

    def as_stream(self, handle: Any) -> Any:
        return handle

    def wait(self, later: Any, earlier: Any) -> None:
        """A CPU runs its launches in the order in which they are made."""

    def mark(self, stream: Any) -> Any:
        """Nothing: what was launched has ended."""

    def reach(self, mark: Any) -> None:
        """Nothing: what was launched has ended."""

    def wait_for(self, stream: Any, mark: Any) -> None:
        """Nothing: what was launched has ended."""

    def timer(
        self, launch: Callable[[], None], stream: Any, threads: int = 1
    ) -> Callable[[int], list[float]]:
        return timer(launch, threads)

    def fixed_work(self) -> Callable[[], None]:
        values = np.linspace(0.0, 1.0, 1 << 14)

        def work() -> None:
            np.sort(np.sin(values))

        return work

    def synchronize(self, stream: Any = None) -> None:
        if stream is not None:
            stream.synchronize()

    def time_us(self, launch: Callable[[], None], repeats: int, stream: Any = None) -> list[float]:
        return samples_us(launch, repeats)

    def steps_us(self, launches: Sequence[Callable[[], None]], stream: Any = None) -> list[float]:
        return [self.time_us(launch, 1, stream)[0] for launch in launches]

    def __str__(self) -> str:
        return f"CPU: {self.fingerprint.name}, {self.threads} threads"


_ISA = (
    "avx2 fma avx512f avx512_vnni avx512_bf16 avx512_fp16 avx_vnni amx_tile amx_int8 amx_bf16 "
    "amx_fp16 asimdhp asimddp bf16 sve"
).split()


@functools.cache
def _cpu_fingerprint() -> Fingerprint:
    name, flags = platform.processor() or platform.machine(), set[str]()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip().lower() in ("flags", "features"):
                flags = set(value.split())
                break
    return Fingerprint("cpu", name, tuple(x for x in _ISA if x in flags))


def open_device(name: str = "cpu", *, threads: int | None = None) -> Device:
    """The device called ``cpu``, ``gpu`` or ``gpu:1``. Raises DeviceError; never falls back."""
    if name == "cpu":
        return CpuDevice(threads)
    if name == "gpu" or name.startswith("gpu:"):
        from workbench.gpu_device import GpuDevice

        index = name.partition(":")[2] or "0"
        if index.isdecimal():
            return GpuDevice(int(index))
    raise DeviceError(f"no device is called '{name}'", remedy="use 'cpu', 'gpu' or 'gpu:<index>'")
