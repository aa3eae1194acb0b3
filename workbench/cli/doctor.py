"""``workbench doctor``: what is installed, what is missing, and the command that mends it."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Iterable

from workbench import __version__
from workbench.cli.text import say
from workbench.devices import CpuDevice, open_device
from workbench.errors import DeviceError
from workbench.gpu_doctor import gpu_findings
from workbench.gpu_packages import not_installed
from workbench.tactics import SOURCES
from workbench.tactics.gpu_libraries import gpu_libraries
from workbench.tactics.protocol import TacticSource

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
    "onnxruntime",
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
    for name, state in together((s.name, source_state(s)) for s in (x.source() for x in SOURCES)):
        say(f"  {name:<10} {state}")
    say("GPU:")
    libraries = together((x.name, str(x.missing or x.version)) for x in gpu_libraries())
    for line in (*gpu_findings(), *(f"{n}: {state}" for n, state in libraries), device_line()):
        say(f"  {line}")
    return 0


def source_state(source: TacticSource) -> str:
    """Whether a source can be used; what many wait for, CuPy, is said of the GPU, once."""
    kind, reason = source.device_kind, source.unavailable()
    if reason is None:
        return f"{kind}: ready ({source.version})"
    if reason == not_installed("cupy", "CuPy"):
        return f"{kind}: unavailable without CuPy"
    return f"{kind}: unavailable: {reason}"


def together(rows: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Names and what is said of them; those of which the same is said in one row."""
    names: dict[str, list[str]] = {}
    for name, said in rows:
        names.setdefault(said, []).append(name)
    return [(", ".join(n), said) for said, n in names.items()]


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
