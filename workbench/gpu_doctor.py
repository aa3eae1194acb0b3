"""What stands between this machine and a working GPU build, in sentences."""

from __future__ import annotations

import ctypes
import importlib.metadata
from collections.abc import Mapping

_EXTRAS = {"12": "inference-workbench[gpu]", "13": "inference-workbench[gpu-cuda13]"}
_FRONTEND = "nvidia-cudnn-frontend"
FRONTEND_SERIES = "1.26"
"""The last series of the frontend that is cuDNN's C++ graph alone and needs no further package."""
_EXPLAINED = {
    2: "cudaErrorMemoryAllocation: another process holds the GPU's memory; see nvidia-smi.",
    3: "cudaErrorInitializationError: CUDA was started before this process forked; start it in "
    "the child, or use the multiprocessing method 'spawn'.",
    34: "cudaErrorStubLibrary: a stub libcuda.so is found before the driver's; take "
    "/usr/local/cuda/lib64/stubs out of LD_LIBRARY_PATH.",
    35: "cudaErrorInsufficientDriver: the driver is older than the CUDA that CuPy brings, or there "
    "is none; update the driver, or install the extra of its CUDA version.",
    46: "cudaErrorDevicesUnavailable: the GPU is in exclusive mode and in use; see nvidia-smi -q "
    "-d COMPUTE.",
    100: "cudaErrorNoDevice: the driver library is there, but it sees no GPU. Is there an NVIDIA "
    "GPU? In a container, start it with --gpus all; CUDA_VISIBLE_DEVICES may hide it.",
    101: "cudaErrorInvalidDevice: the driver has no GPU of that index; see nvidia-smi -L.",
    802: "cudaErrorSystemNotReady: the NVSwitch fabric is not up; start nvidia-fabricmanager.",
    803: "cudaErrorSystemDriverMismatch: the driver library and the kernel module differ in "
    "version; restart the machine after a driver update.",
    804: "cudaErrorCompatNotSupportedOnDevice: a CUDA compatibility package is installed that this "
    "GPU cannot use; remove it and update the driver.",
    999: "cudaErrorUnknown: reload the driver's kernel module or restart the machine.",
}
"""What CUDA's error numbers mean here. Source: CUDA Runtime API, cudaError_t."""


def gpu_findings() -> list[str]:
    """Lines for people: driver, packages, and the command that mends what is missing.

    Why a tactic source cannot be used is for it to say: see ``TacticSource.unavailable``.
    """
    found = installed_packages()
    return [driver_line(), *package_lines(found), *frontend_lines(found)]


def installed_packages() -> dict[str, str]:
    """Installed versions of the distributions that a GPU build uses."""
    names = ("cupy-cuda12x", "cupy-cuda13x", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13")
    found: dict[str, str] = {}
    for name in (*names, "nvidia-cudnn-frontend", "triton"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def package_lines(found: dict[str, str]) -> list[str]:
    """What the installed packages mean. Both CuPy builds at once is a fault."""
    lines = [f"{name} {version}" for name, version in found.items()]
    both = [major for major in _EXTRAS if f"cupy-cuda{major}x" in found]
    if len(both) == 2:
        lines.append(
            "both cupy-cuda12x and cupy-cuda13x are installed; they overwrite each other. "
            "Mend: python -m pip uninstall -y cupy-cuda12x cupy-cuda13x, then install one extra"
        )
    elif not both:
        lines.append(
            "CuPy is not installed: builds run on the CPU until it is. Mend: python -m pip install "
            f"'{_EXTRAS['12']}' (driver for CUDA 12) or '{_EXTRAS['13']}' (CUDA 13)"
        )
    return lines


def frontend_lines(found: Mapping[str, str]) -> list[str]:
    """What is said of another series of cuDNN's frontend than CUDNN is made for."""
    frontend = found.get(_FRONTEND, "")
    if not frontend or frontend.startswith(f"{FRONTEND_SERIES}."):
        return []
    return [
        f"{_FRONTEND} {frontend}: CUDNN is made for {FRONTEND_SERIES}; "
        f"python -m pip install '{_FRONTEND}=={FRONTEND_SERIES}.*'"
    ]


def explained(code: int) -> str:
    """CUDA's error number with what it means and what mends it."""
    known = _EXPLAINED.get(code, "the driver says no more; see dmesg and nvidia-smi.")
    return f"CUDA initialization failure with error {code}: {known}"


def driver_line() -> str:
    """The NVIDIA driver's state, by its own library."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver (libcuda.so.1 is not found): the CPU is the device here"
    code = int(driver.cuInit(0))
    if code:
        return explained(code)
    version = ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    return f"NVIDIA driver: CUDA {version.value // 1000}.{version.value % 1000 // 10}"
