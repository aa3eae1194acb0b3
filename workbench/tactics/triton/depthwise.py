"""Depthwise convolutions: each channel by itself, NHWC, bound by memory.

A program computes some rows and positions of the output for some channels; the taps are written
out. A line of the image that several rows of the output read is loaded once for them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from workbench.body import Array
from workbench.formats import Format
from workbench.operators.windows import Window
from workbench.tactics.product import Product, windows
from workbench.tactics.scalar_text import Untranslatable
from workbench.tactics.triton.epilogue import Packs, finish
from workbench.tactics.triton.frame import Frame, Group
from workbench.tactics.triton.kernel import Arguments, Pack, Program
from workbench.tactics.triton.values import Values

MOST_TAPS = 64
"""Taps that are written out."""
KEPT_TAPS = 9
"""Taps whose weights stay in registers, so that lines of the image can be shared by rows."""
OFFERED = 16


@dataclass(frozen=True)
class Strip:
    """What one program computes: rows, positions of each, channels; by how many warps."""

    rows: int
    positions: int
    channels: int
    warps: int

    @property
    def parameters(self) -> tuple[tuple[str, int], ...]:
        """As a Tactic's parameters."""
        return tuple((k, v) for k, v in self.__dict__.items())

    @property
    def title(self) -> str:
        return f"{self.rows}x{self.positions}x{self.channels} w{self.warps}"


def strip_of(parameters: Sequence[tuple[str, Any]]) -> Strip:
    """The strip that a Tactic's parameters name."""
    known = dict(parameters)
    return Strip(**{k: known[k] for k in Strip.__dataclass_fields__})


def is_depthwise(product: Product) -> bool:
    """Whether every output channel reads one input channel, by a constant kernel."""
    if product.anchor.op != "Conv" or not product.right.constant:
        return False
    return product.body.types[product.right.value].shape[1] == 1


def strips(product: Product) -> tuple[Strip, ...]:
    """Strips worth timing, best guess first."""
    window = windows(product)
    held = 1 << max(4, (product.out[1] - 1).bit_length())
    high, wide = int(window.output[0]), int(window.output[1])
    able: list[Strip] = []
    for rows, positions, channels, warps in itertools.product(
        (1, 2, 4), (1, 2, 4, 8, 16, 32, 64), (16, 32, 64, 128, 256), (1, 2, 4, 8)
    ):
        each = positions * channels / (32 * warps)
        large = channels > held or positions >= 2 * wide or rows >= 2 * high
        if not 2 <= each <= 16 or each * rows > 32 or large:
            continue
        if rows == 1 or prod(window.kernel) <= KEPT_TAPS:
            able.append(Strip(rows, positions, channels, warps))
    able.sort(key=lambda s: (_cost(product, window, s), s.title))
    return tuple(able[:OFFERED])


