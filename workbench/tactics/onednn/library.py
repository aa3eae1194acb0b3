"""The oneDNN shared library: found, loaded once, its C functions declared and checked.

Importing this module loads nothing. ``load()`` gives the Library or the reason why there is none.
Source of the signatures: oneapi/dnnl/dnnl.h and dnnl_common.h of oneDNN 3.2.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.metadata
import os
import site
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from ctypes import POINTER, c_char_p, c_float, c_int, c_int64, c_size_t, c_uint, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.errors import DeviceError, ExecutionError
from workbench.tactics.native import OpenMp, address_of
from workbench.tactics.onednn.constants import MAX_RANK, InstructionSet, Status

DISTRIBUTION = "onednn-cpu-gomp"
"""The PyPI distribution whose wheel puts libdnnl.so.3 into ``<prefix>/lib``."""

FILE_NAME = "libdnnl.so.3"
SUPPORTED = (3, 2)
"""Oldest usable version; any later 3.x keeps its binary interface."""

_OPENMP_RUNTIME = 2  # DNNL_RUNTIME_OMP
_CPU_ENGINE = 1  # dnnl_cpu
_IN_ORDER = 1  # dnnl_stream_in_order

Sizes = c_int64 * MAX_RANK
_P = c_void_p
_OUT = POINTER(c_void_p)

_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "dnnl_engine_create": (_OUT, c_int, c_size_t),
    "dnnl_stream_create": (_OUT, _P, c_uint),
    "dnnl_stream_wait": (_P,),
    "dnnl_set_primitive_cache_capacity": (c_int,),
    "dnnl_set_verbose": (c_int,),
    "dnnl_set_jit_profiling_flags": (c_uint,),
    "dnnl_memory_desc_create_with_tag": (_OUT, c_int, Sizes, c_int, c_int),
    "dnnl_memory_desc_create_with_strides": (_OUT, c_int, Sizes, c_int, Sizes),
    "dnnl_memory_desc_create_submemory": (_OUT, _P, Sizes, Sizes),
    "dnnl_memory_desc_clone": (_OUT, _P),
    "dnnl_memory_desc_query": (_P, c_int, _P),
    "dnnl_memory_desc_destroy": (_P,),
    "dnnl_memory_create": (_OUT, _P, _P, _P),
    "dnnl_memory_set_data_handle": (_P, _P),
    "dnnl_memory_destroy": (_P,),
    "dnnl_primitive_attr_create": (_OUT,),
    "dnnl_primitive_attr_set_scratchpad_mode": (_P, c_int),
    "dnnl_primitive_attr_set_fpmath_mode": (_P, c_int),
    "dnnl_primitive_attr_set_scales_mask": (_P, c_int, c_int),
    "dnnl_primitive_attr_set_zero_points_mask": (_P, c_int, c_int),
    "dnnl_primitive_attr_set_post_ops": (_P, _P),
    "dnnl_primitive_attr_destroy": (_P,),
    "dnnl_post_ops_create": (_OUT,),
    "dnnl_post_ops_append_eltwise": (_P, c_int, c_float, c_float),
    "dnnl_post_ops_append_sum": (_P, c_float, c_int, c_int),
    "dnnl_post_ops_append_binary": (_P, c_int, _P),
    "dnnl_post_ops_destroy": (_P,),
    "dnnl_primitive_desc_query": (_P, c_int, c_int, _P),
    "dnnl_primitive_desc_next_impl": (_P,),
    "dnnl_primitive_desc_clone": (_OUT, _P),
    "dnnl_primitive_desc_destroy": (_P,),
    "dnnl_primitive_create": (_OUT, _P),
    "dnnl_primitive_execute": (_P, _P, c_int, _P),
    "dnnl_primitive_destroy": (_P,),
    "dnnl_convolution_forward_primitive_desc_create": (
        *(_OUT, _P, c_int, c_int, _P, _P, _P, _P, Sizes, Sizes, Sizes, Sizes, _P),
    ),
    "dnnl_deconvolution_forward_primitive_desc_create": (
        *(_OUT, _P, c_int, c_int, _P, _P, _P, _P, Sizes, Sizes, Sizes, Sizes, _P),
    ),
    "dnnl_inner_product_forward_primitive_desc_create": (_OUT, _P, c_int, _P, _P, _P, _P, _P),
    "dnnl_matmul_primitive_desc_create": (_OUT, _P, _P, _P, _P, _P, _P),
    "dnnl_pooling_forward_primitive_desc_create": (
        *(_OUT, _P, c_int, c_int, _P, _P, Sizes, Sizes, Sizes, Sizes, Sizes, _P),
    ),
    "dnnl_softmax_forward_primitive_desc_create": (_OUT, _P, c_int, c_int, _P, _P, c_int, _P),
    "dnnl_layer_normalization_forward_primitive_desc_create": (
        *(_OUT, _P, c_int, _P, _P, _P, c_float, c_uint, _P),
    ),
    "dnnl_eltwise_forward_primitive_desc_create": (
        *(_OUT, _P, c_int, c_int, _P, _P, c_float, c_float, _P),
    ),
    "dnnl_binary_primitive_desc_create": (_OUT, _P, c_int, _P, _P, _P, _P),
    "dnnl_reduction_primitive_desc_create": (_OUT, _P, c_int, _P, _P, c_float, c_float, _P),
    "dnnl_concat_primitive_desc_create": (_OUT, _P, _P, c_int, c_int, POINTER(c_void_p), _P),
    "dnnl_resampling_forward_primitive_desc_create": (
        *(_OUT, _P, c_int, c_int, POINTER(c_float), _P, _P, _P),
    ),
    "dnnl_reorder_primitive_desc_create": (_OUT, _P, _P, _P, _P, _P),
}
"""Every function here returns a dnnl_status_t."""


@dataclass(frozen=True)
class Unavailable:
    """Why oneDNN cannot be used here, and what would change that."""

    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.reason}; {self.remedy}"


class _Version(ctypes.Structure):
    _fields_ = (
        ("major", c_int),
        ("minor", c_int),
        ("patch", c_int),
        ("hash", c_char_p),
        ("cpu_runtime", c_uint),
        ("gpu_runtime", c_uint),
    )


class Library:
    """The loaded library with its CPU engine and stream, which live as long as the process.

    version: (major, minor, patch). isa: what its code generators use on this CPU.
    Calls release the interpreter lock; distinct primitives may run on distinct threads.
    """

    def __init__(self, path: Path, binary: ctypes.CDLL) -> None:
        self.path = path
        self._functions = _declare(binary)
        v = _read_version(binary)
        self.version: tuple[int, int, int] = (v.major, v.minor, v.patch)
        binary.dnnl_get_effective_cpu_isa.argtypes = ()
        self.isa = InstructionSet(binary.dnnl_get_effective_cpu_isa())
        self._binary = binary
        self._set_threads = binary.omp_set_num_threads
        self._set_threads.argtypes, self._set_threads.restype = (c_int,), None
        self._max_threads = binary.omp_get_max_threads
        self._max_threads.argtypes = ()
        self.size_of = binary.dnnl_memory_desc_get_size
        self.size_of.argtypes, self.size_of.restype = (c_void_p,), c_size_t
        self.are_equal = binary.dnnl_memory_desc_equal
        self.are_equal.argtypes = (c_void_p, c_void_p)
        self.query_memory = binary.dnnl_primitive_desc_query_md
        self.query_memory.argtypes, self.query_memory.restype = (c_void_p, c_int, c_int), c_void_p
        self.call("dnnl_set_verbose", 0)
        # With its cache of primitives, what a descriptor lists depends on what was made before:
        # a second build would find other implementations. Calls keep their own primitives.
        self.call("dnnl_set_primitive_cache_capacity", 0)
        self.call("dnnl_set_jit_profiling_flags", 0)  # announces no code to VTune or perf
        self.engine: int = self.create("dnnl_engine_create", _CPU_ENGINE, 0)
        self.stream: int = self.create("dnnl_stream_create", self.engine, _IN_ORDER)

    def function(self, name: str) -> Callable[..., int]:
        """The C function itself; it returns a status that the caller must check."""
        return self._functions[name]

    def call(self, name: str, *arguments: Any) -> None:
        """Call and check. DeviceError names the call and its status."""
        status = self._functions[name](*arguments)
        if status:
            raise DeviceError(status_text(status), place=name)

    def create(self, name: str, *arguments: Any) -> int:
        """Call a constructor and return the new handle. DeviceError as in ``call``."""
        out = c_void_p()
        self.call(name, ctypes.byref(out), *arguments)
        assert out.value is not None
        return out.value

    def try_create(self, name: str, *arguments: Any) -> int | Status:
        """As ``create``, or the status where oneDNN has no such case or takes no such arguments."""
        out = c_void_p()
        status = self._functions[name](ctypes.byref(out), *arguments)
        if status in (Status.UNIMPLEMENTED, Status.INVALID_ARGUMENTS):
            return Status(status)
        if status:
            raise DeviceError(status_text(status), place=name)
        assert out.value is not None
        return out.value

    def execute(self, call: tuple[int, int, int, int]) -> None:
        """Run one primitive; ExecutionError on failure. On the CPU it is done on return."""
        status = self._functions["dnnl_primitive_execute"](*call)
        if status:
            raise ExecutionError(status_text(status), place="dnnl_primitive_execute")

    @property
    def threads(self) -> int:
        """OpenMP threads that a primitive made or run from this Python thread uses."""
        return self._max_threads()

    def set_threads(self, count: int) -> None:
        """Set ``threads`` for the calling Python thread only (OpenMP keeps it per thread).

        A primitive plans its work for the count it was created under: create and run it under
        the same count.
        """
        if count < 1:
            raise DeviceError(f"{count} threads; ask for 1 or more", place="omp_set_num_threads")
        self._set_threads(count)

    @functools.cached_property
    def openmp(self) -> OpenMp:
        """Functions of the OpenMP runtime whose threads its primitives run on."""
        names = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")
        return OpenMp(*(address_of(getattr(self._binary, n)) for n in names))

    @functools.cached_property
    def execute_address(self) -> int:
        """Where dnnl_primitive_execute lies, for calls without Python."""
        return address_of(self._binary.dnnl_primitive_execute)

    @functools.cached_property
    def set_threads_address(self) -> int:
        """Where omp_set_num_threads lies, for calls without Python."""
        return address_of(self._set_threads)

    @property
    def fingerprint(self) -> str:
        """What timings and packed weights depend on: version and instruction set."""
        return f"oneDNN {'.'.join(map(str, self.version))} {self.isa.name.lower()}"


def status_text(status: int) -> str:
    """A status for people."""
    words = next((s.words for s in Status if s == status), "unknown")
    return f"oneDNN returned status {status} ({words})"


def _declare(binary: ctypes.CDLL) -> dict[str, Callable[..., int]]:
    functions: dict[str, Callable[..., int]] = {}
    for name, arguments in _SIGNATURES.items():
        function = getattr(binary, name)
        function.argtypes = arguments
        function.restype = c_int
        functions[name] = function
    return functions


def _read_version(binary: ctypes.CDLL) -> _Version:
    binary.dnnl_version.restype = POINTER(_Version)
    return binary.dnnl_version().contents


def candidates() -> Iterator[Path]:
    """Files that may be the library, likeliest first: the wheel's own record, then prefixes."""
    seen: set[Path] = set()
    for path in (*_recorded(), *_in_prefixes()):
        if path not in seen and path.is_file():
            seen.add(path)
            yield path


