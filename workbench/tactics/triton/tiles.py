"""Tiles of a product, ranked by a simple model of waves, occupancy and memory traffic.

The model only decides the order in which tactics are timed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from workbench.datatypes import DataType

OFFERED = 16
"""Tiles that are offered for one product."""
SIZES = 9
"""Of these, so many that differ in size, warps or split."""
ALIKE = 3
"""And so many of one size, in depth or stages."""

ROUNDED = "tf32"
"""How floats are multiplied whose factors are rounded to TF32."""

_SHAPES = (
    (128, 256, 8),
    (256, 128, 8),
    (128, 128, 8),
    (128, 128, 4),
    (256, 64, 4),
    (64, 256, 4),
    (128, 64, 4),
    (64, 128, 4),
    (64, 64, 4),
    (128, 32, 4),
    (256, 32, 4),
    (64, 32, 4),
    (128, 16, 4),
    (32, 128, 4),
    (32, 64, 4),
    (32, 32, 2),
    (16, 128, 4),
    (16, 64, 4),
    (16, 32, 2),
)
"""Rows, columns, warps."""
_SPLITS = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Chip:
    """What the model knows of a compute capability. rates: TFLOP/s that a good kernel reaches."""

    processors: int
    shared: int
    bandwidth: float
    cache_bandwidth: float
    rates: dict[str, float]


_AMPERE = {"half": 250.0, "byte": 480.0, "tf32x3": 40.0, "tf32": 120.0, "ieee": 14.0}
_ADA = {"half": 150.0, "byte": 280.0, "tf32x3": 25.0, "tf32": 70.0, "ieee": 30.0}
_HOPPER = {"half": 925.0, "byte": 1570.0, "tf32x3": 100.0, "tf32": 330.0, "ieee": 40.0}
CHIPS = {
    80: Chip(108, 163 << 10, 1.8, 4.0, _AMPERE),
    86: Chip(84, 99 << 10, 0.8, 2.5, _ADA),
    89: Chip(128, 99 << 10, 0.9, 4.0, _ADA),
    90: Chip(132, 227 << 10, 2.3, 9.4, _HOPPER),
}
"""By compute capability, times ten; bandwidths in TB/s. Shared memory is what a block may have
(CUDA C++ Programming Guide, technical specifications)."""


STEP_US, WAVE_US, FINISH_US = 2.06, 0.01, 0.98
"""Latency of a step whose data was not fetched ahead; of starting a wave; of finishing a tile of
128 by 128. These, Hopper's row and the shares of ``_efficiency`` are fitted to the order of 900
timings on an H200: convolutions of ResNet-50 at batch 32 and products of BERT, FP16, INT8, FP8."""


def chip_of(capability: int) -> Chip:
    """The newest known chip that is not newer than this compute capability."""
    return CHIPS[max((c for c in CHIPS if c <= capability), default=80)]


@dataclass(frozen=True)
class Work:
    """A product as the model sees it.

    depth: terms of a sum in one block, which is a multiple of ``block`` deep: of K itself, or of
    the channels under one tap of a window (``taps`` blocks follow each other). batches: products
    side by side. moved: bytes that must cross the memory's border.
    """

    rows: int
    columns: int
    depth: int
    taps: int
    batches: int
    kind: DataType
    moved: int


@dataclass(frozen=True)
class Tile:
    """What one program computes, and how: Triton's block sizes, warps and pipeline stages.

    split: programs that share a sum, which a second kernel adds up in order. multiply: how floats
    are multiplied (Triton's input_precision), empty for other types.
    """

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int
    split: int = 1
    multiply: str = ""

    @property
    def parameters(self) -> tuple[tuple[str, Any], ...]:
        """As a Tactic's parameters."""
        return tuple((k, v) for k, v in self.__dict__.items())

    @property
    def title(self) -> str:
        split = f" split {self.split}" if self.split > 1 else ""
        multiply = f" {self.multiply}" if self.multiply else ""
        size = f"{self.rows}x{self.columns}x{self.depth}"
        return f"{size} w{self.warps} s{self.stages}{split}{multiply}"


def tile_of(parameters: Sequence[tuple[str, Any]]) -> Tile:
    """The tile that a Tactic's parameters name."""
    known = dict(parameters)
    return Tile(**{k: known[k] for k in Tile.__dataclass_fields__})


def tiles(work: Work, capability: int, *, multiply: Sequence[str] = ("",)) -> tuple[Tile, ...]:
    """Tiles worth timing, best guess first."""
    chip = chip_of(capability)
    able = [
        Tile(*shape[:2], depth, shape[2], stages, split, how)
        for how in multiply
        for shape in _SHAPES
        for depth in _depths(work)
        for stages in (2, 3, 4, 5)
        for split in _SPLITS
    ]
    able = [t for t in able if _fits(t, work, chip)]
    ranked = sorted(
        able,
        key=lambda t: (round(estimate_us(t, work, chip), 2), -t.depth, abs(t.stages - 4), t.title),
    )
    # The best of each size before the second best of any: what fails or misleads does so by size.
    rank: dict[tuple[int, ...], int] = {}
    rounds: list[list[Tile]] = [[] for _ in range(ALIKE)]
    for t in ranked:
        key = (t.rows, t.columns, t.warps, t.split)
        place = rank[key] = rank.get(key, -1) + 1
        if place < ALIKE:
            rounds[place].append(t)
    first = rounds[0][:SIZES]
    kept = {(t.rows, t.columns, t.warps, t.split) for t in first}
    rest = [t for r in rounds[1:] for t in r if (t.rows, t.columns, t.warps, t.split) in kept]
    return tuple([*first, *rest][:OFFERED])


def _depths(work: Work) -> tuple[int, ...]:
    """Block depths: 128 bytes of a row; half as much where that pads less; more for few rows."""
    most = 128 // work.kind.itemsize
    least = 32 if work.kind.itemsize == 1 else 16
    held = max(least, _power(work.depth))
    sizes = {min(most, held)}
    half = max(least, min(most, held) // 2)
    if -(-work.depth // half) * half < -(-work.depth // min(most, held)) * min(most, held):
        sizes.add(half)
    if work.rows <= 64:
        sizes.add(min(2 * most, held))
    return tuple(sorted(sizes, reverse=True))


def _power(value: int) -> int:
    """The least power of two that is not less."""
    return 1 << max(0, value - 1).bit_length()


def shared_bytes(tile: Tile, kind: DataType) -> int:
    """What the pipeline's stages hold."""
    return tile.stages * (tile.rows + tile.columns) * tile.depth * kind.itemsize


def _steps(tile: Tile, work: Work) -> int:
    return work.taps * -(-work.depth // tile.depth)


def _fits(tile: Tile, work: Work, chip: Chip) -> bool:
    steps = _steps(tile, work)
    return (
        shared_bytes(tile, work.kind) <= chip.shared
        and tile.columns <= max(32, _power(work.columns))
        and tile.rows <= max(16, _power(work.rows))
        and (tile.stages == 2 or tile.stages <= max(2, steps))
        and (tile.split == 1 or _worth_splitting(tile, work, chip, steps))
    )


def _worth_splitting(tile: Tile, work: Work, chip: Chip, steps: int) -> bool:
    if work.batches > 1 or steps < 4 * tile.split:
        return False
    return _programs(tile, work) <= 2 * chip.processors and steps % tile.split == 0


def _programs(tile: Tile, work: Work) -> int:
    across = -(-work.rows // tile.rows) * -(-work.columns // tile.columns)
    return across * work.batches * tile.split


def estimate_us(tile: Tile, work: Work, chip: Chip) -> float:
    """Microseconds, roughly."""
    programs, steps = _programs(tile, work), _steps(tile, work) / tile.split
    registers = 32 * tile.warps * (64 + 1.1 * tile.rows * tile.columns / (32 * tile.warps))
    resident = min(
        (chip.shared + 1024) // (shared_bytes(tile, work.kind) + 1024),
        64 // tile.warps,
        int(65536 / registers),
    )
    resident = max(1, resident)
    rate = chip.rates[_rate(tile, work)] * 1e6 / chip.processors * _efficiency(tile)
    busy = 2 * tile.rows * tile.columns * tile.depth * steps / rate
    waves = -(-programs // (chip.processors * resident))
    rounds = -(-programs // chip.processors)
    latency = steps * STEP_US / max(1, tile.stages - 1)
    arithmetic = max(rounds * busy, waves * max(latency, busy))
    read = programs * steps * (tile.rows + tile.columns) * tile.depth * work.kind.itemsize
    cached = read / (chip.cache_bandwidth * 1e6)
    memory = work.moved / (chip.bandwidth * 1e6)
    finish = rounds * FINISH_US * tile.rows * tile.columns / 128**2
    if tile.warps == 8:
        finish *= 1.34
    overhead = 4.8 + waves * WAVE_US + finish
    if tile.split > 1:
        sums = 4 * work.rows * work.columns * (tile.split + 1)
        overhead += 2.5 + 2 * sums / (chip.bandwidth * 1e6)
    return max(arithmetic, cached, memory) + overhead


def _rate(tile: Tile, work: Work) -> str:
    if work.kind is DataType.FLOAT:
        return tile.multiply or "ieee"
    return "byte" if work.kind.itemsize == 1 else "half"


def _efficiency(tile: Tile) -> float:
    """Share of the matrix units' rate: they read both factors from shared memory."""
    reuse = tile.rows * tile.columns / (tile.rows + tile.columns)
    share = min(1.0, (reuse + 87) / 131)
    if tile.warps == 8:
        share *= 0.51 if tile.rows == tile.columns else 0.61
    return share * (1.0 if tile.rows >= 64 else 0.74)
