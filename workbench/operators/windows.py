"""Sliding windows over spatial axes: their geometry, and the patches that they see."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench import dimensions
from workbench.body import Array
from workbench.errors import InferenceError

MOST_TAPS = 1 << 24
"""Of a kernel: each is a pass over the output, so a larger one is a mistake, or harm."""
AUTO_PADS = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")


@dataclass(frozen=True)
class Window:
    """Where a kernel is laid on the spatial axes; one entry an axis, sizes may be symbolic.

    begin, end: padding. output: number of positions.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[Any, ...]
    end: tuple[Any, ...]
    output: tuple[Any, ...]

    @property
    def extent(self) -> tuple[int, ...]:
        """Elements that a dilated kernel spans."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))


def per_axis(attributes: Mapping[str, Any], name: str, rank: int, default: int) -> tuple[int, ...]:
    """An attribute with one number an axis. Raises InferenceError on another count."""
    given = attributes.get(name)
    if given is None:
        return (default,) * rank
    if len(given) != rank:
        raise InferenceError(f"{name} has {len(given)} entries {given}, expected {rank}")
    return tuple(given)


def auto_pad(attributes: Mapping[str, Any]) -> str:
    """The auto_pad attribute. Raises InferenceError if it is none that ONNX knows."""
    mode = attributes.get("auto_pad", "NOTSET")
    if mode not in AUTO_PADS:
        raise InferenceError(f"auto_pad is {mode!r}", remedy=f"known: {', '.join(AUTO_PADS)}")
    return mode


def window_of(attributes: Mapping[str, Any], sizes: Sequence[Any], kernel: Sequence[int]) -> Window:
    """The Window of a convolution or pooling over spatial ``sizes``.

    Reads auto_pad, pads, strides, dilations and ceil_mode. Raises InferenceError if the kernel
    does not fit. Source: ONNX Conv-22, MaxPool-22, AveragePool-22.
    """
    rank = len(sizes)
    if len(kernel) != rank:
        raise InferenceError(f"kernel has {len(kernel)} axes {tuple(kernel)}, input has {rank}")
    strides = per_axis(attributes, "strides", rank, 1)
    dilations = per_axis(attributes, "dilations", rank, 1)
    pads = per_axis(attributes, "pads", 2 * rank, 0)
    for what, given, least in (
        ("kernel_shape", kernel, 1),
        ("strides", strides, 1),
        ("dilations", dilations, 1),
        ("pads", pads, 0),
    ):
        if min(given, default=least) < least:
            raise InferenceError(f"{what} is {tuple(given)}", remedy=f"give {least} or more each")
    if math.prod(kernel) > MOST_TAPS:
        raise InferenceError(
            f"a kernel {tuple(kernel)} has more than {MOST_TAPS:,} taps",
            remedy="pool or convolve in steps",
        )
    mode, ceil = auto_pad(attributes), bool(attributes.get("ceil_mode", 0))
    rows = [
        _axis(mode, ceil, sizes[i], (kernel[i] - 1) * dilations[i] + 1, strides[i], pads[i::rank])
        for i in range(rank)
    ]
    begin, end, output = (tuple(r[k] for r in rows) for k in range(3))
    return Window(tuple(kernel), strides, dilations, begin, end, output)


def _axis(
    mode: str, ceil: bool, size: Any, extent: int, stride: int, pads: Sequence[int]
) -> tuple[Any, Any, Any]:
    if mode.startswith("SAME"):
        count = dimensions.ceildiv(size, stride)
        total = dimensions.maximum((count - 1) * stride + extent - size, 0)
        small = dimensions.floordiv(total, 2)
        return (
            (small, total - small, count)
            if mode == "SAME_UPPER"
            else (
                total - small,
                small,
                count,
            )
        )
    begin, end = (0, 0) if mode == "VALID" else pads
    room = size + begin + end - extent
    if isinstance(room, int) and room < 0:
        raise InferenceError(
            f"a window of {extent} does not fit in size {size} with padding {begin} + {end}"
        )
    if not ceil:
        return begin, end, dimensions.floordiv(room, stride) + 1
    # A window that would start in the right padding is left out.
    count = dimensions.minimum(
        dimensions.ceildiv(room, stride) + 1, dimensions.ceildiv(size + begin, stride)
    )
    return begin, end, count


def patches(x: Array, window: Window, fill: Any) -> Array:
    """What the window sees: a view (N, C, *output, *kernel), with ``fill`` as padding."""
    rank = len(window.kernel)
    sizes = x.shape[2:]
    reach = [
        (o - 1) * s + e
        for o, s, e in zip(window.output, window.strides, window.extent, strict=True)
    ]
    after = [max(r - n - b, 0) for r, n, b in zip(reach, sizes, window.begin, strict=True)]
    if any(window.begin) or any(after):
        widths = ((0, 0), (0, 0), *zip(window.begin, after, strict=True))
        x = np.pad(x, widths, constant_values=fill)
    axes = tuple(range(2, 2 + rank))
    views = np.lib.stride_tricks.sliding_window_view(x, window.extent, axis=axes)
    cut = tuple(
        slice(0, (o - 1) * s + 1, s) for o, s in zip(window.output, window.strides, strict=True)
    )
    taps = tuple(slice(None, None, d) for d in window.dilations)
    return views[(slice(None), slice(None), *cut, *taps)]


def kernel_axes(rank: int) -> tuple[int, ...]:
    """The kernel's axes in a patches view of ``rank`` spatial axes."""
    return tuple(range(-rank, 0))
