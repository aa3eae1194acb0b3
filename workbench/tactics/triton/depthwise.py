"""Depthwise convolutions: each channel by itself, NHWC, bound by memory.

A program computes some positions of one row of the output for some channels; the taps are written
out, and neighbours' reads meet in the L1 cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from workbench.body import Array
from workbench.formats import Format
from workbench.operators.windows import Window
from workbench.tactics.triton.epilogue import Packs, finish
from workbench.tactics.triton.frame import Frame, Group
from workbench.tactics.triton.kernel import Arguments, Pack, Program
from workbench.tactics.triton.product import Product, evaluated, windows
from workbench.tactics.triton.scalars import Untranslatable
from workbench.tactics.triton.values import Values

MOST_TAPS = 64
"""Taps that are written out."""
OFFERED = 12


@dataclass(frozen=True)
class Strip:
    """What one program computes: positions of a row, channels, warps."""

    positions: int
    channels: int
    warps: int

    @property
    def parameters(self) -> tuple[tuple[str, int], ...]:
        """As a Tactic's parameters."""
        return tuple((k, v) for k, v in self.__dict__.items())

    @property
    def title(self) -> str:
        return f"{self.positions}x{self.channels} w{self.warps}"


def strip_of(parameters: Sequence[tuple[str, Any]]) -> Strip:
    """The strip that a Tactic's parameters name."""
    known = dict(parameters)
    return Strip(**{k: known[k] for k in Strip.__dataclass_fields__})


def is_depthwise(product: Product) -> bool:
    """Whether every output channel reads one input channel."""
    if product.anchor.op != "Conv":
        return False
    return product.body.types[product.right.value].shape[1] == 1


def strips(product: Product) -> tuple[Strip, ...]:
    """Strips worth timing, best guess first: 8 elements a thread, wide loads."""
    filters, width = product.out[1], product.out[-1]
    rows = prod(product.out) // (filters * width)
    most = 1 << max(4, (filters - 1).bit_length())
    found: list[tuple[float, Strip]] = []
    for channels in (16, 32, 64, 128, 256):
        for positions in (1, 2, 4, 8, 16, 32, 64):
            elements = channels * positions
            for warps in (1, 2, 4, 8):
                each = elements / (32 * warps)
                if not 2 <= each <= 16 or channels > most or positions >= 2 * width:
                    continue
                wasted = (-(-filters // channels) * channels / filters) * (
                    -(-width // positions) * positions / width
                )
                programs = rows * -(-filters // channels) * -(-width // positions)
                full = min(1.0, programs * warps / (132 * 32))
                short = 1.0 if channels * product.kind.itemsize >= 64 else 1.3
                halo = 1 + 0.5 / positions
                uneven = 1 + 0.1 * abs(np.log2(each / 8)) + 0.1 * abs(np.log2(warps / 4))
                cost = wasted * short * halo * uneven / max(full, 0.05)
                found.append((float(cost), Strip(positions, channels, warps)))
    found.sort(key=lambda f: (f[0], f[1].title))
    return tuple(s for _, s in found[:OFFERED])


def depthwise_program(product: Product, strip: Strip, layouts: Mapping[str, Format]) -> Program:
    """The kernel of a depthwise convolution. Raises Untranslatable."""
    window = windows(product)
    taps = prod(window.kernel)
    if taps > MOST_TAPS:
        raise Untranslatable(f"a depthwise convolution of {taps} taps")
    x, out = product.body.types[product.left.value].shape, product.out
    height, width = (x[2], x[3]) if len(x) == 4 else (1, x[2])
    filters, multiplier = out[1], out[1] // x[1]
    arguments = Arguments(product.body)
    p, q = int(window.output[0]), int(window.output[1])
    across, blocks = -(-q // strip.positions), -(-filters // strip.channels)
    lines = [
        "pid = tl.program_id(0)",
        f"rn = pid % {blocks} * {strip.channels} + tl.arange(0, {strip.channels})",
        f"oq = pid // {blocks} % {across} * {strip.positions} + tl.arange(0, {strip.positions})",
        f"op = pid // {blocks * across} % {p}",
        f"on = pid // {blocks * across * p}",
    ]
    inside = f"(rn < {filters})[None, :]" if filters % strip.channels else ""
    column = Group((1,), "rn[None, :]", inside)
    channel = f"(rn // {multiplier})[None, :]" if multiplier > 1 else "rn[None, :]"
    kind = "tl.int32" if product.exact else "tl.float32"
    lines.append(f"acc = tl.zeros(({strip.positions}, {strip.channels}), {kind})")
    weights = arguments.packed("weights", product.kind)
    wide = blocks * strip.channels
    for tap in range(taps):
        lines += _tap(
            product, window, tap, arguments, layouts, (height, width), Group((1,), channel, inside)
        )
        lines.append(f"b = tl.load({weights} + ({tap * wide} + rn))[None, :].to({kind})")
        lines.append("acc += a * b")
    space = [Group((2,), "op"), Group((3,), "oq[:, None]", _ragged(q, strip.positions))]
    if len(out) == 3:
        space = space[1:]
        space = [Group((2,), space[0].text, space[0].mask)]
    frame = Frame(out, (Group((0,), "on"), *space, column))
    packs: Packs = {"weights": _packed(product, wide, taps)}
    lines += finish(product, arguments, frame, layouts, 1, packs)
    grid = (out[0] * p * across * blocks, 1, 1)
    kernel = arguments.kernel(lines, grid, warps=strip.warps, stages=1)
    return Program(f"depthwise {strip.title}", (kernel,), packs)


def _ragged(size: int, step: int) -> str:
    return f"(oq < {size})[:, None]" if size % step else ""


def _tap(
    product: Product,
    window: Window,
    tap: int,
    arguments: Arguments,
    layouts: Mapping[str, Format],
    sizes: tuple[int, int],
    column: Group,
) -> list[str]:
    """Statements that set ``a``: what lies under one tap, zeros outside of the image."""
    r, s = divmod(tap, window.kernel[1])
    shift = [k * d - int(b) for k, d, b in zip((r, s), window.dilations, window.begin, strict=True)]
    h = f"(op * {window.strides[0]} + {shift[0]})"
    w = f"(oq * {window.strides[1]} + {shift[1]})"
    mask = f"(({h} >= 0) & ({h} < {sizes[0]}) & ({w} >= 0) & ({w} < {sizes[1]}))[:, None]" + (
        f" & {column.mask}" if column.mask else ""
    )
    shape = product.body.types[product.left.value].shape
    space = [Group((2,), h, mask), Group((3,), f"{w}[:, None]", mask)]
    if len(shape) == 3:
        space = [Group((2,), f"{w}[:, None]", mask)]
    groups = (Group((0,), "on", mask), *space, Group((1,), column.text, mask))
    values = Values(product.body, arguments, Frame(shape, groups), layouts, prefix=f"t{tap}_")
    text = values.at(product.left.value)
    if product.left.value not in {i.name for i in product.body.inputs}:
        text = f"tl.where({mask}, {text}, 0)"
    return [*values.lines, f"a = {text}"]


def _packed(product: Product, wide: int, taps: int) -> Pack:
    def pack(constants: Mapping[str, Array]) -> Array:
        array = np.asarray(evaluated(product.body, product.right.value, constants))
        packed = np.zeros((taps, wide), array.dtype)
        packed[:, : array.shape[0]] = array.reshape(array.shape[0], taps).T
        return packed

    return pack
