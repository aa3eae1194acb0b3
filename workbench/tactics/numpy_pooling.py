"""NumPy kernels of pooling: one ufunc a window position, over strided views."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from workbench.body import Array, Node
from workbench.operators.windows import Window, window_of
from workbench.tactics.numpy_program import Kernel, KernelMaker, Lowering, working_type
from workbench.tactics.protocol import Launch


def pool(node: Node, low: Lowering) -> tuple[Kernel, tuple[str, ...]] | None:
    """MaxPool (values only) and AveragePool over a padded copy."""
    x = node.inputs[0]
    shape = tuple(low.types[x].shape)
    dtype = working_type(low.types[x].dtype)
    largest = node.op == "MaxPool"
    if len(node.outputs) > 1 or dtype.kind != "f":
        return None
    window = window_of(node.attributes, shape[2:], node.attributes["kernel_shape"])
    padded = _padded(window, shape)
    copies = padded != shape
    size = math.prod(padded) * dtype.itemsize if copies else 0
    counts = None if largest else _counts(window, shape, node, dtype)

    def bind(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array | None) -> Launch:
        a, y = inputs[0], outputs[0]
        room = a
        if copies:
            assert scratch is not None
            room = scratch[:size].view(dtype).reshape(padded)
        inside = room[(slice(None), slice(None), *_interior(window, shape))]
        taps = [room[(slice(None), slice(None), *t)] for t in _taps(window)]
        fill, ufunc = (-np.inf, np.maximum) if largest else (0.0, np.add)

        def launch() -> None:
            with np.errstate(invalid="ignore"):
                if copies:
                    room.fill(fill)
                    np.copyto(inside, a)
                np.copyto(y, taps[0])
                for t in taps[1:]:
                    ufunc(y, t, out=y)
                if counts is not None:
                    np.divide(y, counts, out=y)

        return launch

    return Kernel(f"strided {node.op}", bind, size), (low.operand(x),)


def _padded(window: Window, shape: tuple[int, ...]) -> tuple[int, ...]:
    reach = [
        (o - 1) * s + e
        for o, s, e in zip(window.output, window.strides, window.extent, strict=True)
    ]
    sizes = (max(b + n, r) for b, n, r in zip(window.begin, shape[2:], reach, strict=True))
    return (*shape[:2], *sizes)


def _interior(window: Window, shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(b, b + n) for b, n in zip(window.begin, shape[2:], strict=True))


def _taps(window: Window) -> list[tuple[slice, ...]]:
    """Where each kernel position reads, for all outputs."""
    return [
        tuple(
            slice(k * d, k * d + (o - 1) * s + 1, s)
            for k, d, o, s in zip(tap, window.dilations, window.output, window.strides, strict=True)
        )
        for tap in itertools.product(*map(range, window.kernel))
    ]


def _counts(window: Window, shape: tuple[int, ...], node: Node, dtype: Any) -> Array:
    """How many elements each average is over, shaped to broadcast."""
    sizes = _padded(window, shape)[2:]
    inside = np.zeros(sizes, np.int64)
    if node.attributes["count_include_pad"]:
        # Padding counts, what a ceiled window reads beyond it does not.
        ends = zip(window.begin, shape[2:], window.end, strict=True)
        inside[tuple(slice(0, b + n + e) for b, n, e in ends)] = 1
    else:
        inside[_interior(window, shape)] = 1
    return sum((inside[t] for t in _taps(window)), np.zeros(window.output, np.int64)).astype(dtype)


POOLING_MAKERS: dict[str, KernelMaker] = {"MaxPool": pool, "AveragePool": pool}
"""How NumPy computes these operators, by name."""
