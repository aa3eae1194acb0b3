"""Source text of window kernels: the taps of one output row, then the epilogue."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from workbench.body import Node
from workbench.datatypes import DataType
from workbench.operators.windows import Window
from workbench.tactics.numba.nests import Stream, indented, lane, load_lines
from workbench.tactics.numba.scalars import loaded

SMALL_WINDOW = 25
"""Taps up to which the loop over a whole window is written out."""

NUMBERS = "ih iw ph pw kh kw xn xg xr xc ch cw".split()
"""What the code reads from g beyond the nest: image, padding, kernel; steps of the image by batch,
group, row and column; ends of the padded image."""


@dataclass(frozen=True)
class WindowCode:
    """What the text depends on.

    along_rows: LINEAR, where the innermost loop is an image row. lanes: see ``Stream``.
    base: where ``NUMBERS`` begin in g. The loops are i0 (output row), i1 (image), i2 (group),
    i3 (column).
    """

    node: Node
    dtype: DataType
    window: Window
    along_rows: bool
    lanes: bool
    base: int

    @property
    def small(self) -> bool:
        return math.prod(self.window.kernel) <= SMALL_WINDOW

    @property
    def largest(self) -> bool:
        return self.node.op in ("MaxPool", "GlobalMaxPool")

    @property
    def weighted(self) -> bool:
        return self.node.op == "Conv"

    @property
    def mean(self) -> bool:
        return not (self.largest or self.weighted)

    @property
    def start(self) -> str:
        """What a total begins with."""
        return "float32(-inf)" if self.largest else "float32(0.0)"

    def element(self, text: str) -> str:
        """A stored element of the image as float32."""
        return f"float32({loaded(self.dtype, text)})"

    def join(self, total: str, weight: str) -> str:
        """The total with one more tap x."""
        if self.largest:
            return f"(x if (x > {total}) | (x != x) else {total})"
        return f"{total} + x * {weight}" if self.weighted else f"{total} + x"


def head_code(code: WindowCode) -> list[str]:
    """The numbers by name. Strides, dilations and small kernels are written into the text."""
    strides, dilations = code.window.strides, code.window.dilations
    fixed = dict(zip("sh sw dh dw".split(), (*strides, *dilations), strict=True))
    if code.small:
        fixed |= dict(zip(("kh", "kw"), code.window.kernel, strict=True))
    lines = [f"{n} = g[{code.base + k}]" for k, n in enumerate(NUMBERS) if n not in fixed]
    return [*lines, *(f"{name} = {value}" for name, value in fixed.items())]


def row_code(code: WindowCode, after: Sequence[str], streams: Sequence[Stream]) -> list[str]:
    """One innermost loop's worth of outputs: t[j] by the taps, then y = t[j] and the epilogue."""
    lines = [
        "h0 = i0 * sh - ph",
        "ka = max(0, (dh - 1 - h0) // dh)",
        "kb = min(kh, (ih - h0 + dh - 1) // dh)",
        "first = i1 * xn + i2 * xg + h0 * xr",
    ]
    scale = " * c" if code.mean else ""
    epilogue = [*load_lines(range(len(streams)), streams), *after]
    ending = ["for j in range(n):", f"    y = t[j]{scale}", *indented(epilogue, 1)]
    if code.along_rows:
        return [*lines, *_along_rows(code), *ending]
    taps = [*_taps(code), *ending]
    if not code.small:
        return [*lines, *_columns(code), *taps]
    inside = [*_written_out(code), f"    y = total{scale}", *indented(epilogue, 1)]
    return [
        *lines,
        *_columns(code),
        "if ka == 0 and kb == kh and la == 0 and lb == kw:",
        *indented(inside, 1),
        "else:",
        *indented(taps, 1),
    ]


# -- channels innermost -------------------------------------------------------------------
def _columns(code: WindowCode) -> list[str]:
    """The kernel columns that lie inside the image."""
    return [
        "w0 = i3 * sw - pw",
        "la = max(0, (dw - 1 - w0) // dw)",
        "lb = min(kw, (iw - w0 + dw - 1) // dw)",
        "origin = first + w0 * xc",
        *_average(code),
    ]


def _taps(code: WindowCode) -> list[str]:
    """Tap by tap into t: for windows that reach over the edge."""
    return [
        "for j in range(n):",
        f"    t[j] = {code.start}",
        "for k in range(ka, kb):",
        "    for l in range(la, lb):",
        *indented(_rows(code, "", "k", "l"), 2),
        "        for j in range(n):",
        f"            x = {code.element(_x(code, ''))}",
        f"            t[j] = {code.join('t[j]', _w(code, ''))}",
    ]


def _rows(code: WindowCode, tap: str, k: str, m: str) -> list[str]:
    """Offsets of one tap's channels in image and weights, and their slices."""
    lines = [f"at{tap} = origin + {k} * dh * xr + {m} * dw * xc"]
    if not code.lanes:
        lines.append(f"pixels{tap} = image[at{tap} : at{tap} + n]")
    if code.weighted:
        lines.append(f"by{tap} = ((i2 * kh + {k}) * kw + {m}) * n")
        if not code.lanes:
            lines.append(f"filters{tap} = weights[by{tap} : by{tap} + n]")
    return lines


def _x(code: WindowCode, tap: str) -> str:
    return lane("image", f"at{tap}") if code.lanes else f"pixels{tap}[j]"


def _w(code: WindowCode, tap: str) -> str:
    return lane("weights", f"by{tap}") if code.lanes else f"filters{tap}[j]"


def _written_out(code: WindowCode) -> list[str]:
    """The loop over channels with all taps inside it, for windows inside the image."""
    lines: list[str] = []
    inner = [f"    total = {code.start}"]
    for k in range(code.window.kernel[0]):
        for m in range(code.window.kernel[1]):
            tap = f"{k}_{m}"
            lines += _rows(code, tap, str(k), str(m))
            inner += [
                f"    x = {code.element(_x(code, tap))}",
                f"    total = {code.join('total', _w(code, tap))}",
            ]
    return [*lines, "for j in range(n):", *inner]


def _average(code: WindowCode) -> list[str]:
    """The factor c of a mean: over the taps inside the image, or inside its padding too."""
    if not code.mean:
        return []
    if not code.node.attributes.get("count_include_pad", 0):
        return ["c = float32(1.0) / float32((kb - ka) * (lb - la))"]
    return [
        "kc = min(kh, (ch - h0 + dh - 1) // dh)",
        "lc = min(kw, (cw - w0 + dw - 1) // dw)",
        "c = float32(1.0) / float32(kc * lc)",
    ]


# -- image rows innermost -----------------------------------------------------------------
def _along_rows(code: WindowCode) -> list[str]:
    return [
        *(["c = float32(1.0) / float32(kh * kw)"] if code.mean else []),
        "for j in range(n):",
        f"    t[j] = {code.start}",
        "for k in range(ka, kb):",
        "    for l in range(kw):",
        "        s = l * dw - pw",
        "        ja = max(0, (sw - 1 - s) // sw)",
        "        jb = min(n, (iw - s + sw - 1) // sw)",
        "        o = first + k * dh * xr + s",
        *(["        v = weights[(i2 * kh + k) * kw + l]"] if code.weighted else []),
        "        o = o + ja * sw",
        "        u = t[ja:jb]",
        "        for j in range(jb - ja):",
        f"            x = {code.element('image[uint64(o + j * sw)]')}",
        f"            u[j] = {code.join('u[j]', 'v')}",
    ]
