"""Rows in whole vector registers: what a softmax's row is computed by, against float64."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from workbench.tactics.numba import vector_rows

LANES = (16, 8)
UNIT = 2.0**-24


@pytest.mark.parametrize("lanes", LANES)
def test_exp_of_a_row_and_its_sum_are_as_exact_as_the_other_kernels(lanes: int) -> None:
    row = getattr(vector_rows, f"exp_row_{lanes}")
    run = njit("float32(int64, int64, float32)")(lambda a, n, top: row(a, n, top))
    x = -np.random.default_rng(0).uniform(0, 79, 4096).astype(np.float32)
    x[7] = 0
    exact = np.exp(x.astype(np.float64))
    total = run(x.ctypes.data, len(x) // lanes, np.float32(0))
    assert np.max(np.abs(x - exact) / exact) < 2 * UNIT
    assert abs(total - exact.sum()) < 1e-4 * exact.sum()


@pytest.mark.parametrize("lanes", LANES)
def test_what_is_far_below_the_largest_is_nearly_nothing_and_nan_stays(lanes: int) -> None:
    row = getattr(vector_rows, f"exp_row_{lanes}")
    run = njit("float32(int64, int64, float32)")(lambda a, n, top: row(a, n, top))
    x = np.full(lanes, -1e30, np.float32)
    x[1], x[2] = -np.inf, 5
    run(x.ctypes.data, 1, np.float32(5))
    assert x[2] == 1
    assert np.all(np.delete(x, 2) < 1e-34)
    x[3] = np.nan
    assert np.isnan(run(x.ctypes.data, 1, np.float32(1)))
    assert np.isnan(x[3])


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("high", [127, 255])
def test_a_row_is_rounded_to_even_and_clipped(lanes: int, high: int) -> None:
    row = getattr(vector_rows, f"round_row_{lanes}")
    run = njit("void(int64, int64, int64, float32, float32)")(
        lambda a, b, n, factor, limit: row(a, b, n, factor, limit)
    )
    x = np.linspace(0, 1.5, 64, dtype=np.float32)
    x[:6] = 0.5 / 128, 1.5 / 128, 2.5 / 128, np.nan, np.inf, 1e30
    found = np.zeros(64, np.uint8)
    run(x.ctypes.data, found.ctypes.data, 64 // lanes, np.float32(128), np.float32(high))
    expected = np.nan_to_num(np.minimum(np.rint(x * np.float32(128)), high), nan=0)
    np.testing.assert_array_equal(found, expected.astype(np.uint8))
    assert [*found[:6]] == [0, 2, 2, 0, high, high]


@pytest.mark.parametrize("lanes", LANES)
def test_a_softmax_of_integers_takes_them_as_they_are(lanes: int) -> None:
    top_of = getattr(vector_rows, f"integers_top_{lanes}")
    exps = getattr(vector_rows, f"exp_integers_{lanes}")
    run = njit("float32(int64, int64, float32)")(
        lambda a, n, factor: exps(a, n, top_of(a, n), factor)
    )
    x = np.random.default_rng(0).integers(-(1 << 20), 1 << 20, 64, np.int32)
    x[:3] = 1 << 20, -(1 << 30), (1 << 20) - 1
    factor = np.float32(2.0**-16)
    exact = np.exp((x.astype(np.float64) - (1 << 20)) * factor)
    total = run(x.ctypes.data, len(x) // lanes, factor)
    found = x.view(np.float32)
    assert found[0] == 1 and found[1] < 1e-34
    np.testing.assert_allclose(np.delete(found, 1), np.delete(exact, 1), rtol=2e-6)
    assert abs(total - exact.sum()) < 1e-5 * exact.sum()
