"""cuDNN and its frontend: loading, versions, and one handle a thread."""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.metadata
import importlib.util
import sys
import threading
from pathlib import Path
from typing import Any

from workbench.gpu_device import GpuDevice
from workbench.gpu_doctor import FRONTEND_SERIES
from workbench.records import Refusal

LIBRARY = "libcudnn.so.9"
REMEDY = (
    f"python -m pip install 'nvidia-cudnn-frontend=={FRONTEND_SERIES}.*' "
    "nvidia-cudnn-cu12 (CUDA 12) or nvidia-cudnn-cu13"
)


@functools.cache
def load() -> Any:
    """The module ``cudnn`` with the library behind it, or a Refusal saying what is missing."""
    if importlib.util.find_spec("cudnn") is None:
        return Refusal("nvidia-cudnn-frontend is not installed", remedy=REMEDY, code="library")
    tried = _load_library()
    if tried:
        return Refusal(f"cuDNN is not found: {tried}", remedy=REMEDY, code="library")
    try:
        module = importlib.import_module("cudnn")
        module.backend_version()
    except (ImportError, RuntimeError) as e:
        return Refusal(f"cuDNN's frontend does not start: {e}", remedy=REMEDY, code="library")
    return module


def _load_library() -> str:
    """Loads cuDNN from the wheels or the system, so that the frontend finds it; or what failed.

    The frontend itself looks only in one folder of site-packages and among the loader's own.
    """
    tried = ""
    for path in (*_wheel_libraries(), LIBRARY):
        try:
            ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
        except OSError as e:
            tried = str(e)
        else:
            return ""
    return tried


def _wheel_libraries() -> list[Path]:
    """Where nvidia-cudnn-cu12 and -cu13 put the library, in every folder of ``sys.path``."""
    found = [Path(p) / "nvidia" / "cudnn" / "lib" / LIBRARY for p in sys.path if p]
    return [p for p in found if p.exists()]


@functools.cache
def versions() -> str:
    """Versions of library and frontend, as ``9.19.1+1.32.0``; ``none`` where it does not load."""
    module = load()
    if isinstance(module, Refusal):
        return "none"
    number = int(module.backend_version())
    library = f"{number // 10000}.{number // 100 % 100}.{number % 100}"
    return f"{library}+{importlib.metadata.version('nvidia-cudnn-frontend')}"


class _Handles(threading.local):
    """This thread's handles, by device: cuDNN allows no two threads on one handle."""

    def __init__(self) -> None:
        self.by_device: dict[int, Any] = {}


_HANDLES = _Handles()


def handle_of(device: GpuDevice) -> Any:
    """The calling thread's cuDNN handle on this device. Each launch sets its stream."""
    found = _HANDLES.by_device.get(device.index)
    if found is None:
        with device.current:
            found = load().create_handle()
        _HANDLES.by_device[device.index] = found
    return found


def planning_handle(device: GpuDevice) -> Any:
    """The same handle on the device's own stream, for making and loading plans.

    Loading a plan captures a trial launch on the handle's stream, which must be alive: that of the
    last launch may be gone.
    """
    handle = handle_of(device)
    load().set_stream(handle=handle, stream=device.main_stream.ptr)
    return handle
