"""Hopper's products: the order of their columns, their weights, and the tiles that are offered."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from workbench.tactics.wgmma.matrices import GROUP, OWN, ordered
from workbench.tactics.wgmma.tiles import SHARED, tiles


@given(st.integers(1, 200))
def test_a_threads_sums_are_of_columns_side_by_side(groups: int):
    columns = groups * GROUP
    placed = ordered(np.arange(columns))
    assert sorted(placed.flat) == list(range(columns))
    for thread in range(4):
        # Of 8 columns of the instruction, a thread has two: twice its place among four threads.
        sums = placed[:, :, thread].reshape(groups, OWN)
        first = np.arange(groups)[:, None] * GROUP + thread * OWN
        assert (sums == first + np.arange(OWN)).all()


@given(st.integers(1, 20000), st.integers(1, 500), st.integers(1, 64))
def test_tiles_are_no_wider_than_what_is_left_and_fit_into_shared_memory(
    rows: int, eights: int, steps: int
):
    for t in (*tiles(rows, 8 * eights, steps), *tiles(rows, 8 * eights, steps, beside=True)):
        assert t.stages >= 2 and t.shared_bytes <= SHARED
        assert t.columns < 8 * eights + 32
