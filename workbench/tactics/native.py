"""Launches that are machine code alone, and the one call that runs many of them in order.

A Native knows C functions and their arguments. ``in_order`` joins neighbours, so that a run of
layers costs Python one call, during which the interpreter's lock is free.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from workbench.errors import ExecutionError
from workbench.tactics.native_loop import (
    ARGUMENTS,
    ARITIES,
    CHECKED,
    FUNCTION,
    IGNORED,
    KIND,
    PARALLEL,
    PIECES,
    ROW,
    STATUS,
    STRIDE,
    TEAM,
    THREAD,
    loop,
)
from workbench.tactics.protocol import Launch

MOST_WORDS = ARITIES[-1] - 2
"""Arguments of a compiled kernel that ``piece`` passes."""

Words = npt.NDArray[np.int64]


def nothing() -> None:
    """The launch of a layer without work."""


@dataclass(frozen=True)
class OpenMp:
    """Addresses of GOMP_parallel, omp_get_thread_num and omp_get_num_threads of one runtime."""

    parallel: int
    thread: int
    team: int


class Native:
    """Rows of words, called in order. A Launch; for one thread at a time.

    names: of each row, for errors. kept: what the rows' addresses belong to.
    """

    def __init__(
        self,
        rows: Words,
        names: Sequence[tuple[str, Callable[[int], str]]],
        kept: Sequence[object],
    ) -> None:
        self.rows = np.ascontiguousarray(rows)
        self.names, self.kept = tuple(names), tuple(kept)
        self._run = functools.partial(loop(), self.rows.ctypes.data, len(rows))

    def __call__(self) -> None:
        failed = self._run()
        if failed:
            status = int(self.rows[failed - 1, STATUS])
            self.rows[failed - 1, STATUS] = 0
            name, text = self.names[failed - 1]
            raise ExecutionError(text(status), place=name)


def function_call(
    function: int,
    arguments: Sequence[int],
    name: str,
    kept: object,
    *,
    words_of: Callable[[int], str],
) -> Native:
    """A C function of up to four integers or addresses that returns 0, or a status."""
    words = _four(arguments)
    return Native(_row(CHECKED, function, words), [(name, words_of)], [kept, words])


def procedure(function: int, arguments: Sequence[int], name: str) -> tuple[Native, Words]:
    """A C function of up to four integers or addresses that cannot fail.

    Its words, the arguments, may be changed between runs.
    """
    words = _four(arguments)
    return Native(_row(IGNORED, function, words), [(name, _status)], [words]), words


def on_team(
    function: int, each: Sequence[Sequence[int]], name: str, openmp: OpenMp
) -> tuple[Native, Words]:
    """A C function as ``procedure``'s, once on each thread of a team; and each thread's words."""
    words = np.stack([_four(arguments) for arguments in each])
    row = _row(IGNORED, function, words)
    row[0, [PIECES, STRIDE]] = len(words), words.strides[0]
    row[0, [PARALLEL, THREAD, TEAM]] = openmp.parallel, openmp.thread, openmp.team
    return Native(row, [(name, _status)], [words]), words


def copy(target: int, source: int, nbytes: int) -> tuple[Native, Words]:
    """A copy of bytes, and its words: target, source, size."""
    return procedure(address_of(ctypes.memmove), (target, source, nbytes), "memmove")


def address_of(function: Any) -> int:
    """Where a C function lies that ctypes has loaded."""
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address is not None
    return address


def piece(function: int, arguments: Sequence[int], name: str, kept: object) -> Native | None:
    """A call with more than four words, numba's results first: a value's and an error's place.

    None where it has more than we pass.
    """
    wanted = len(arguments) + 2
    arity = next((n for n in ARITIES if n >= wanted), None)
    if arity is None:
        return None
    words = np.zeros(arity + 2, np.int64)
    words[0] = words.ctypes.data + 8 * arity
    words[1] = words[0] + 8
    words[2:wanted] = arguments
    return Native(_row(arity, function, words), [(name, _status)], [kept, words])


def at_once(pieces: Sequence[Native], openmp: OpenMp) -> Native | None:
    """Pieces of one kernel by as many threads; None where they are not of one compiled kernel."""
    rows = [p.rows[0] for p in pieces]
    arity = int(rows[0][KIND])
    same = len({(int(r[KIND]), int(r[FUNCTION])) for r in rows}) == 1
    if arity not in ARITIES or not same:
        return None
    if any(len(p.rows) != 1 or p.rows[0, PIECES] != 1 for p in pieces):
        return None
    words = np.stack([np.asarray(p.kept[-1], np.int64) for p in pieces])
    words[:, 0] = words.ctypes.data + words.strides[0] * np.arange(len(rows)) + 8 * arity
    words[:, 1] = words[:, 0] + 8
    row = rows[0].copy()
    row[[PIECES, ARGUMENTS, STRIDE]] = len(rows), words.ctypes.data, words.strides[0]
    row[[PARALLEL, THREAD, TEAM]] = openmp.parallel, openmp.thread, openmp.team
    return Native(row[None], pieces[0].names, [*(p.kept for p in pieces), words])


class InOrder:
    """Launches one after the other. A Launch."""

    def __init__(self, launches: Iterable[Launch]) -> None:
        self.launches = tuple(launches)

    def __call__(self) -> None:
        for launch in self.launches:
            launch()


def in_order(launches: Iterable[Launch]) -> Launch:
    """One Launch for all: one native call where no other kind is among them."""
    joined = flat(launches)
    if not joined:
        return nothing
    return joined[0] if len(joined) == 1 else InOrder(joined)


def flat(launches: Iterable[Launch]) -> tuple[Launch, ...]:
    """The launches without nesting and those without work; native neighbours are one."""
    found: list[Launch] = []
    run: list[Native] = []

    def close() -> None:
        if run:
            found.append(_joined(run))
            run.clear()

    for launch in _leaves(launches):
        if isinstance(launch, Native):
            run.append(launch)
        else:
            close()
            found.append(launch)
    close()
    return tuple(found)


def _leaves(launches: Iterable[Launch]) -> Iterable[Launch]:
    for launch in launches:
        if isinstance(launch, InOrder):
            yield from _leaves(launch.launches)
        elif launch is not nothing:
            yield launch


def _joined(run: Sequence[Native]) -> Native:
    if len(run) == 1:
        return run[0]
    return Native(
        np.concatenate([n.rows for n in run]),
        [name for n in run for name in n.names],
        [n.kept for n in run],
    )


def _status(status: int) -> str:
    return f"it returned status {status}"


def _four(arguments: Sequence[int]) -> Words:
    words = np.zeros(CHECKED, np.int64)
    words[: len(arguments)] = arguments
    return words


def _row(kind: int, function: int, words: Words) -> Words:
    row = np.zeros((1, ROW), np.int64)
    row[0, [KIND, FUNCTION, PIECES, ARGUMENTS]] = kind, function, 1, words.ctypes.data
    return row
