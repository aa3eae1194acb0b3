"""Images of few channels, copied with their padding so that a row of taps is one run of memory."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from workbench.body import Array
from workbench.datatypes import DataType
from workbench.formats import Format
from workbench.operators.windows import Window
from workbench.tactics.scalar_text import Untranslatable
from workbench.tactics.triton.frame import Frame, Group
from workbench.tactics.triton.kernel import LARGEST_INDEX, STORED, Arguments, Kernel, Pack
from workbench.tactics.triton.product import Product
from workbench.tactics.triton.sides import Image, WindowSide
from workbench.tactics.triton.tiles import Tile
from workbench.tactics.triton.values import Values

PIXELS = 256
"""Pixels that a program of the copying kernel writes."""
STEP_BYTES = 8
"""Bytes of which the way from one position to the next is a multiple: what is loaded at once."""
STEM_BYTES = 16
"""Bytes of a pixel's channels below which a window is read as rows of a copied image."""


def copied_channels(channels: int, stride: int, dtype: DataType) -> int:
    """Channels of the copy: the least power of two for which positions lie STEP_BYTES apart."""
    wide = 1
    while wide < channels or wide * stride * dtype.itemsize < STEP_BYTES:
        wide *= 2
    return wide


def copied_image(
    product: Product,
    window: Window,
    layouts: Mapping[str, Format],
    positions: tuple[int, int, int],
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
    wide = copied_channels(x[1], window.strides[1], product.kind)
    n, p, q = positions
    rows = (p - 1) * window.strides[0] + window.kernel[0]
    columns = (q - 1) * window.strides[1] + window.kernel[1]
    step = window.strides[1]
    columns = -(-columns // step) * step  # each row begins aligned, as each step does
    run = window.kernel[1] * wide
    slack = 512  # what a program reads beyond the last row is multiplied by zeros
    total = n * rows * columns * wide + slack
    if total > LARGEST_INDEX:
        raise Untranslatable("the copied image has 2**31 elements or more")
    image = Image(rows, columns, run, wide, columns * wide, rows * columns * wide, False)
    side = WindowSide(
        product,
        image,
        positions,
        (window.kernel[0], 1),
        (window.strides[0], window.strides[1]),
        (1, 1),
        (0, 0),
        layouts,
        padded=True,
    )
    begin = (int(window.begin[0]), int(window.begin[1]))
    kernel = _copying(product, image, begin, layouts, total, n)
    return side, (kernel,), {"image": total * product.kind.itemsize}


def _copying(
    product: Product,
    image: Image,
    begin: tuple[int, int],
    layouts: Mapping[str, Format],
    total: int,
    batch: int,
) -> Kernel:
    arguments = Arguments(product.body)
    target = arguments.workspace("image", product.kind)
    shape = product.body.types[product.left.value].shape
    height, width = (shape[2], shape[3]) if len(shape) == 4 else (1, shape[2])
    pixels = f"((n < {batch}) & (h >= 0) & (h < {height}) & (w >= 0) & (w < {width}))[:, None]"
    inside = f"{pixels} & (c < {shape[1]})[None, :]"
    lines = [
        f"i = tl.program_id(0) * {PIXELS} + tl.arange(0, {PIXELS})",
        f"c = tl.arange(0, {image.pixel})",
        f"w = i % {image.width} - {begin[1]}",
        f"h = i // {image.width} % {image.height} - {begin[0]}",
        f"n = i // {image.width * image.height}",
    ]
    space = [Group((2,), "h[:, None]", inside), Group((3,), "w[:, None]", inside)]
    if len(shape) == 3:
        space = [Group((2,), "w[:, None]", inside)]
    groups = (Group((0,), "n[:, None]", inside), *space, Group((1,), "c[None, :]", inside))
    values = Values(product.body, arguments, Frame(shape, groups), layouts)
    text = values.at(product.left.value)
    at = f"i[:, None] * {image.pixel} + c[None, :]"
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
