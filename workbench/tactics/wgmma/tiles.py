"""Tiles of a product, ranked by a model of rounds, matrix instructions and what follows them.

The model only decides which tactics are timed, and in which order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

SHARED = 227 << 10
"""Bytes of shared memory that a block may have on compute capability 9.0."""
PROCESSORS = 132
"""Multiprocessors of an H100 or H200 (SXM), for the model."""
LINE = 128
"""Bytes of a row that a stage holds: those that a tensor map swizzles."""
MOST_STAGES = 8
OFFERED = 4
MOST_SUMS = 128
"""Registers of a thread for its sums, beside which there is room to fetch a residual ahead."""
WARPGROUP_ROWS = 64
"""Rows of one wgmma."""

_SIZES = (
    *((64, n, False) for n in (32, 64, 96, 128, 192, 256)),
    *((128, n, False) for n in (64, 96, 128, 160, 192)),
    (192, 128, False),
    *((64, n, True) for n in (64, 96, 128, 192, 256)),
    *((128, n, True) for n in (128, 192)),
)
"""Rows of a warpgroup, columns, and whether two warpgroups take one tile together."""


@dataclass(frozen=True)
class Tile:
    """What a block computes at a time.

    rows: of one warpgroup. together: both warpgroups finish one tile, one below the other;
    otherwise each has its own, and one multiplies while the other finishes. stages: of 128 bytes of
    each row and column, fetched ahead.
    """

    rows: int
    columns: int
    together: bool
    stages: int

    @property
    def height(self) -> int:
        """Rows of the block's tile."""
        return self.rows * (2 if self.together else 1)

    @property
    def sums(self) -> int:
        """Of a thread."""
        return self.rows * self.columns // 128

    @property
    def stage_bytes(self) -> int:
        return (self.height + self.columns) * LINE

    @property
    def shared_bytes(self) -> int:
        """Dynamic shared memory, with what aligns it."""
        return self.stages * self.stage_bytes + 1024

    @property
    def title(self) -> str:
        how = "together" if self.together else "in turns"
        return f"{self.height}x{self.columns} {how} s{self.stages}"

    @property
    def parameters(self) -> tuple[tuple[str, Any], ...]:
        """As a Tactic's parameters."""
        return tuple((k, getattr(self, k)) for k in self.__dataclass_fields__)


def tile_of(parameters: Sequence[tuple[str, Any]]) -> Tile:
    """The tile that a Tactic's parameters name."""
    known = dict(parameters)
    return Tile(**{k: known[k] for k in Tile.__dataclass_fields__})


def tiles(rows: int, columns: int, steps: int, *, beside: bool = False) -> tuple[Tile, ...]:
    """Tiles worth timing, best guess first.

    steps: of 128 bytes in a sum. beside: whether something is read beside the sums (a residual).
    """
    found = [_staged(Tile(*size, 1), rows, columns, steps) for size in _SIZES]
    found = [t for t in found if not beside or t.sums <= MOST_SUMS]
    found = [t for t in found if t.stages >= 2 and t.columns <= -(-columns // 32) * 32]
    ranked = sorted(found, key=lambda t: (estimate(t, rows, columns, steps), t.title))
    return tuple(ranked[:OFFERED])


def _staged(tile: Tile, rows: int, columns: int, steps: int) -> Tile:
    """The tile with as many stages as there is room for, or work."""
    most = (SHARED - 2048) // tile.stage_bytes
    return replace(
        tile, stages=min(MOST_STAGES, most, max(2, _rounds(tile, rows, columns) * steps))
    )


def _rounds(tile: Tile, rows: int, columns: int) -> int:
    """Tiles that a block computes one after the other."""
    count = -(-rows // tile.height) * -(-columns // tile.columns)
    return -(-count // PROCESSORS)


def estimate(tile: Tile, rows: int, columns: int, steps: int) -> float:
    """Cycles, roughly."""
    rounds = _rounds(tile, rows, columns)
    # 2,048 multiplications a cycle, and some 45 bytes from the L2 cache.
    arithmetic = tile.height * tile.columns / 32
    fetched = tile.stage_bytes / 45
    multiplied = steps * max(arithmetic, fetched) + 300
    finished = 20 * tile.rows * tile.columns / 128
    if tile.together:
        return rounds * (multiplied + finished)
    return max(rounds * multiplied, rounds * finished / 2) + finished
