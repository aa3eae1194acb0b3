"""Tactic sources, in order: where two tactics are not distinguishable by time, the first wins.

A source is imported when it is first asked for: a plan of CPU kernels runs without the modules of
the GPU's, which take 5 MB of memory.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import import_module

from workbench.errors import PlanError
from workbench.tactics.protocol import Settles, TacticSource


@dataclass(frozen=True)
class Listed:
    """A source before it is imported: its name, as that of the object in its module."""

    name: str
    device_kind: str
    module: str

    def source(self) -> TacticSource:
        """The source itself."""
        return getattr(import_module(f"workbench.tactics.{self.module}"), self.name)


SOURCES: tuple[Listed, ...] = (
    Listed("ONEDNN", "cpu", "onednn.source"),
    Listed("NUMBA", "cpu", "numba.source"),
    Listed("NUMPY", "cpu", "numpy_source"),
    Listed("CUDNN", "gpu", "cudnn.source"),
    Listed("CUBLAS_LT", "gpu", "cublas_lt.source"),
    Listed("WGMMA", "gpu", "wgmma.source"),
    Listed("TRITON", "gpu", "triton.source"),
    Listed("NVRTC", "gpu", "nvrtc.source"),
)

_INNER: tuple[Listed, ...] = (
    Listed("COMPOSED", "", "composed"),
    Listed("HOST", "", "host"),
    Listed("VIEW", "", "view"),
)
"""What the workbench itself puts into plans."""

COMPILED_FOR_LONG_LAYERS = frozenset({"NUMBA"})
"""Sources that compile, for a second or more, only what others run for long.

Not those that are ``slow``: a GPU's layers take 5 to 50 µs, and their kernels compile in parallel.
"""

COMPILED_FOR_EXACTNESS = frozenset({("NUMBA", "means")})
"""Their tactics that are compiled in float32 however fast others are: those have several times the
error, which no later layer takes back.
"""

COMPILED_AT_THE_END = frozenset({("NUMBA", "product"), ("NUMBA", "product in place")})
"""The same for a network's last products alone, where the others' errors were found to be large:
nothing after those averages theirs.
"""


def source_named(name: str) -> TacticSource:
    """The source of this name, COMPOSED, HOST and VIEW included. Raises PlanError."""
    for listed in (*SOURCES, *_INNER):
        if listed.name == name:
            return listed.source()
    raise PlanError(
        f"no tactic source is named '{name}'", remedy=f"known: {[s.name for s in SOURCES]}"
    )


def settle() -> None:
    """Let the sources in use give back the memory that only preparing needed."""
    for listed in (s for s in SOURCES if f"{__name__}.{s.module}" in sys.modules):
        source = listed.source()
        if isinstance(source, Settles):
            source.settle()


def sources_for(device_kind: str) -> tuple[TacticSource, ...]:
    """The sources that run on this kind of device (``cpu``, ``gpu``), in order."""
    return tuple(s.source() for s in SOURCES if s.device_kind == device_kind)
