"""What these kernels multiply: rows, or an image's windows, by constant weights packed for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from workbench.body import Array, Body
from workbench.datatypes import DataType
from workbench.formats import HWC, LINEAR, Format
from workbench.host_threads import copy_to
from workbench.tactics.nvrtc.elements import Index
from workbench.tactics.nvrtc.frame import logical
from workbench.tactics.product import Product, product_of, windows
from workbench.tactics.scalar_text import Untranslatable
from workbench.tactics.wgmma.tiles import LINE

KINDS = (DataType.HALF, DataType.BF16, DataType.INT8, DataType.FP8)
"""Element types that ``wgmma`` multiplies at full rate."""
UNIT = 16
"""Bytes of which the rows that a tensor map describes must be a multiple (CUDA driver API)."""
MOST_STRIDE, MOST_CORNER, MOST_OFFSET = 8, 127, 255
"""Of windows that a tensor map describes (CUDA driver API, cuTensorMapEncodeIm2col)."""
OWN = 8
"""Columns that a thread finishes side by side."""
GROUP = 4 * OWN
"""Columns that the four threads of a row finish side by side."""


@dataclass(frozen=True)
class Windows:
    """An image (NHWC) and the windows that are laid on it; axes are height and width.

    out: positions of the window.
    """

    image: tuple[int, int, int, int]
    out: tuple[int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    begin: tuple[int, int]
    end: tuple[int, int]

    @property
    def corners(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Where a window's first tap may lie, from the image's first pixel and from its last."""
        reach = [(k - 1) * d for k, d in zip(self.kernel, self.dilations, strict=True)]
        low, high = (-self.begin[0], -self.begin[1]), (self.end[0], self.end[1])
        return low, (high[0] - reach[0], high[1] - reach[1])


