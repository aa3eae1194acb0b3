"""Source text of window kernels: the taps of one output row, then the epilogue."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from workbench.body import Node
from workbench.datatypes import DataType
from workbench.tactics.numba.expressions import loaded
from workbench.tactics.numba.nests import Stream, indented, load_lines

SMALL_WINDOW = 25
"""Taps up to which the loop over a whole window is written out."""

NUMBERS = "ih iw sh sw ph pw dh dw kh kw xn xg xr xc ch cw".split()
"""What the code reads from g beyond the nest: image, strides, padding, dilations, kernel; steps of
the image by batch, group, row and column; ends of the padded image."""


@dataclass(frozen=True)
class WindowCode:
    """What the text depends on. along_rows: LINEAR, where the innermost loop is an image row.

    base: where ``NUMBERS`` begin in g. The loops are i0 (output row), i1 (image), i2 (group),
    i3 (column).
    """

    node: Node
    dtype: DataType
    kernel: tuple[int, ...]
    along_rows: bool
    base: int

    @property
    def small(self) -> bool:
        return math.prod(self.kernel) <= SMALL_WINDOW

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


def row_code(code: WindowCode, after: Sequence[str], streams: Sequence[Stream]) -> list[str]:
    """One innermost loop's worth of outputs: t[j] by the taps, then y = t[j] and the epilogue."""
    window = _along_rows(code) if code.along_rows else _across_channels(code)
    return [
        *_head(code),
        *window,
        "for j in range(n):",
        f"    y = t[j]{' * c' if code.mean else ''}",
        *indented(load_lines(range(len(streams)), streams), 1),
        *indented(after, 1),
    ]


def _head(code: WindowCode) -> list[str]:
    """The numbers by name, and the kernel rows that lie inside the image."""
    lines = [f"{name} = g[{code.base + k}]" for k, name in enumerate(NUMBERS)]
    if code.small:
        lines += [f"kh = {code.kernel[0]}", f"kw = {code.kernel[1]}"]
    return [
        *lines,
        "h0 = i0 * sh - ph",
        "ka = max(0, (dh - 1 - h0) // dh)",
        "kb = min(kh, (ih - h0 + dh - 1) // dh)",
        "first = i1 * xn + i2 * xg + h0 * xr",
    ]


# -- channels innermost -------------------------------------------------------------------
def _across_channels(code: WindowCode) -> list[str]:
    weights = [
        "        w = ((i2 * kh + k) * kw + l) * n",
        "        v = weights[w : w + n]",
    ]
    taps = [
        "for j in range(n):",
        f"    t[j] = {code.start}",
        "for k in range(ka, kb):",
        "    for l in range(la, lb):",
        "        o = origin + k * dh * xr + l * dw * xc",
        "        r = image[o : o + n]",
        *(weights if code.weighted else []),
        "        for j in range(n):",
        f"            x = {code.element('r[j]')}",
        f"            t[j] = {code.join('t[j]', 'v[j]')}",
    ]
    lines = [
        "w0 = i3 * sw - pw",
        "la = max(0, (dw - 1 - w0) // dw)",
        "lb = min(kw, (iw - w0 + dw - 1) // dw)",
        "origin = first + w0 * xc",
        *_average(code),
    ]
    if not code.small:
        return [*lines, *taps]
    return [
        *lines,
        "if ka == 0 and kb == kh and la == 0 and lb == kw:",
        *indented(_written_out(code), 1),
        "else:",
        *indented(taps, 1),
    ]


def _written_out(code: WindowCode) -> list[str]:
    """The loop over channels with all taps inside it."""
    lines: list[str] = []
    inner = [f"    total = {code.start}"]
    for k in range(code.kernel[0]):
        for m in range(code.kernel[1]):
            name = f"{k}_{m}"
            lines += [
                f"o{name} = origin + {k} * dh * xr + {m} * dw * xc",
                f"r{name} = image[o{name} : o{name} + n]",
            ]
            if code.weighted:
                lines += [
                    f"w{name} = ((i2 * kh + {k}) * kw + {m}) * n",
                    f"v{name} = weights[w{name} : w{name} + n]",
                ]
            element = code.element(f"r{name}[j]")
            inner += [
                f"    x = {element}",
                f"    total = {code.join('total', f'v{name}[j]')}",
            ]
    return [*lines, "for j in range(n):", *inner, "    t[j] = total"]


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
        "        for j in range(ja, jb):",
        f"            x = {code.element('image[o + j * sw]')}",
        f"            t[j] = {code.join('t[j]', 'v')}",
    ]
