"""Deciding: what tactic sources decide by in a layer's constants, as a digest.

A Body's signature leaves out what its constant inputs hold: layers alike but for their weights
share tactics and timings. Some values decide all the same which kernel runs, and how fast:

- zero points (several libraries multiply only where they are 0);
- constants of one element: a limit, a factor, an exponent;
- what reaches a softmax otherwise than through a product: a causal mask becomes a kernel's option;
- which scales of quantization are equal: a pooling may then stay in integers.

Anything else is a weight: a source may not look at it before ``prepare``. A scale's own value is
one, too: every layer has another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping

import numpy as np

from workbench.body import Array, Body, Node

QUANTIZATIONS = frozenset({"QuantizeLinear", "DequantizeLinear"})
PRODUCTS = frozenset({"matrix", "convolution"})
"""Families of operators whose operands are weights."""
REMEMBERED = 1 << 16
"""Bytes from which on an array's digest is remembered: a model's layers share one mask."""


class Deciding:
    """Digests of layers' deciding constants; an array that many layers read is read once."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Array, bytes]] = {}

    def digest(self, body: Body, constants: Mapping[str, Array]) -> str:
        """Equal for layers of one signature that a source treats alike; empty where none decides.

        constants: values of the constant inputs, by name.
        """
        if not constants:
            return ""
        reads = _Reads(body, constants)
        scales, values = reads.scales, reads.points | reads.masks
        seen: list[bytes] = []
        parts: list[bytes] = []
        for index, i in enumerate(body.inputs):
            array = constants.get(i.name)
            if array is None:
                continue
            if i.name in values or (array.size == 1 and i.name not in scales):
                parts.append(f"{index}:".encode() + self._of(array))
            elif i.name in scales:
                scale = np.asarray(array, np.float32).tobytes()
                if scale in seen:
                    parts.append(f"{index}={seen.index(scale)}".encode())
                seen.append(scale)
        return hashlib.blake2b(b" ".join(parts), digest_size=16).hexdigest() if parts else ""

    def _of(self, array: Array) -> bytes:
        if array.nbytes < REMEMBERED:
            return _digest(array)
        known = self._known.get(id(array))
        if known is None:
            known = self._known[id(array)] = (array, _digest(array))
        return known[1]


def _digest(array: Array) -> bytes:
    if array.dtype.kind in "OT":
        data: object = repr(array.tolist()).encode()
    else:
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return hashlib.blake2b(data, digest_size=16).digest()  # pyright: ignore[reportArgumentType]


class _Reads:
    """Which of a Body's constant inputs are scales, zero points and masks."""

    def __init__(self, body: Body, constants: Collection[str]) -> None:
        self._constants = constants
        self._producers = {o: n for n in body.nodes for o in n.outputs if o}
        quantizations = [n for n in body.nodes if n.op in QUANTIZATIONS]
        self.scales = {s for n in quantizations for s in self._sources(n.inputs[1:2])}
        self.points = {s for n in quantizations for s in self._sources(n.inputs[2:3])}
        anchor = body.anchor_node
        softmax = anchor if anchor is not None and anchor.op == "Softmax" else None
        self.masks = set(self._sources(softmax.inputs)) - self.scales if softmax else set[str]()

    def _sources(self, values: Collection[str]) -> Iterator[str]:
        """The constants that values are computed from, as far as no product lies between."""
        todo, done = [v for v in values if v], set[str]()
        while todo:
            value = todo.pop()
            if value in done:
                continue
            done.add(value)
            if value in self._constants:
                yield value
            node: Node | None = self._producers.get(value)
            if node is not None and node.operator.family not in PRODUCTS:
                todo += [v for v in node.inputs if v]