def _cost(product: Product, window: Window, strip: Strip) -> float:
    """Something that grows with the time: what is read for an output, and what is idle.

    Fitted to the order of 240 timings on an H200: MobileNetV2's layers at batch 32 in FP16.
    """
    sizes = (int(window.output[0]), int(window.output[1]), product.out[1])
    whole, programs = 1.0, product.out[0]
    for size, step in zip(sizes, (strip.rows, strip.positions, strip.channels), strict=True):
        whole *= -(-size // step) * step / size
        programs *= -(-size // step)
    read = ((strip.rows - 1) * window.strides[0] + window.extent[0]) / strip.rows
    each = strip.positions * strip.channels / (32 * strip.warps)
    full = min(1.0, programs * strip.warps / (132 * 31))
    short = 1.0 if strip.channels * product.kind.itemsize >= 64 else 1.48
    uneven = 1 + 0.086 * abs(math.log2(each / 5)) + 0.081 * abs(math.log2(strip.warps / 3.4))
    return whole**0.88 * short * uneven * (read + 0.64) / max(full, 0.05)


def depthwise_program(product: Product, strip: Strip, layouts: Mapping[str, Format]) -> Program:
    """The kernel of a depthwise convolution. Raises Untranslatable."""
    return _Writer(product, strip, layouts).program()


class _Writer:
    def __init__(self, product: Product, strip: Strip, layouts: Mapping[str, Format]) -> None:
        self.product, self.strip, self.layouts = product, strip, layouts
        self.window = windows(product)
        self.arguments = Arguments(product.body)
        self.taps = prod(self.window.kernel)
        if self.taps > MOST_TAPS:
            raise Untranslatable(f"a depthwise convolution of {self.taps} taps")
        self.high, self.wide = int(self.window.output[0]), int(self.window.output[1])
        self.filters = product.out[1]
        self.across = -(-self.wide // strip.positions)
        self.down = -(-self.high // strip.rows)
        self.blocks = -(-self.filters // strip.channels)
        self.inside = f"(rn < {self.filters})[None, :]" if self.filters % strip.channels else ""
        self.working = "tl.int32" if product.exact else "tl.float32"

    def program(self) -> Program:
        s = self.strip
        blocks, across, down = self.blocks, self.across, self.down
        lines = [
            "pid = tl.program_id(0)",
            f"rn = pid % {blocks} * {s.channels} + tl.arange(0, {s.channels})",
            f"oq = pid // {blocks} % {across} * {s.positions} + tl.arange(0, {s.positions})",
            f"op = pid // {blocks * across} % {down} * {s.rows}",
            f"on = pid // {blocks * across * down}",
        ]
        zeros = f"tl.zeros(({s.positions}, {s.channels}), {self.working})"
        lines += [f"acc{o} = {zeros}" for o in range(s.rows)]
        lines += self._sums()
        packs: Packs = {"weights": self._packed()}
        for o in range(s.rows):
            lines.append(f"acc = acc{o}")
            frame = self._frame(o)
            lines += finish(self.product, self.arguments, frame, self.layouts, 1, packs)
        grid = (self.product.out[0] * down * across * blocks, 1, 1)
        kernel = self.arguments.kernel(lines, grid, warps=s.warps, stages=1)
        return Program(f"depthwise {s.title}", (kernel,), packs)

    def _sums(self) -> list[str]:
        """Statements that read each line of the image once and add it to the rows that it meets."""
        window, rows = self.window, self.strip.rows
        kept = self.taps <= KEPT_TAPS
        lines = [self._weight(tap) for tap in range(self.taps) if kept]
        for line in range((rows - 1) * window.strides[0] + window.extent[0]):
            meets = [
                (o, r)
                for o in range(rows)
                for r in range(window.kernel[0])
                if o * window.strides[0] + r * window.dilations[0] == line
            ]
            for s in range(window.kernel[1] if meets else 0):
                lines += self._read(line, s)
                for o, r in meets:
                    tap = r * window.kernel[1] + s
                    if not kept:
                        lines.append(self._weight(tap))
                    lines.append(f"acc{o} += a * b{tap}")
        return lines

    def _weight(self, tap: int) -> str:
        pointer = self.arguments.packed("weights", self.product.kind)
        at = f"{tap * self.blocks * self.strip.channels} + rn"
        return f"b{tap} = tl.load({pointer} + ({at}))[None, :].to({self.working})"

    def _read(self, line: int, s: int) -> list[str]:
        """Statements that set ``a``: a line of the image under one column of taps."""
        window, body = self.window, self.product.body
        value = self.product.left.value
        shape = body.types[value].shape
        sizes = (shape[2], shape[3]) if len(shape) == 4 else (1, shape[2])
        h = f"(op * {window.strides[0]} + {line - int(window.begin[0])})"
        w = f"(oq * {window.strides[1]} + {s * window.dilations[1] - int(window.begin[1])})"
        mask = f"(({h} >= 0) & ({h} < {sizes[0]}) & ({w} >= 0) & ({w} < {sizes[1]}))[:, None]"
        if self.inside:
            mask = f"{mask} & {self.inside}"
        multiplier = self.filters // shape[1]
        channel = f"(rn // {multiplier})[None, :]" if multiplier > 1 else "rn[None, :]"
        space = [Group((2,), h, mask), Group((3,), f"{w}[:, None]", mask)]
        if len(shape) == 3:
            space = [Group((2,), f"{w}[:, None]", mask)]
        frame = Frame(shape, (Group((0,), "on", mask), *space, Group((1,), channel, mask)))
        values = Values(body, self.arguments, frame, self.layouts, prefix=f"t{line}_{s}_")
        text = values.at(value)
        if value not in {i.name for i in body.inputs}:
            # What pads the image must be zero after the prologue, not before it.
            text = f"tl.where({mask}, {text}, 0)"
        return [*values.lines, f"a = {text}"]

    def _frame(self, row: int) -> Frame:
        """The output's tile of one row."""
        s, out = self.strip, self.product.out
        low = f"(op + {row} < {self.high})" if self.high % s.rows else ""
        beside = f"(oq < {self.wide})[:, None]" if self.wide % s.positions else ""
        space = [Group((2,), f"(op + {row})", low), Group((3,), "oq[:, None]", beside)]
        if len(out) == 3:
            space = [Group((2,), "oq[:, None]", beside)]
        return Frame(out, (Group((0,), "on"), *space, Group((1,), "rn[None, :]", self.inside)))

    def _packed(self) -> Pack:
        """Weights as [taps, channels], padded with zeros."""
        wide, taps = self.blocks * self.strip.channels, self.taps

        def arrange(array: Array) -> Array:
            packed = np.zeros((taps, wide), array.dtype)
            packed[:, : array.shape[0]] = array.reshape(array.shape[0], taps).T
            return packed

        return Pack(self.product.right.value, f"depthwise {(taps, wide)}", arrange)
