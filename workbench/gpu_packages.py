"""The Python packages of a GPU build: what is there, and what installs the rest."""

from __future__ import annotations

import importlib.util
from typing import Any

from workbench.errors import DeviceError
from workbench.records import Refusal

EXTRA = "python -m pip install 'inference-workbench[gpu]' (CUDA 12) or [gpu-cuda13]"
"""What installs all that a GPU build uses."""


def not_installed(module: str, title: str) -> Refusal | None:
    """Why a tactic source that needs a module cannot be used; nothing is imported."""
    if importlib.util.find_spec(module) is not None:
        return None
    return Refusal(f"{title} is not installed", remedy=EXTRA, code="library")


def import_cupy() -> Any:
    """CuPy. Raises DeviceError naming the extra that installs it."""
    try:
        import cupy  # pyright: ignore[reportMissingImports]  # an extra; CI has no GPU
    except ImportError as e:
        raise DeviceError(
            f"CuPy is not installed ({e})",
            place="gpu",
            remedy=EXTRA,
        ) from None
    return cupy


def cuda_version() -> tuple[int, int]:
    """Major and minor version of CUDA's run-time library that CuPy uses; needs no GPU.

    Raises DeviceError where there is no CuPy, or where it does not load.
    """
    runtime = import_cupy().cuda.runtime
    try:
        number = int(runtime.runtimeGetVersion())
    except (ImportError, OSError, RuntimeError) as e:
        raise DeviceError(
            f"CUDA's run-time library does not load: {e}", place="gpu", remedy=EXTRA
        ) from None
    return number // 1000, number % 1000 // 10
