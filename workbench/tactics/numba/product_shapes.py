"""Which tiles of a product there are, and which one suits a matrix; loads no compiler."""

from __future__ import annotations

from dataclasses import dataclass

UNROLLED = 2
"""Words of 4 bytes that one turn of a tile's loop multiplies: the code of 4 is decoded anew."""
GROUP = 4 * UNROLLED
"""Bytes of a row that one turn of a tile's loop reads."""
SUMMED = 128
"""Products of float32 that are summed at once, at most: sums of such sums have a smaller error than
one long chain, and 48 columns of so many rows of weights take 24 KB of a first-level cache of 32.
"""

SUMMED_OF_PATCHES = 64
"""The same where rows are patches, which are copied: beside that, more sums cost little."""
DEPTH_OF_PATCHES = 256
"""Products up to which that pays: of 147, 0.84 of the error for 1% of the time; of 4608, 0.89 for
5%."""
SUMMED_OF_FEW = 16
"""The same, at least, where there are few products in all: half the error, for 0.1 µs."""
FEW = 1 << 20
"""Products in all below which there are few: they take up to 20 µs."""
CHAIN = 8
"""Turns that a tile of one row sums at once: it waits for its weights, and has free registers."""


@dataclass(frozen=True)
class ProductTile:
    """Sums of ``rows`` by ``columns`` in registers of ``lanes`` words."""

    rows: int
    vectors: int
    lanes: int

    @property
    def name(self) -> str:
        return f"{self.rows}x{self.columns}"

    @property
    def columns(self) -> int:
        return self.vectors * self.lanes

    @property
    def cycles(self) -> float:
        """Of one word of each row: two products, two reads and four instructions a cycle."""
        products = self.rows * self.vectors
        reads = self.rows + self.vectors
        return max(products / 2, reads / 2, (products + reads + 1) / 4)


TILES = (
    *(ProductTile(r, 3, 16) for r in range(4, 10)),
    *(ProductTile(r, 4, 16) for r in range(4, 7)),
    *(ProductTile(r, v, 16) for r, v in ((6, 2), (8, 2), (8, 1))),
    *(ProductTile(r, v, 16) for r, v in ((1, 8), (2, 8), (3, 6))),
    *(ProductTile(r, 2, 8) for r in range(4, 7)),
    *(ProductTile(r, v, 8) for r, v in ((1, 6), (2, 4), (3, 3))),
)
"""As many as registers hold: 32 of 16 lanes, 16 of 8. Few rows need many columns: a sum waits for
the product before. Few columns are multiplied by narrow tiles: 64 by 64 by 10 takes 8 by 16 at once
1.5 µs, 8 by 48 take 2.5."""

STORED = 60
"""Cycles that a tile costs beside its products."""


def suitable_tile(rows: int, columns: int, turns: int, lanes: int) -> ProductTile:
    """The tile by which a product takes the fewest cycles; parts of tiles cost as whole ones.

    turns: of a tile's loop, that a whole sum takes.
    """

    def cycles(t: ProductTile) -> float:
        each = turns * UNROLLED * t.cycles + STORED
        return -(-rows // t.rows) * -(-columns // t.columns) * each

    return min((t for t in TILES if t.lanes == lanes), key=cycles)
