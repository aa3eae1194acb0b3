"""``workbench doctor``: what is installed, what is missing, and the command that mends it."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import platform
import sys

from workbench import __version__
from workbench.cli.text import say
from workbench.devices import CpuDevice, open_device
from workbench.errors import DeviceError
from workbench.gpu_doctor import gpu_findings
from workbench.tactics import SOURCES
from workbench.tactics.gpu_libraries import gpu_libraries

NAME = "doctor"
HELP = "say what is installed, what is missing and what mends it"
PACKAGES = (
    "numpy",
    "ml_dtypes",
    "onnx",
    "numba",
    "onednn-cpu-gomp",
    "plotly",
    "ipywidgets",
    "jupyterlab",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """No options."""


def main(options: argparse.Namespace) -> int:
    """Versions, tactic sources, GPU and its libraries, a line each."""
    say(f"inference-workbench {__version__}, Python {platform.python_version()} ({sys.executable})")
    device = CpuDevice()
    say(f"{device}; instruction sets: {', '.join(device.fingerprint.features) or 'none known'}")
    for name in PACKAGES:
        say(f"  {name:<18} {installed(name) or 'not installed'}")
    say("Tactic sources:")
    for source in (s.source() for s in SOURCES):
        reason = source.unavailable()
        state = f"ready ({source.version})" if reason is None else f"unavailable: {reason}"
        say(f"  {source.name:<10} {source.device_kind}: {state}")
    say("GPU:")
    for line in (*gpu_findings(), *map(str, gpu_libraries()), device_line()):
        say(f"  {line}")
    return 0


def device_line() -> str:
    """The GPU that builds would use, or why none would."""
    if importlib.util.find_spec("cupy") is None:
        return "device 'gpu': none without CuPy; use device='cpu'"
    try:
        return f"device 'gpu': {open_device('gpu')}"
    except DeviceError as e:
        return f"device 'gpu': none: {e.problem}"


def installed(name: str) -> str:
    """The installed version of a distribution, or nothing."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
