"""The libraries of a GPU build, each loaded and asked its version: what is there, what mends it.

Loading needs no GPU. What a tactic source makes of them is for the source to say.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from workbench.errors import DeviceError
from workbench.gpu_packages import EXTRA, import_cupy
from workbench.records import Refusal
from workbench.tactics.compile_processes import CompileError
from workbench.tactics.cublas_lt.library import file_of, library_version, load
from workbench.tactics.cudnn.library import load as load_cudnn
from workbench.tactics.cudnn.library import versions as cudnn_versions
from workbench.tactics.nvrtc.compiler import compile_text

PROBE = 'extern "C" __global__ void run(float* x) { x[threadIdx.x] *= 2.0f; }'
PROBE_TARGET = "sm_80"
WITHOUT_CUPY = Refusal("needs CuPy, which loads it")
"""Of a library that is asked through CuPy. What installs CuPy is said of CuPy."""


@dataclass(frozen=True)
class Library:
    """One library's state. Either ``version`` says what loaded, or ``missing`` why nothing did."""

    name: str
    version: str = ""
    missing: Refusal | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.missing or self.version}"


def gpu_libraries() -> tuple[Library, ...]:
    """Each library in the order in which a build needs it."""
    return tuple(_tried(name, ask) for name, ask in _ASKED)


def _tried(name: str, ask: Callable[[], str]) -> Library:
    try:
        return Library(name, ask())
    except _Missing as e:
        return Library(name, missing=e.refusal)


class _Missing(Exception):
    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


def _cupy() -> Any:
    if importlib.util.find_spec("cupy") is None:
        raise _Missing(WITHOUT_CUPY)
    try:
        return import_cupy()
    except DeviceError as e:
        raise _Missing(Refusal(e.problem, remedy=e.remedy)) from None


def _runtime() -> str:
    try:
        number = int(_cupy().cuda.runtime.runtimeGetVersion())
    except (ImportError, OSError, RuntimeError) as e:
        raise _Missing(Refusal(f"it does not load: {e}", remedy=EXTRA)) from None
    return _dotted(number // 1000, number % 1000 // 10)


def _nvrtc() -> str:
    cupy = _cupy()
    try:
        version = _dotted(*cupy.cuda.nvrtc.getVersion())
        size = len(compile_text(cupy, PROBE, PROBE_TARGET))
    except (ImportError, OSError, RuntimeError) as e:
        raise _Missing(Refusal(f"it does not load: {e}", remedy=EXTRA)) from None
    except CompileError as e:
        remedy = "install one CUDA version of CuPy: see the packages above"
        raise _Missing(Refusal(f"it loads, yet compiles no kernel: {e}", remedy=remedy)) from None
    return f"{version}, compiles for {PROBE_TARGET} ({size} bytes)"


def _cublas_lt() -> str:
    _cupy()
    found = load()
    if isinstance(found, Refusal):
        raise _Missing(found)
    number = library_version(found)
    return f"{_dotted(number // 10000, number // 100 % 100, number % 100)}, {file_of(found)}"


def _cudnn() -> str:
    found = load_cudnn()
    if isinstance(found, Refusal):
        raise _Missing(found)
    library, _, frontend = cudnn_versions().partition("+")
    return f"{library}, frontend {frontend}"


def _triton() -> str:
    if importlib.util.find_spec("triton") is None:
        raise _Missing(Refusal("it is not installed", remedy=EXTRA))
    try:
        return str(importlib.import_module("triton").__version__)
    except (ImportError, OSError) as e:
        raise _Missing(Refusal(f"it does not load: {e}", remedy=EXTRA)) from None


def _dotted(*numbers: int) -> str:
    return ".".join(map(str, numbers))


_ASKED: tuple[tuple[str, Callable[[], str]], ...] = (
    ("libcudart", _runtime),
    ("NVRTC", _nvrtc),
    ("cuBLASLt", _cublas_lt),
    ("cuDNN", _cudnn),
    ("Triton", _triton),
)
