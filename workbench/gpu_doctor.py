"""What stands between this machine and a working GPU build, in sentences."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util

_EXTRAS = {"12": "inference-workbench[gpu]", "13": "inference-workbench[gpu-cuda13]"}
_CUPY = ("cupy-cuda12x", "cupy-cuda13x")
_FRONTEND, _FRONTEND_SERIES = "nvidia-cudnn-frontend", "1.26"
_NEEDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "NVRTC": (_CUPY,),
    "CUBLAS_LT": (_CUPY,),
    "CUDNN": (_CUPY, ("nvidia-cudnn-cu12", "nvidia-cudnn-cu13"), (_FRONTEND,)),
    "TRITON": (_CUPY, ("triton",)),
}
"""Distributions that a tactic source needs; of each tuple one. A system's cuDNN does as well."""
_DRIVER_CODES = {
    100: "CUDA initialization failure with error 100 (cudaErrorNoDevice): the driver library is "
    "there, but it sees no GPU. Is there an NVIDIA GPU? In a container, start it with --gpus all.",
    999: "error 999 (cudaErrorUnknown): reload the driver's kernel module or restart the machine.",
    803: "error 803 (cudaErrorSystemDriverMismatch): the driver library and the kernel module "
    "differ in version; restart the machine after a driver update.",
}


def gpu_findings() -> list[str]:
    """Lines for people: driver, packages, and the command that mends what is missing."""
    found = installed_packages()
    lines = [driver_line(), *package_lines(found), *source_lines(found)]
    if importlib.util.find_spec("cupy") is None:
        lines.append("CuPy: not installed; builds run on the CPU until it is")
    return lines


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
            f"no CuPy: python -m pip install '{_EXTRAS['12']}' (driver for CUDA 12) "
            f"or '{_EXTRAS['13']}' (CUDA 13)"
        )
    return lines


def source_lines(found: dict[str, str]) -> list[str]:
    """Which tactic sources have their packages, and what brings those that have not."""
    lines: list[str] = []
    for source, needs in _NEEDS.items():
        missing = [" or ".join(names) for names in needs if not any(n in found for n in names)]
        state = f"lacks {', '.join(missing)}" if missing else "has its packages"
        lines.append(f"{source}: {state}")
    frontend = found.get(_FRONTEND, "")
    if frontend and not frontend.startswith(f"{_FRONTEND_SERIES}."):
        lines.append(
            f"{_FRONTEND} {frontend}: CUDNN is made for {_FRONTEND_SERIES}; "
            f"python -m pip install '{_FRONTEND}=={_FRONTEND_SERIES}.*'"
        )
    return lines


def driver_line() -> str:
    """The NVIDIA driver's state, by its own library."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver (libcuda.so.1 is not found): the CPU is the device here"
    code = int(driver.cuInit(0))
    if code:
        return _DRIVER_CODES.get(code, f"the NVIDIA driver does not start: error {code}")
    version = ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    return f"NVIDIA driver: CUDA {version.value // 1000}.{version.value % 1000 // 10}"
