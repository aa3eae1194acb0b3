"""Native launches: joined in order, on arrays as the dispatcher has them, failures by name."""

from __future__ import annotations

import ctypes
import itertools
import subprocess
import sys

import numpy as np
import pytest

from workbench.errors import ExecutionError
from workbench.tactics.native import (
    InOrder,
    Native,
    address_of,
    at_once,
    copy,
    flat,
    function_call,
    in_order,
    nothing,
)
from workbench.tactics.native_loop import mapped
from workbench.tactics.numba.cache import KernelCache, KernelText
from workbench.tactics.numba.entry import machine_call
from workbench.tactics.onednn.library import Library, load

ROWS = """
def kernel(start, stop, g, a, o):
    for i in range(start, stop):
        o[i] = a[i] * 2 + g[0]
"""
SIGNATURE = "void(int64, int64, int64[::1], float32[::1], float32[::1])"
LIBC = ctypes.CDLL(None)


def call(number: int, name: str = "libc's abs") -> Native:
    """A C function whose status is ``number``'s magnitude."""
    return function_call(
        address_of(LIBC.abs),
        (number,),
        name,
        None,
        words_of=lambda status: f"status {status}",
    )


def doubled(count: int, *ranges: tuple[int, int]) -> tuple[list[Native], np.ndarray]:
    kernel = KernelCache(None).compile(KernelText(ROWS, SIGNATURE))
    x, y, g = np.arange(count, dtype=np.float32), np.zeros(count, np.float32), np.array([7])
    found = [machine_call(kernel, (a, b, g, x, y)) for a, b in ranges]
    return [f for f in found if f is not None], y


def test_neighbours_become_one_call_and_python_between_them_splits_it():
    seen = []
    one = flat([call(0), InOrder([call(0), nothing]), call(0)])
    assert len(one) == 1
    two = flat([call(0), lambda: seen.append(1), call(0), nothing])
    assert [isinstance(t, Native) for t in two] == [True, False, True]
    in_order(two)()
    assert seen == [1]
    assert in_order([nothing]) is nothing


def test_copies_run_in_order_and_follow_their_words():
    a, b, c = np.arange(4.0), np.zeros(4), np.zeros(4)
    first, _ = copy(b.ctypes.data, a.ctypes.data, a.nbytes)
    second, words = copy(0, b.ctypes.data, a.nbytes)
    run = in_order([first, second])
    words[0] = c.ctypes.data
    run()
    np.testing.assert_array_equal(c, a)


def test_a_failure_is_named_and_what_follows_does_not_run_and_it_can_run_again():
    a, b = np.ones(1), np.zeros(1)
    run = in_order([call(0), call(3, "the second"), copy(b.ctypes.data, a.ctypes.data, 8)[0]])
    for _ in range(2):
        with pytest.raises(ExecutionError, match="the second: status 3"):
            run()
    assert b[0] == 0


def test_a_compiled_kernel_runs_at_its_machine_code():
    (launch,), y = doubled(100, (0, 100))
    launch()
    np.testing.assert_array_equal(y, np.arange(100) * 2 + 7)


def test_a_kernel_that_returns_a_value_is_left_to_the_dispatcher():
    text = KernelText("def kernel(a):\n    return a\n", "int64(int64)")
    assert machine_call(KernelCache(None).compile(text), (3,)) is None


def test_a_kernel_that_fails_is_an_error():
    code = "def kernel(a):\n    if a[0] > 0:\n        raise ValueError\n"
    kernel = KernelCache(None).compile(KernelText(code, "void(int64[::1])"))
    launch = machine_call(kernel, (np.array([1]),))
    assert launch is not None
    with pytest.raises(ExecutionError, match="numba kernel: it returned status"):
        launch()


@pytest.mark.parametrize("count", [2, 3, 7])
def test_pieces_run_on_one_openmp_team_whatever_its_size(count):
    library = load()
    if not isinstance(library, Library):
        assert str(library)  # no oneDNN, no OpenMP: pieces then run in a pool
        return
    edges = np.linspace(0, 1000, count + 1).astype(int).tolist()
    parts, y = doubled(1000, *itertools.pairwise(edges))
    team = at_once(parts, library.openmp)
    assert team is not None
    team()
    np.testing.assert_array_equal(y, np.arange(1000) * 2 + 7)
    assert at_once([parts[0], call(0)], library.openmp) is None
    assert at_once([call(0), call(0)], library.openmp) is None


# -- the loop -----------------------------------------------------------------------------
PROGRAM = """
import sys
from workbench.tactics.native_loop import loop
assert loop()(0, 0) == 0
print("llvmlite" in sys.modules)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="code is mapped from a file on Linux only")
def test_a_second_process_maps_the_loop_and_loads_no_compiler():
    ran = [
        subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert ran[1].stdout.strip() == "False"


@pytest.mark.skipif(sys.platform != "linux", reason="code is mapped from a file on Linux only")
def test_a_damaged_file_and_a_folder_that_cannot_be_made_are_not_run(tmp_path):
    assert mapped(tmp_path) is not None
    (kept,) = tmp_path.iterdir()
    data = kept.read_bytes()
    kept.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert mapped(tmp_path) is None
    (tmp_path / "file").write_text("")
    assert mapped(tmp_path / "file") is None
