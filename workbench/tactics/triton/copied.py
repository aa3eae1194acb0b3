"""Images of few channels, copied with their padding so that a row of taps is one run of memory.

Where a window moves by two, the copy may also be folded: two by two pixels are the channels of one,
so that the window is half as large, moves by one, and its positions lie twice as far apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from workbench.body import Array
from workbench.datatypes import DataType
from workbench.formats import Format
from workbench.operators.windows import Window
from workbench.tactics.product import LARGEST_INDEX, Product
from workbench.tactics.scalar_text import Untranslatable
from workbench.tactics.triton.frame import Frame, Group
from workbench.tactics.triton.kernel import STORED, Arguments, Kernel, Pack
from workbench.tactics.triton.sides import Image, WindowSide
from workbench.tactics.triton.tiles import Tile
from workbench.tactics.triton.values import Values

PIXELS = 256
"""Pixels that a program of the copying kernel writes."""
STEP_BYTES = 8
"""Bytes of which the way from one position to the next is a multiple: what is loaded at once."""
FOLDED_BYTES = 16
"""Bytes of four pixels that a folded copy has at least: the most that is loaded at once."""
STEM_BYTES = 16
"""Bytes of a pixel's channels below which a window is read as rows of a copied image."""


def copied_channels(channels: int, stride: int, dtype: DataType) -> int:
    """Channels of the copy: the least power of two for which positions lie STEP_BYTES apart."""
    wide = 1
    while wide < channels or wide * stride * dtype.itemsize < STEP_BYTES:
        wide *= 2
    return wide


def folded_channels(channels: int, dtype: DataType) -> int:
    """Channels of each pixel of a folded copy: the least power of two for FOLDED_BYTES of four."""
    wide = 1
    while wide < channels or 4 * wide * dtype.itemsize < FOLDED_BYTES:
        wide *= 2
    return wide


