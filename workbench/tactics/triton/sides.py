"""Both sides of a product as text: how a program reads its tiles of the factors, step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from workbench.body import Array
from workbench.datatypes import DataType
from workbench.formats import Format
from workbench.host_threads import copy_to
from workbench.tactics.product import Factor, Product
from workbench.tactics.triton.frame import Frame, Group
from workbench.tactics.triton.kernel import STORED, Arguments, Pack, masked
from workbench.tactics.triton.tiles import Tile
from workbench.tactics.triton.values import Values


class Side(Protocol):
    """Statements that read one factor. ``t`` is the step, ``rk`` the elements within it."""

    def setup(self, tile: Tile, arguments: Arguments) -> list[str]:
        """What comes before the loop; ``rm`` and ``rn`` are known."""
        ...

    def load(self, tile: Tile, arguments: Arguments) -> list[str]:
        """What sets ``a`` (rows, depth) or ``b`` (depth, columns)."""
        ...


@dataclass(frozen=True, eq=False)
class Matrix:
    """A factor as it lies in memory: steps along its index and along the sum, and of its batches.

    letter: ``a`` or ``b``. size: of the index. depth: terms of the sum. offset: text of where the
    program's batch begins. frame_axes: the value's axes by what indexes them (batch, index, depth),
    for a prologue.
    """

    product: Product
    factor: Factor
    letter: str
    size: int
    depth: int
    step: int
    along: int
    offset: str
    layouts: Mapping[str, Format]
    frame_axes: tuple[tuple[int, ...], ...]

    @property
    def _index(self) -> str:
        return "am" if self.letter == "a" else "bn"

    def _shaped(self, text: str, *, depth: bool) -> str:
        first = depth != (self.letter == "a")
        return f"{text}[:, None]" if first else f"{text}[None, :]"

    @property
    def _direct(self) -> bool:
        return any(i.name == self.factor.value for i in self.product.body.inputs)

    def setup(self, tile: Tile, arguments: Arguments) -> list[str]:
        name, count = ("rm", tile.rows) if self.letter == "a" else ("rn", tile.columns)
        ragged = self.size % count
        # Rows beyond the last read the last one: no mask, and nothing of theirs is stored.
        lines = [f"{self._index} = " + (f"tl.minimum({name}, {self.size - 1})" if ragged else name)]
        if not self._direct:
            return lines
        index, k = self._shaped(self._index, depth=False), self._shaped("rk", depth=True)
        start = f" + {self.offset}" if self.offset != "0" else ""
        pointer = arguments.value(self.factor.value)
        lines.append(
            f"{self.letter}p = {pointer} + (({index}) * {self.step} + {k} * {self.along}{start})"
        )
        return lines

    def load(self, tile: Tile, arguments: Arguments) -> list[str]:
        ragged = self.depth % tile.depth
        mask = self._shaped(f"(t * {tile.depth} + rk < {self.depth})", depth=True)
        if self._direct:
            rest = masked(mask if ragged else "", self.product.kind)
            at = f"{self.letter}p + t * {tile.depth * self.along}"
            return [f"{self.letter} = tl.load({at}{rest})"]
        batch, index, depth = self.frame_axes
        k = self._shaped(f"(t * {tile.depth} + rk)", depth=True)
        groups = (
            Group(batch, "batch"),
            Group(index, self._shaped(self._index, depth=False)),
            Group(depth, k, mask if ragged else ""),
        )
        frame = Frame(self.product.body.types[self.factor.value].shape, groups)
        shape = (
            f"[{tile.rows}, {tile.depth}]"
            if self.letter == "a"
            else f"[{tile.depth}, {tile.columns}]"
        )
        return prologue(
            self.product, self.factor, self.letter, arguments, frame, self.layouts, shape
        )


def prologue(
    product: Product,
    factor: Factor,
    name: str,
    arguments: Arguments,
    frame: Frame,
    layouts: Mapping[str, Format],
    shape: str,
) -> list[str]:
    """Statements that compute a factor's tile from what it is made of."""
    values = Values(product.body, arguments, frame, layouts, prefix=f"{name}v", zeros=product.zeros)
    text = values.at(factor.value)
    kind = STORED[product.kind]
    if frame.mask:
        # What pads the sum must be zero after the prologue, not before it.
        text = f"tl.where({frame.mask}, {text}, 0.0)"
    return [*values.lines, f"{name} = tl.broadcast_to({text}, {shape}).to({kind})"]