@dataclass(frozen=True, eq=False)
class Matrices:
    """A product of rows (of the left factor, as it is stored) and columns (the weights').

    depth: terms of a sum, of one tap of a window. lead: the output's axes that the rows run over,
    as they are stored. filters_first: whether the weights are stored as [columns, ...], else
    [depth, columns]. windows: of an image, which the copy engine gathers, or None for rows.
    """

    product: Product
    rows: int
    columns: int
    depth: int
    lead: tuple[int, ...]
    filters_first: bool
    windows: Windows | None = None

    @property
    def taps(self) -> int:
        return prod(self.windows.kernel) if self.windows else 1

    @property
    def placed(self) -> int:
        """The columns, and those of zeros that fill their last group."""
        return -(-self.columns // GROUP) * GROUP

    @property
    def blocks(self) -> int:
        """Steps of a tap, each of LINE bytes."""
        return -(-self.depth * self.product.kind.itemsize // LINE)

    @property
    def steps(self) -> int:
        """Of a sum."""
        return self.taps * self.blocks

    @property
    def body(self) -> Body:
        return self.product.body

    @property
    def is_convolution(self) -> bool:
        return self.product.anchor.op == "Conv"

    @property
    def out_layout(self) -> Format:
        return HWC if self.is_convolution else LINEAR

    @property
    def layouts(self) -> dict[str, Format]:
        """Of each dynamic input and each output."""
        shape, layout = self.product.out, self.out_layout
        return {
            name: layout if len(type_.shape) == len(shape) and type_.shape[1:2] != (1,) else LINEAR
            for name, type_ in self.body.types.items()
            if name in {*(i.name for i in self.body.dynamic_inputs), *self.body.outputs}
        }

    def index(self, lead: Index, column: str) -> Index:
        """The output's coordinates, of those of the row and the column."""
        return logical((*lead, column), self.out_layout)

    @property
    def column_axis(self) -> int:
        """The output's axis of the columns."""
        return 1 if self.is_convolution else len(self.product.out) - 1


def matrices_of(body: Body, constants: Mapping[str, Array]) -> Matrices:
    """The matrices of a Body. Raises Untranslatable with the reason."""
    product = product_of(body, constants)
    if product.kind not in KINDS:
        known = ", ".join(k.info.label for k in KINDS)
        raise Untranslatable(f"wgmma multiplies {known} here, not {product.kind.info.label}")
    if product.left.value not in {i.name for i in body.dynamic_inputs}:
        raise Untranslatable("the first factor is computed before it is multiplied")
    if not product.right.constant:
        raise Untranslatable("the second factor is not known at build time")
    found = _convolution(product) if product.anchor.op == "Conv" else _rows(product)
    unit = UNIT // product.kind.itemsize
    if found.depth % unit:
        raise Untranslatable(f"sums of {found.depth} terms: a tensor map takes multiples of {unit}")
    if found.columns % OWN:
        raise Untranslatable(f"{found.columns} columns: a thread stores {OWN} of them at once")
    return found


def _convolution(product: Product) -> Matrices:
    body = product.body
    x, w = (body.types[f.value].shape for f in (product.left, product.right))
    if product.anchor.attributes["group"] != 1:
        raise Untranslatable("a convolution in groups multiplies several matrices")
    laid = windows(product)
    lead = (x[0], *product.out[2:])
    rows, columns = prod(lead), w[0]
    plain = all(d == 1 for d in w[2:]) and x[2:] == product.out[2:]
    if plain and all(s == 1 for s in laid.strides):
        return Matrices(product, rows, columns, x[1], lead, filters_first=True)
    image = (x[0], *((1, x[2]) if len(x) == 3 else x[2:]), x[1])
    axes = (laid.output, laid.kernel, laid.strides, laid.dilations, laid.begin, laid.end)
    found = Windows(image, *axes)  # pyright: ignore[reportArgumentType]  # of two axes each
    reach = max((k - 1) * d for k, d in zip(found.kernel, found.dilations, strict=True))
    corner = max(abs(c) for corners in found.corners for c in corners)
    if max(found.strides) > MOST_STRIDE or corner > MOST_CORNER or reach > MOST_OFFSET:
        raise Untranslatable("a window with larger strides or padding than tensor maps describe")
    return Matrices(product, rows, columns, x[1], lead, filters_first=True, windows=found)


def _rows(product: Product) -> Matrices:
    body, anchor = product.body, product.anchor
    x, w = (body.types[f.value].shape for f in (product.left, product.right))
    gemm = anchor.op == "Gemm"
    if gemm and anchor.attributes["transA"]:
        raise Untranslatable("the first factor is stored transposed")
    if len(x) < 2 or len(w) < 2 or prod(w[:-2]) != 1 or len(w) > len(x):
        raise Untranslatable("the second factor is no single matrix")
    turned = gemm and bool(anchor.attributes["transB"])
    columns = w[-2] if turned else w[-1]
    return Matrices(product, prod(x[:-1]), columns, x[-1], x[:-1], filters_first=turned)


# -- weights ------------------------------------------------------------------------------
def ordered(columns: Array) -> Array:
    """[columns, ...] of whole groups, so that what a thread's sums belong to lies side by side.

    Of 32 columns that are multiplied side by side, a thread of four sums up 0, 1, 8, 9, 16, 17, 24
    and 25 places from its own first (PTX ISA, wgmma: the register fragment of D). A view, whose
    first four axes are the columns': groups, eights, threads, pairs.
    """
    return columns.reshape(-1, GROUP // OWN, OWN // 2, 2, *columns.shape[1:]).swapaxes(1, 2)


def packed_weights(matrices: Matrices, stored: Array) -> Array:
    """The weights ``ordered`` as [columns, taps, depth], columns of zeros to a whole group.

    A view of what is stored where no columns are added: the host's processors bring it into order
    on its way to the device.
    """
    depth, columns, taps = matrices.depth, matrices.columns, matrices.taps
    if matrices.filters_first:
        rows = stored.reshape(columns, depth, taps).transpose(0, 2, 1)
    else:
        rows = stored.reshape(depth, columns).T[:, None]
    if matrices.placed > columns:
        whole = np.zeros((matrices.placed, taps, depth), stored.dtype)
        copy_to(whole[:columns], rows)
        rows = whole
    return ordered(rows)