def _halved(kernel: Sequence[int]) -> tuple[int, int]:
    """Taps of a window over two by two pixels."""
    return -(-kernel[0] // 2), -(-kernel[1] // 2)


def copied_image(
    product: Product,
    window: Window,
    layouts: Mapping[str, Format],
    positions: tuple[int, int, int],
    *,
    folded: bool,
) -> tuple[WindowSide, tuple[Kernel, ...], dict[str, int]]:
    """The image copied with its padding and more channels, so that a row of taps is one run."""
    x = product.body.types[product.left.value].shape
    if (
        window.dilations != (1, 1)
        or int(product.anchor.attributes["group"]) != 1
        or x[1] * product.kind.itemsize >= STEM_BYTES
        or prod(window.kernel) == 1
    ):
        raise Untranslatable("copying the image pays for few channels and a plain window only")
    if folded and window.strides != (2, 2):
        raise Untranslatable("only a window that moves by two is folded")
    wide = folded_channels(x[1], product.kind) if folded else 0
    wide = 4 * wide if folded else copied_channels(x[1], window.strides[1], product.kind)
    taps = _halved(window.kernel) if folded else window.kernel
    strides = (1, 1) if folded else (window.strides[0], window.strides[1])
    n, p, q = positions
    rows = (p - 1) * strides[0] + taps[0]
    columns = (q - 1) * strides[1] + taps[1]
    columns = -(-columns // strides[1]) * strides[1]  # each row begins aligned, as each step does
    run = taps[1] * wide
    slack = 512  # what a program reads beyond the last row is multiplied by zeros
    total = n * rows * columns * wide + slack
    if total > LARGEST_INDEX:
        raise Untranslatable("the copied image has 2**31 elements or more")
    image = Image(rows, columns, run, wide, columns * wide, rows * columns * wide, False)
    side = WindowSide(
        product,
        image,
        positions,
        (taps[0], 1),
        strides,
        (1, 1),
        (0, 0),
        layouts,
        padded=True,
    )
    begin = (int(window.begin[0]), int(window.begin[1]))
    own = wide // 4 if folded else 0
    kernel = _copying(product, image, begin, layouts, total, n, own)
    return side, (kernel,), {"image": total * product.kind.itemsize}


def _copying(
    product: Product,
    image: Image,
    begin: tuple[int, int],
    layouts: Mapping[str, Format],
    total: int,
    batch: int,
    folded: int,
) -> Kernel:
    """folded: channels of each of the two by two pixels that are one of the copy; 0 for none."""
    arguments = Arguments(product.body)
    target = arguments.workspace("image", product.kind)
    shape = product.body.types[product.left.value].shape
    height, width = (shape[2], shape[3]) if len(shape) == 4 else (1, shape[2])
    inside = f"(n < {batch})[:, None] & (h >= 0) & (h < {height}) & (w >= 0) & (w < {width})"
    inside += f" & (c < {shape[1]})"
    across, down = (
        f"(i % {image.width})[:, None]",
        f"(i // {image.width} % {image.height})[:, None]",
    )
    lines = [
        f"i = tl.program_id(0) * {PIXELS} + tl.arange(0, {PIXELS})",
        f"e = tl.arange(0, {image.pixel})",
        f"n = i // {image.width * image.height}",
    ]
    if folded:
        lines += [
            f"c = (e % {folded})[None, :]",
            f"w = {across} * 2 + (e // {folded} % 2)[None, :] - {begin[1]}",
            f"h = {down} * 2 + (e // {2 * folded})[None, :] - {begin[0]}",
        ]
    else:
        lines += ["c = e[None, :]", f"w = {across} - {begin[1]}", f"h = {down} - {begin[0]}"]
    space = [Group((2,), "h", inside), Group((3,), "w", inside)]
    if len(shape) == 3:
        space = [Group((2,), "w", inside)]
    groups = (Group((0,), "n[:, None]", inside), *space, Group((1,), "c", inside))
    values = Values(product.body, arguments, Frame(shape, groups), layouts)
    text = values.at(product.left.value)
    at = f"i[:, None] * {image.pixel} + e[None, :]"
    count = total // image.pixel
    lines += [
        *values.lines,
        f"x = tl.where({inside}, {text}, 0).to({STORED[product.kind]})",
        f"tl.store({target} + ({at}), x, mask=(i < {count})[:, None])",
    ]
    return arguments.kernel(lines, (-(-count // PIXELS), 1, 1), warps=4, stages=1)


def copied_weights(product: Product, tile: Tile, window: Window, wide: int) -> Pack:
    """Packs filters as [columns, rows of taps, columns of taps and the copy's channels]."""
    filters, channels = product.out[1], product.body.types[product.left.value].shape[1]
    r, s = window.kernel
    columns = -(-filters // tile.columns) * tile.columns
    deep = -(-s * wide // tile.depth) * tile.depth

    def arrange(array: Array) -> Array:
        own = np.zeros((filters, r, s, wide), array.dtype)
        own[..., :channels] = array.reshape(filters, channels, r, s).transpose(0, 2, 3, 1)
        packed = np.zeros((columns, r, deep), array.dtype)
        packed[:filters, :, : s * wide] = own.reshape(filters, r, s * wide)
        return packed

    recipe = f"copied {(filters, channels, r, s, wide)} as {(columns, deep)}"
    return Pack(product.right.value, recipe, arrange)


def folded_weights(product: Product, tile: Tile, window: Window, pixel: int) -> Pack:
    """Packs filters as [columns, rows of taps, columns of taps and the folded copy's channels]."""
    filters, channels = product.out[1], product.body.types[product.left.value].shape[1]
    r, s = window.kernel
    high, wide = _halved((r, s))
    columns = -(-filters // tile.columns) * tile.columns
    deep = -(-wide * pixel // tile.depth) * tile.depth

    def arrange(array: Array) -> Array:
        own = np.zeros((filters, 2 * high, 2 * wide, pixel // 4), array.dtype)
        own[:, :r, :s, :channels] = array.reshape(filters, channels, r, s).transpose(0, 2, 3, 1)
        apart = own.reshape(filters, high, 2, wide, 2, pixel // 4).transpose(0, 1, 3, 2, 4, 5)
        packed = np.zeros((columns, high, deep), array.dtype)
        packed[:filters, :, : wide * pixel] = apart.reshape(filters, high, wide * pixel)
        return packed

    recipe = f"folded {(filters, channels, r, s, pixel)} as {(columns, deep)}"
    return Pack(product.right.value, recipe, arrange)
