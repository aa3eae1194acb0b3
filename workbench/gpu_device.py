"""An NVIDIA GPU through CuPy. Imported only when a GPU is asked for."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from workbench.datatypes import DataType
from workbench.devices import ALIGNMENT, Buffer, Device, Fingerprint, host_address
from workbench.errors import DeviceError
from workbench.foreign_arrays import address_in, host_array, on_host
from workbench.gpu_constants import STAGING_BYTES, DeviceConstant, Staging
from workbench.gpu_current import DeviceGraph, on_own_device
from workbench.gpu_packages import import_cupy
from workbench.host_threads import contiguous

_NATIVE_SINCE = {
    DataType.FLOAT: 50,
    DataType.DOUBLE: 60,
    DataType.HALF: 60,
    DataType.INT8: 75,
    DataType.BF16: 80,
    DataType.FP8: 89,
}
"""Compute capability (times ten) that first multiplies the type in hardware."""
_DEVICE_MEMORY = (2, 3)
"""cudaMemoryTypeDevice and cudaMemoryTypeManaged."""
ANY_DEVICE = -1
"""CuPy's ``device_id`` of a stream that every device has, such as the null stream."""


@dataclass(frozen=True)
class _RawStream:
    """A cudaStream_t as the CUDA stream protocol has it. The caller keeps the stream alive."""

    handle: int

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.handle


def _identity(array: np.ndarray[Any, Any]) -> tuple[Any, ...]:
    """What tells an array's buffer from every other one that is alive."""
    return (array.ctypes.data, array.shape, array.strides, array.dtype.str, array.dtype.name)


def _version(number: int) -> str:
    """CUDA's 12040 as 12.4."""
    return f"{number // 1000}.{number % 1000 // 10}"


def gpu_of(device: Device) -> GpuDevice:
    """The device as the GPU that it is. Raises DeviceError for another kind of device."""
    if not isinstance(device, GpuDevice):
        raise DeviceError(f"a GPU is needed, this is '{device.kind}'", place="gpu")
    return device


def require_aligned(addresses: Mapping[str, int], alignment: int, place: str) -> None:
    """Raises DeviceError naming the first operand whose address is no multiple of ``alignment``."""
    for name, address in addresses.items():
        if address % alignment:
            raise DeviceError(
                f"operand '{name}' lies at {address:#x}, which is {address % alignment} bytes past "
                f"a multiple of {alignment}; the kernel reads {alignment}-byte aligned operands",
                place=place,
                remedy=f"give it memory at a multiple of {alignment}, as GpuDevice.allocate does",
            )


