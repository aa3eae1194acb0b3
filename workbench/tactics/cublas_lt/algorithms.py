"""cuBLASLt's algorithms: those that its heuristics propose, their settings, whether one fits."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from typing import Any

from workbench.devices import ALIGNMENT
from workbench.tactics.cublas_lt.descriptors import REAL_32F, Descriptors
from workbench.tactics.cublas_lt.library import INVALID_VALUE, NOT_SUPPORTED, check

MOST = 64
"""Algorithms asked for at once; the library answers with about eight."""
WORKSPACES = (4 << 20, 32 << 20, 0)
"""Workspace limits asked with, beside the problem's own: less room brings other algorithms."""

_WORKSPACE_BYTES, _REDUCTIONS, _ALIGNMENT_A, _WAVES = 1, 3, 5, 9
"""cublasLtMatmulPreferenceAttributes_t; those of B, C and D follow that of A."""

Settings = tuple[tuple[str, int], ...]

SETTINGS: tuple[tuple[str, int, Any], ...] = (
    ("algorithm", 0, ctypes.c_int32),
    ("tile", 1, ctypes.c_uint32),
    ("split_k", 2, ctypes.c_uint32),
    ("reduction", 3, ctypes.c_uint32),
    ("swizzle", 4, ctypes.c_uint32),
    ("custom", 5, ctypes.c_uint32),
    ("stages", 6, ctypes.c_uint32),
    ("inner_shape", 7, ctypes.c_uint16),
    ("cluster_shape", 8, ctypes.c_uint16),
)
"""cublasLtMatmulAlgoConfigAttributes_t: name, number, type."""


class Heuristic(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t; the algorithm is its first 64 bytes."""

    _fields_ = (
        ("algorithm", ctypes.c_uint64 * 8),
        ("workspace", ctypes.c_size_t),
        ("state", ctypes.c_int),
        ("waves", ctypes.c_float),
        ("reserved", ctypes.c_int * 4),
    )


AMPLE = 1 << 30
"""Bytes: the builder's limit unless it is set."""


def proposed(d: Descriptors, workspace_limit: int) -> tuple[Settings, ...]:
    """Every algorithm that the library proposes, its best guess first, each once.

    It answers a query with about eight. Other workspace limits, no split sums, and one wave of
    blocks bring others. Those that want more workspace than the limit come last: they will be
    refused, with what they need.
    """
    found: dict[Settings, None] = {}
    for attributes in _queries(workspace_limit):
        for r in _asked(d, attributes):
            found.setdefault(settings(d, r))
    return tuple(found)


def _queries(limit: int) -> Iterator[dict[int, Any]]:
    yield {_WORKSPACE_BYTES: ctypes.c_uint64(limit)}
    for smaller in WORKSPACES:
        if smaller < limit:
            yield {_WORKSPACE_BYTES: ctypes.c_uint64(smaller)}
    unlimited = ctypes.c_uint64(limit)
    yield {_WORKSPACE_BYTES: unlimited, _REDUCTIONS: ctypes.c_uint32(0)}
    yield {_WORKSPACE_BYTES: unlimited, _WAVES: ctypes.c_float(1.0)}
    if limit < AMPLE:
        yield {_WORKSPACE_BYTES: ctypes.c_uint64(AMPLE)}


def _asked(d: Descriptors, attributes: dict[int, Any]) -> list[Heuristic]:
    library, preference = d.library, ctypes.c_void_p()
    check(library.cublasLtMatmulPreferenceCreate(ctypes.byref(preference)), "PreferenceCreate")
    aligned = {_ALIGNMENT_A + k: ctypes.c_uint32(ALIGNMENT) for k in range(4)}
    for attribute, value in {**aligned, **attributes}.items():
        status = library.cublasLtMatmulPreferenceSetAttribute(
            preference, attribute, ctypes.byref(value), ctypes.sizeof(value)
        )
        check(status, f"PreferenceSetAttribute {attribute}")
    results, count = (Heuristic * MOST)(), ctypes.c_int(0)
    status = library.cublasLtMatmulAlgoGetHeuristic(
        d.handle, d.operation, *d.layouts, preference, MOST, results, ctypes.byref(count)
    )
    library.cublasLtMatmulPreferenceDestroy(preference)
    # A GPU without scales a channel is told as a wrong value.
    if status == NOT_SUPPORTED or (status == INVALID_VALUE and d.product.columns is not None):
        return []
    check(status, "MatmulAlgoGetHeuristic")
    return [r for r in results[: count.value] if r.state == 0]


def settings(d: Descriptors, found: Heuristic) -> Settings:
    """What tells an algorithm from others. Its 64 bytes also hold what was never written."""
    values: list[tuple[str, int]] = []
    for name, attribute, kind in SETTINGS:
        value, written = kind(), ctypes.c_size_t()
        status = d.library.cublasLtMatmulAlgoConfigGetAttribute(
            ctypes.byref(found.algorithm),
            attribute,
            ctypes.byref(value),
            ctypes.sizeof(value),
            ctypes.byref(written),
        )
        check(status, f"MatmulAlgoConfigGetAttribute {name}")
        values.append((name, int(value.value)))
    return tuple(values)


def algorithm(d: Descriptors, given: Sequence[tuple[str, int]]) -> Any:
    """The library's 64 bytes for these settings."""
    values, words = dict(given), (ctypes.c_uint64 * 8)()
    status = d.library.cublasLtMatmulAlgoInit(
        d.handle, d.compute, REAL_32F, *d.types, values[SETTINGS[0][0]], words
    )
    check(status, "MatmulAlgoInit")
    for name, attribute, type_ in SETTINGS[1:]:
        value = type_(values[name])
        status = d.library.cublasLtMatmulAlgoConfigSetAttribute(
            words, attribute, ctypes.byref(value), ctypes.sizeof(value)
        )
        check(status, f"MatmulAlgoConfigSetAttribute {name}")
    return words


def workspace_needed(d: Descriptors, words: Any) -> int | None:
    """Bytes that an algorithm needs at these sizes; None where it does not run."""
    result = Heuristic()
    status = d.library.cublasLtMatmulAlgoCheck(
        d.handle, d.operation, *d.layouts, words, ctypes.byref(result)
    )
    return None if status else int(result.workspace)


def title(given: Sequence[tuple[str, int]]) -> str:
    """``algorithm 55 tile 11 stages 31``: the settings that are not 0."""
    return " ".join(f"{name} {value}" for name, value in given if value)