def _recorded() -> Iterator[Path]:
    try:
        files = importlib.metadata.files(DISTRIBUTION) or ()
    except importlib.metadata.PackageNotFoundError:
        return
    for file in files:
        if file.name == FILE_NAME:
            yield Path(str(file.locate())).resolve()


def _in_prefixes() -> Iterator[Path]:
    for prefix in (sys.prefix, site.getuserbase(), sys.base_prefix):
        for folder in ("lib", "lib64"):
            yield (Path(prefix) / folder / FILE_NAME).resolve()


_INSTALL = f"run `python -m pip install {DISTRIBUTION}` (Linux x86-64 only)"
_lock = threading.Lock()


def load() -> Library | Unavailable:
    """The library, loaded on the first call, or why there is none; later calls repeat that."""
    with _lock:
        return _load()


def loaded() -> Library | None:
    """The library if this process has it already."""
    found = _load() if _load.cache_info().currsize else None
    return found if isinstance(found, Library) else None


@functools.cache
def _load() -> Library | Unavailable:
    if not sys.platform.startswith("linux"):
        return Unavailable(f"oneDNN is used on Linux only, this is {sys.platform}", "use Linux")
    problems: list[Unavailable] = []
    for path in candidates():
        loaded = open_library(path)
        if isinstance(loaded, Library):
            return loaded
        problems.append(loaded)
    return problems[0] if problems else Unavailable(f"no {FILE_NAME} found", _INSTALL)