class GpuDevice:
    """One GPU: memory, one default stream, events, graphs. Raises DeviceError if there is none.

    current: ``with device.current:`` makes it CUDA's current device for what the block allocates,
    loads and launches, and then the caller's again, in this thread. Every method does so itself.
    """

    kind = "gpu"
    threads = 1

    def __init__(self, index: int = 0) -> None:
        self.cupy = import_cupy()
        runtime = self.cupy.cuda.runtime
        try:
            count = runtime.getDeviceCount()
        except runtime.CUDARuntimeError as e:
            raise DeviceError(
                f"CUDA does not start: {e}",
                place="gpu",
                remedy=f"'workbench doctor' explains error {e.status}",
            ) from None
        if index >= count:
            raise DeviceError(f"there is no GPU {index}, {count} found", place="gpu")
        self.index = index
        self.current = self.cupy.cuda.Device(index)
        self._properties = runtime.getDeviceProperties(index)
        self.main_stream = self.stream()
        # Weak: a constant is freed with the last Call that keeps it.
        self._constants: WeakValueDictionary[Any, DeviceConstant] = WeakValueDictionary()

    @property
    def compute_capability(self) -> int:
        """Times ten: 90 for Hopper."""
        return 10 * self._properties["major"] + self._properties["minor"]

    @property
    def processors(self) -> int:
        """Streaming multiprocessors."""
        return int(self._properties["multiProcessorCount"])

    @property
    def fingerprint(self) -> Fingerprint:
        name = self._properties["name"].decode()
        return Fingerprint("gpu", name, (f"sm_{self.compute_capability}",))

    @cached_property
    def library(self) -> Any:
        """The driver's library, for what CuPy has no function for."""
        return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")

    @property
    def driver(self) -> str:
        """The newest CUDA version that the driver supports, and the run-time library's."""
        runtime = self.cupy.cuda.runtime
        driver, own = runtime.driverGetVersion(), runtime.runtimeGetVersion()
        return f"driver CUDA {_version(driver)}, runtime {_version(own)}"

    @on_own_device
    def memory_info(self) -> tuple[int, int]:
        """Bytes of its memory that are free now, and of all."""
        free, total = self.cupy.cuda.runtime.memGetInfo()
        return int(free), int(total)

    def native(self, dtype: DataType) -> bool:
        return self.compute_capability >= _NATIVE_SINCE.get(dtype, 0)

    @on_own_device
    def allocate(self, nbytes: int) -> Buffer:
        memory = self.cupy.zeros(max(nbytes, 1), dtype=self.cupy.uint8)
        if memory.data.ptr % ALIGNMENT:
            raise DeviceError(f"the allocator gave an address that is not {ALIGNMENT}-aligned")
        # The fill runs on the null stream; kernels run on non-blocking ones.
        self.cupy.cuda.Stream.null.synchronize()
        return Buffer(memory, memory.data.ptr, max(nbytes, 1))

    @on_own_device
    def constant(
        self,
        sources: Sequence[np.ndarray[Any, Any]],
        packing: str = "",
        make: Callable[[], np.ndarray[Any, Any]] | None = None,
    ) -> DeviceConstant:
        """What ``make`` gives (by default the one source) on the device, in C order.

        Made and uploaded once for the same host buffers and packing, and shared as long as
        somebody keeps it. packing: with the sources, decides the bytes. Sources must not change.
        """
        kept = tuple(np.asarray(s) for s in sources)
        key = (packing, *map(_identity, kept))
        found = self._constants.get(key)
        if found is None:
            own = kept[0] if make is None else make()
            memory = self.cupy.empty(max(1, own.nbytes), dtype=self.cupy.uint8)
            self._staging.upload(own, memory.data.ptr)
            found = DeviceConstant(memory, memory.data.ptr, own.nbytes, kept)
            self._constants[key] = found
        return found

    @cached_property
    def _staging(self) -> Staging:
        def copy(target: int, source: int, nbytes: int) -> None:
            self._copy(target, source, nbytes, None)
            self.synchronize()

        return Staging(self.pinned(STAGING_BYTES), copy)

    def upload(self, array: np.ndarray[Any, Any], buffer: Buffer, stream: Any = None) -> None:
        own = contiguous(array)
        self._copy(buffer.address, own.ctypes.data, own.nbytes, stream)
        self.synchronize(stream)  # ``own`` may be a temporary

    def download(
        self, buffer: Buffer, dtype: DataType, shape: Sequence[int], stream: Any = None
    ) -> np.ndarray[Any, Any]:
        result = np.empty(tuple(shape), dtype.numpy)
        self._copy(result.ctypes.data, buffer.address, result.nbytes, stream)
        self.synchronize(stream)
        return result

    def copy_in(self, slot: Buffer, source: Any, stream: Any = None) -> None:
        self._copy(slot.address, self.address_of(source, slot.nbytes), slot.nbytes, stream)

    def copy_out(self, target: Any, slot: Buffer, stream: Any = None) -> None:
        self._copy(self.address_of(target, slot.nbytes), slot.address, slot.nbytes, stream)

    def address_of(self, place: Any, nbytes: int) -> int:
        if isinstance(place, int):
            return place
        interface = getattr(place, "__cuda_array_interface__", None)
        if interface is None and hasattr(place, "__dlpack__") and not on_host(place):
            interface = self.cupy.from_dlpack(place).__cuda_array_interface__
        return host_address(place, nbytes) if interface is None else address_in(interface, nbytes)

    @on_own_device
    def array(self, place: Any, stream: Any = None) -> Any:
        cupy, own = self.cupy, stream or self.main_stream
        with own:
            if hasattr(place, "__cuda_array_interface__"):
                return cupy.ascontiguousarray(cupy.asarray(place))
            if hasattr(place, "__dlpack__") and not on_host(place):
                return cupy.ascontiguousarray(cupy.from_dlpack(place))
        given = host_array(place)
        buffer = self.allocate(max(1, given.nbytes))
        self.upload(given, buffer, own)
        return buffer.view(DataType.of(given), given.shape)

    @on_own_device
    def pinned(self, nbytes: int) -> Buffer:
        memory = self.cupy.cuda.alloc_pinned_memory(max(1, nbytes))
        array = np.frombuffer(memory, np.uint8, max(1, nbytes))
        return Buffer(array, array.ctypes.data, max(1, nbytes))

    @on_own_device
    def foreign(self, place: Any, nbytes: int) -> Buffer | None:
        address = self.address_of(place, nbytes)
        cuda = self.cupy.cuda
        found = cuda.runtime.pointerGetAttributes(address)
        if address % ALIGNMENT or found.type not in _DEVICE_MEMORY or found.device != self.index:
            return None
        # No owner. The context holds what is set, and launches on these addresses run only while
        # they are set: an array that is replaced before its run ends is the caller's to keep, as
        # where it is copied. An owner would hold every array of each set of addresses that is
        # remembered or bound, dozens of them, long after the caller dropped it.
        pointer = cuda.MemoryPointer(cuda.UnownedMemory(address, nbytes, None, self.index), 0)
        return Buffer(self.cupy.ndarray(nbytes, self.cupy.uint8, pointer), address, nbytes)

    @on_own_device
    def _copy(self, target: int, source: int, nbytes: int, stream: Any) -> None:
        # cudaMemcpyDefault (4): the direction follows from the addresses.
        runtime = self.cupy.cuda.runtime
        runtime.memcpyAsync(target, source, nbytes, 4, self._pointer(stream))

    def _pointer(self, stream: Any) -> int:
        if stream is None:
            return self.main_stream.ptr
        return stream if isinstance(stream, int) else stream.ptr

    @on_own_device
    def capture(self, launches: Sequence[Callable[[], None]], stream: Any) -> Any:
        """A CUDA graph of the launches, which must be bound to ``stream`` or forked from it."""
        own = stream or self.main_stream
        refused = self.cupy.cuda.runtime.CUDARuntimeError
        try:
            own.begin_capture()
            try:
                for launch in launches:
                    launch()
            finally:
                graph = own.end_capture()
        except refused as e:
            raise DeviceError(
                f"CUDA records no graph of {len(launches)} launches: {e}",
                place="gpu",
                remedy="set context.use_graph = False to launch them one by one",
            ) from None
        return DeviceGraph(self.current, graph)

    def annotated(self, launch: Callable[[], None], name: str) -> Callable[[], None]:
        nvtx = self.cupy.cuda.nvtx

        def within() -> None:
            nvtx.RangePush(name)
            try:
                launch()
            finally:
                nvtx.RangePop()

        return within

    @on_own_device
    def stream(self) -> Any:
        return self.cupy.cuda.Stream(non_blocking=True)

    @on_own_device
    def as_stream(self, handle: Any) -> Any:
        if isinstance(handle, self.cupy.cuda.Stream):
            if handle.device_id not in (ANY_DEVICE, self.index):
                raise DeviceError(
                    f"the stream is GPU {handle.device_id}'s, this is GPU {self.index}",
                    place="gpu",
                    remedy="give a stream of the engine's device: device.stream() makes one",
                )
            return handle
        given = _RawStream(handle) if isinstance(handle, int) else handle
        return self.cupy.cuda.Stream.from_external(given)

    def wait(self, later: Any, earlier: Any) -> None:
        if later is not earlier:
            self.wait_for(later, self.mark(earlier))

    @on_own_device
    def mark(self, stream: Any) -> Any:
        event = self.cupy.cuda.Event(disable_timing=True)
        event.record(stream)
        return event

    def reach(self, mark: Any) -> None:
        mark.synchronize()

    def wait_for(self, stream: Any, mark: Any) -> None:
        stream.wait_event(mark)

    @on_own_device
    def timer(
        self, launch: Callable[[], None], stream: Any, threads: int = 1
    ) -> Callable[[int], list[float]]:
        own, event = stream or self.main_stream, self.cupy.cuda.Event
        launch()  # outside the capture: libraries allocate and load on first use
        own.synchronize()
        graph = self.capture([launch], own)
        flush = self._flush

        def sample(count: int) -> list[float]:
            pairs = [(event(), event()) for _ in range(count)]
            for begin, end in pairs:
                # Long enough for the host to enqueue what follows: no launch gap is timed.
                flush.memset_async(0, flush.mem.size, own)
                begin.record(own)
                graph.launch(own)
                end.record(own)
            own.synchronize()
            return [1e3 * self.cupy.cuda.get_elapsed_time(b, e) for b, e in pairs]

        def sample_here(count: int) -> list[float]:
            with self.current:
                return sample(count)

        return sample_here

    @on_own_device
    def fixed_work(self) -> Callable[[], None]:
        # A copy within the memory, larger than the L2 cache leaves room for.
        own, half = self._flush, self._flush.mem.size // 2

        def work() -> None:
            self._copy(own.ptr, own.ptr + half, half, None)

        return work

    @cached_property
    def _flush(self) -> Any:
        """Memory three times the size of the L2 cache; writing it empties the cache."""
        return self.cupy.cuda.alloc(3 * max(self._properties["l2CacheSize"], 1 << 24))

    @on_own_device
    def synchronize(self, stream: Any = None) -> None:
        if isinstance(stream, int):
            self.cupy.cuda.runtime.streamSynchronize(stream)
        else:
            (stream or self.main_stream).synchronize()

    @on_own_device
    def time_us(self, launch: Callable[[], None], repeats: int, stream: Any = None) -> list[float]:
        own = stream or self.main_stream
        pairs = [(self.cupy.cuda.Event(), self.cupy.cuda.Event()) for _ in range(repeats)]
        for begin, end in pairs:
            begin.record(own)
            launch()
            end.record(own)
        own.synchronize()
        return [1e3 * self.cupy.cuda.get_elapsed_time(b, e) for b, e in pairs]

    @on_own_device
    def steps_us(self, launches: Sequence[Callable[[], None]], stream: Any = None) -> list[float]:
        own, flush = stream or self.main_stream, self._flush
        marks = [self.cupy.cuda.Event() for _ in range(len(launches) + 1)]
        # Busy long enough for the host to enqueue everything: no launch gap is timed. A fill takes
        # some 50 µs, a launch with its event some 10.
        for _ in range(2 + len(launches) // 3):
            flush.memset_async(0, flush.mem.size, own)
        marks[0].record(own)
        for launch, mark in zip(launches, marks[1:], strict=True):
            launch()
            mark.record(own)
        own.synchronize()
        return [1e3 * self.cupy.cuda.get_elapsed_time(b, e) for b, e in pairwise(marks)]

    def __str__(self) -> str:
        return f"GPU {self.index}: {self.fingerprint}, {self.driver}"
