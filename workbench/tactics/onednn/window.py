"""Sliding windows of convolutions and pools, from ONNX attributes to oneDNN's numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.operators.convolution import transposed_window


@dataclass(frozen=True)
class Window:
    """Sizes per spatial axis. padding: (before, after), as oneDNN wants it."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    padding: tuple[tuple[int, ...], tuple[int, ...]]
    reaches_past_padding: bool


def read_window(
    attributes: Mapping[str, Any],
    kernel: Sequence[int],
    source: Sequence[int],
    result: Sequence[int],
) -> Window:
    """The window of a node whose spatial sizes go from ``source`` to ``result``.

    Padding after each axis is what the last window needs: less than declared where a stride
    leaves a rest, more with ``ceil_mode`` (then ``reaches_past_padding``).
    """
    count = len(kernel)
    strides = _per_axis(attributes.get("strides"), count, 1)
    dilations = _per_axis(attributes.get("dilations"), count, 1)
    declared = _per_axis(attributes.get("pads"), 2 * count, 0)
    auto = attributes.get("auto_pad") or "NOTSET"
    before: list[int] = []
    after: list[int] = []
    past = False
    for a in range(count):
        needed = (result[a] - 1) * strides[a] + (kernel[a] - 1) * dilations[a] + 1 - source[a]
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            total = max(needed, 0)
            first = total // 2 if auto == "SAME_UPPER" else total - total // 2
        else:
            first = declared[a] if auto == "NOTSET" else 0
            past = past or needed - first > (declared[count + a] if auto == "NOTSET" else 0)
        before.append(first)
        after.append(needed - first)
    return Window(tuple(kernel), strides, dilations, (tuple(before), tuple(after)), past)


def read_transposed_window(
    attributes: Mapping[str, Any],
    kernel: Sequence[int],
    source: Sequence[int],
    result: Sequence[int],
) -> Window:
    """The window of a transposed convolution from ``source`` to ``result``; padding is its crop."""
    read = transposed_window(attributes, source, kernel)
    after = tuple(
        (n - 1) * s + e - b - r
        for n, s, e, b, r in zip(source, read.strides, read.extent, read.begin, result, strict=True)
    )
    return Window(tuple(kernel), read.strides, read.dilations, (tuple(read.begin), after), False)


def _per_axis(value: Any, count: int, default: int) -> tuple[int, ...]:
    return tuple(int(v) for v in value) if value else (default,) * count