_WAIT_VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
_SPIN_COUNT = "10000"
"""Turns that a waiting OpenMP thread spins before it sleeps: some 500 µs, which outlasts a layer
that runs on one thread. Measured on 2 virtual cores, against 1,000 turns: MobileNetV2 takes 0.93 of
the time (INT8 0.89), ResNet-50 0.93; among 3 other programs SqueezeNet takes 1.3 times as long, as
ONNX Runtime and OpenVINO do. libgomp's own 300,000 gain little more and hold a core that another
program could use."""


@contextlib.contextmanager
def _short_waits() -> Generator[None]:
    """libgomp reads its settings once, while it is loaded; the person's own are left alone."""
    if any(v in os.environ for v in _WAIT_VARIABLES):
        yield
        return
    os.environ[_WAIT_VARIABLES[0]] = _SPIN_COUNT
    try:
        yield
    finally:
        del os.environ[_WAIT_VARIABLES[0]]


def open_library(path: Path) -> Library | Unavailable:
    """Load one file and look whether it is a oneDNN that the binding can use."""
    try:
        with _short_waits():
            binary = ctypes.CDLL(str(path))
    except OSError as error:
        if "libgomp" in str(error):
            remedy = "install GCC's OpenMP runtime (Debian, Ubuntu: `apt install libgomp1`)"
            return Unavailable(f"{path} needs libgomp.so.1, which is missing", remedy)
        return Unavailable(f"{path} does not load: {error}", _INSTALL)
    if not hasattr(binary, "dnnl_version"):
        return Unavailable(f"{path} is not oneDNN", _INSTALL)
    version = _read_version(binary)
    if version.major != SUPPORTED[0] or version.minor < SUPPORTED[1]:
        found = f"{version.major}.{version.minor}"
        return Unavailable(f"{path} is oneDNN {found}, not 3.{SUPPORTED[1]} or a later 3", _INSTALL)
    if version.cpu_runtime != _OPENMP_RUNTIME or not hasattr(binary, "omp_set_num_threads"):
        return Unavailable(f"{path} is built without OpenMP threads on the CPU", _INSTALL)
    return Library(path, binary)
