"""Tactic sources, in order: where two tactics are not distinguishable by time, the first wins."""

from __future__ import annotations

from workbench.errors import PlanError
from workbench.tactics.composed import COMPOSED
from workbench.tactics.cublas_lt import CUBLAS_LT
from workbench.tactics.cudnn import CUDNN
from workbench.tactics.host import HOST
from workbench.tactics.numba import NUMBA
from workbench.tactics.numpy_source import NUMPY
from workbench.tactics.nvrtc import NVRTC
from workbench.tactics.onednn.source import ONEDNN
from workbench.tactics.protocol import TacticSource
from workbench.tactics.triton import TRITON
from workbench.tactics.view import VIEW

SOURCES: tuple[TacticSource, ...] = (ONEDNN, NUMBA, NUMPY, CUDNN, CUBLAS_LT, TRITON, NVRTC)

COMPILED_FOR_LONG_LAYERS = frozenset({NUMBA.name})
"""Sources that compile, for a second or more, only what others run for long.

Not those that are ``slow``: a GPU's layers take 5 to 50 µs, and their kernels compile in parallel.
"""


def source_named(name: str) -> TacticSource:
    """The source of this name, COMPOSED, HOST and VIEW included. Raises PlanError."""
    for s in (*SOURCES, COMPOSED, HOST, VIEW):
        if s.name == name:
            return s
    raise PlanError(
        f"no tactic source is named '{name}'", remedy=f"known: {[s.name for s in SOURCES]}"
    )


def sources_for(device_kind: str) -> tuple[TacticSource, ...]:
    """The sources that run on this kind of device (``cpu``, ``gpu``), in order."""
    return tuple(s for s in SOURCES if s.device_kind == device_kind)
