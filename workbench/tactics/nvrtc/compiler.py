"""NVRTC itself: its version, its threads, and what the sources share whose text it compiles."""

from __future__ import annotations

import functools
import importlib.util
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from workbench.devices import usable_cpus
from workbench.errors import DeviceError
from workbench.gpu_packages import import_cupy, not_installed
from workbench.records import Refusal
from workbench.tactics.compile_processes import CompileError

MESSAGE_LENGTH = 600


class CompiledByNvrtc:
    """A tactic source whose text NVRTC compiles. revision: changes when its texts change."""

    device_kind = "gpu"
    slow = False
    revision: str

    def unavailable(self) -> Refusal | None:
        return not_installed("cupy", "CuPy")

    @property
    def version(self) -> str:
        return f"{self.revision}/{nvrtc_version()}"


@functools.cache
def compilers() -> ThreadPoolExecutor:
    """Threads are enough: NVRTC compiles without Python's lock."""
    return ThreadPoolExecutor(usable_cpus(), thread_name_prefix="nvrtc")


@functools.cache
def nvrtc_version() -> str:
    """The version of the NVRTC that CuPy loads, as ``12.9``; ``none`` where there is none."""
    if importlib.util.find_spec("cupy") is None:
        return "none"
    try:
        major, minor = import_cupy().cuda.nvrtc.getVersion()
    except (DeviceError, OSError, RuntimeError):  # CuPy is there, its libraries are not
        return "none"
    return f"{major}.{minor}"


def compile_text(cupy: Any, text: str, target: str) -> bytes:
    """CUDA C++ as machine code (cubin) for ``sm_90``, say, or as PTX for ``compute_80``.

    Needs no GPU.

    Raises CompileError with the errors in the compiler's log.
    """
    nvrtc = cupy.cuda.nvrtc
    program = nvrtc.createProgram(text, "kernel.cu", (), ())
    try:
        nvrtc.compileProgram(program, (f"--gpu-architecture={target}", "--std=c++17"))
        if target.startswith("compute_"):
            return bytes(nvrtc.getPTX(program)).rstrip(b"\0") + b"\0"  # the driver reads a string
        return bytes(nvrtc.getCUBIN(program))
    except nvrtc.NVRTCError as e:
        lines = [line.strip() for line in nvrtc.getProgramLog(program).splitlines()]
        said = " ".join(line for line in lines if "error" in line) or " ".join(lines)
        raise CompileError(f"{e}: {said}"[:MESSAGE_LENGTH]) from None
    finally:
        nvrtc.destroyProgram(program)