@dataclass(frozen=True)
class Image:
    """Where the pixels of an image's window lie, in elements: sizes and steps (NHWC).

    channels: summed at each tap. pixel, row, image: steps. checked: whether taps may lie outside.
    block, plane: channels in a group, and the step from group to group, where there are groups.
    """

    height: int
    width: int
    channels: int
    pixel: int
    row: int
    image: int
    checked: bool
    block: int = 0
    plane: int = 0

    def channel(self, text: str) -> str:
        """Where a channel of a pixel lies."""
        if not self.block:
            return text
        return f"({text} // {self.block} * {self.plane} + {text} % {self.block})"

    def first_of_group(self, text: str) -> str:
        """The same of a channel that is the first of its group.

        Triton sees what this is a multiple of; what it does not see so, it reads byte by byte.
        """
        return f"{text} * {self.plane // self.block}" if self.block else text


@dataclass(frozen=True, eq=False)
class WindowSide:
    """Pixels under a window: row ``m`` is an output position, each step some channels of a tap.

    padded: reads the image's copy in the workspace, with zeros around it and in added channels.
    """

    product: Product
    image: Image
    out: tuple[int, int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    begin: tuple[int, int]
    layouts: Mapping[str, Format]
    padded: bool = False
    """Whether the image was copied, with zeros around it, into the workspace part ``image``."""
    grouped: int = 0
    """Channels of a group, where there are groups."""

    def blocks(self, depth: int) -> int:
        """Steps for one tap."""
        return -(-self.image.channels // depth)

    @property
    def _direct(self) -> bool:
        inputs = [i.name for i in self.product.body.inputs]
        return self.padded or self.product.left.value in inputs

    def _pointer(self, arguments: Arguments) -> str:
        if self.padded:
            return arguments.workspace("image", self.product.kind)
        return arguments.value(self.product.left.value)

    def setup(self, tile: Tile, arguments: Arguments) -> list[str]:
        n, p, q = self.out
        rows = n * p * q
        i = self.image
        lines = [
            "am = " + (f"tl.minimum(rm, {rows - 1})" if rows % tile.rows else "rm"),
            f"an = am // {p * q}",
            f"ah = (am % {p * q}) // {q} * {self.strides[0]} - {self.begin[0]}",
            f"aw = am % {q} * {self.strides[1]} - {self.begin[1]}",
        ]
        if self._direct:
            start = f" + batch * {self.grouped}" if self.grouped else ""
            lines.append(f"ab = an * {i.image} + ah * {i.row} + aw * {i.pixel}{start}")
        return lines

    def load(self, tile: Tile, arguments: Arguments) -> list[str]:
        i, blocks = self.image, self.blocks(tile.depth)
        dh, dw = self.dilations
        taps = self.kernel[0] * self.kernel[1]
        lines: list[str] = []
        tap, channel = "t", "0"
        if blocks > 1:
            tap, channel = f"(t // {blocks})", f"(t % {blocks}) * {tile.depth}"
        if taps == 1:
            tap, channel = "0", f"t * {tile.depth}" if blocks > 1 else "0"
        lines.append(f"tr = {tap} // {self.kernel[1]} * {dh}")
        lines.append(f"ts = {tap} % {self.kernel[1]} * {dw}")
        lines.append(f"tc = {channel}")
        masks = self._masks(tile)
        if self._direct:
            pixels = f"(ab + tr * {i.row} + ts * {i.pixel} + {i.first_of_group('tc')})[:, None]"
            at = f"{pixels} + {i.channel('rk')}[None, :]"
            rest = masked(" & ".join(masks), self.product.kind)
            return [*lines, f"a = tl.load({self._pointer(arguments)} + ({at}){rest})"]
        shape = self.product.body.types[self.product.left.value].shape
        start = f" + batch * {self.grouped}" if self.grouped else ""
        space = [Group((2,), "(ah + tr)[:, None]"), Group((3,), "(aw + ts)[:, None]")]
        if len(shape) == 3:
            space = [Group((2,), "(aw + ts)[:, None]")]
        mask = " & ".join(masks)
        groups = (
            Group((0,), "an[:, None]", mask),
            *space,
            Group((1,), f"(tc + rk{start})[None, :]"),
        )
        # The mask belongs to every load that lies along any axis but the channels.
        frame = Frame(shape, tuple(Group(g.axes, g.text, mask) for g in groups))
        text = prologue(
            self.product,
            self.product.left,
            "a",
            arguments,
            frame,
            self.layouts,
            f"[{tile.rows}, {tile.depth}]",
        )
        return [*lines, *text]

    def _masks(self, tile: Tile) -> list[str]:
        i, masks = self.image, list[str]()
        if i.checked:
            masks.append(
                f"((ah + tr >= 0) & (ah + tr < {i.height}) & "
                f"(aw + ts >= 0) & (aw + ts < {i.width}))[:, None]"
            )
        if not self.padded and i.channels % tile.depth:
            masks.append(f"(tc + rk < {i.channels})[None, :]")
        return masks


@dataclass(frozen=True)
class Packed:
    """A constant factor as [batches, columns, taps, depth], the last two padded with zeros."""

    kind: DataType
    columns: int
    terms: int
    batches: int = 1

    def setup(self, tile: Tile, arguments: Arguments) -> list[str]:
        wide = -(-self.columns // tile.columns) * tile.columns
        batch = f" + batch * {wide * self.terms}" if self.batches > 1 else ""
        pointer = arguments.packed("weights", self.kind)
        return [f"bp = {pointer} + (rn[None, :] * {self.terms} + rk[:, None]{batch})"]

    def load(self, tile: Tile, arguments: Arguments) -> list[str]:
        return [f"b = tl.load(bp + t * {tile.depth})"]


def packed_weights(
    product: Product, tile: Tile, *, batches: int, columns: int, taps: int, depth: int, axes: str
) -> Pack:
    """Packs the right factor. axes: how its own order maps to (columns, taps, depth).

    ``nkt``: (filters, channels, taps), a convolution's; ``nk`` and ``kn``: a matrix.
    """
    wide = -(-columns // tile.columns) * tile.columns
    deep = -(-depth // tile.depth) * tile.depth

    def arrange(array: Array) -> Array:
        match axes:
            case "nkt":
                own = array.reshape(batches, columns, depth, taps).transpose(0, 1, 3, 2)
            case "kn":
                own = array.reshape(depth, columns).T[None, :, None, :]
            case _:
                own = array.reshape(columns, depth)[None, :, None, :]
        if own.shape == (batches, wide, taps, deep):
            return own
        packed = np.zeros((batches, wide, taps, deep), array.dtype)
        copy_to(packed[:, :columns, :, :depth], own)
        return packed

    recipe = f"{axes} {(batches, columns, taps, depth)} as {(wide, deep)}"
    return Pack(product.right.value, recipe, arrange)


def steps_of(shape: Sequence[int]) -> list[int]:
    """Row-major steps; 0 along axes of size 1."""
    found, step = [0] * len(shape), 1
    for k in reversed(range(len(shape))):
        found[k] = step if shape[k] != 1 else 0
        step *= shape[k]
    return found
