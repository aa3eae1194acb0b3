"""Realistic random inputs for a Body, by what reads them; and small sizes to try it at."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from workbench import dimensions
from workbench.body import MOVING, Array, Body, BodyInput, Literal, Node
from workbench.datatypes import DataType
from workbench.errors import NetworkError

SIZES = (2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 224, 256)
"""Sizes that ``small_bindings`` tries, smallest first."""

CARRIES = (MOVING - {"Split"}) | {"Cast"}
"""Operators that hand their data on: what reads their output reads the input."""

INDICES = {"Gather": 1, "GatherElements": 1, "ScatterElements": 1}
POSITIVE = frozenset(
    {
        ("BatchNormalization", 4),
        ("Div", 1),
        ("Log", 0),
        ("Pow", 0),
        ("Reciprocal", 0),
        ("Sqrt", 0),
    }
)
SCALES = frozenset({("QuantizeLinear", 1), ("DequantizeLinear", 1)})
ZERO_POINTS = frozenset({("QuantizeLinear", 2), ("DequantizeLinear", 2)})
KERNELS = frozenset({("Conv", 1), ("ConvTranspose", 1), ("Gemm", 1), ("MatMul", 1)})


def sample_inputs(
    body: Body,
    *,
    seed: int = 0,
    spread: float = 1.0,
    constants: Mapping[str, Array] | None = None,
) -> dict[str, Array]:
    """Values for every input of a Body whose sizes are numbers: ``constants``, and random ones.

    Floats are N(0, spread²), those of kernels and of what is positive as if the spread were 1;
    kernels are scaled to keep the variance; INT8 spans its range; indices lie within the axis that
    they index; other wide integers are 0 or 1. Raises NetworkError when a size is symbolic.
    """
    random = np.random.default_rng(seed)
    given = dict(constants or {})
    values: dict[str, Array] = {}
    for i in body.inputs:
        if not dimensions.is_static(i.type.shape):
            raise NetworkError(
                f"input '{i.name}' is {i.type}; its sizes are not bound",
                remedy="substitute the symbols first",
            )
        values[i.name] = given[i.name] if i.name in given else _sample(random, body, i, spread)
    return values


def readers(body: Body, name: str) -> tuple[tuple[Node, int], ...]:
    """The nodes that read a value, with the input's index; seen through moved data."""
    found: list[tuple[Node, int]] = []
    todo, seen = [name], {name}
    while todo:
        value = todo.pop()
        for n in body.nodes:
            for index, v in enumerate(n.inputs):
                if v != value:
                    continue
                if n.op in CARRIES:
                    todo.extend(o for o in n.outputs if o not in seen)
                    seen.update(n.outputs)
                else:
                    found.append((n, index))
    return tuple(found)


def _sample(random: np.random.Generator, body: Body, i: BodyInput, spread: float) -> Array:
    shape, dtype = i.type.shape, i.type.dtype
    used = readers(body, i.name)
    kinds = {(n.op, index) for n, index in used}
    if kinds & ZERO_POINTS:
        return np.zeros(shape, dtype.numpy)
    count = min(math.prod(shape), PERIOD)
    if dtype is DataType.BOOL:
        drawn = random.integers(0, 2, count)
    elif dtype.is_integer:
        drawn = random.integers(*_integers(body, used, dtype), count)
    elif dtype.is_float:
        drawn = _floats(random.standard_normal(count), kinds, shape, spread)
    else:
        raise NetworkError(f"cannot sample input '{i.name}' of type {dtype}")
    return np.resize(drawn.astype(dtype.numpy), shape)


def _integers(body: Body, used: tuple[tuple[Node, int], ...], dtype: DataType) -> tuple[int, int]:
    """The range [low, high) that the readers of an integer accept."""
    limits = [limit for n, index in used if (limit := _indexed(body, n, index)) is not None]
    if limits:
        return 0, max(1, min(limits))
    divides = any(n.op in ("Div", "Mod") and index == 1 for n, index in used)
    if dtype.info.bits <= 8 and not divides:
        return int(dtype.info.low), int(dtype.info.high) + 1
    if divides:
        return 1, 5
    if any(n.op == "DequantizeLinear" for n, _ in used):
        return -1000, 1001
    return 0, 2


def _indexed(body: Body, node: Node, index: int) -> int | None:
    """How many places an operand of indices may name; None where it holds no indices."""
    shape = body.types[node.inputs[0]].shape
    if INDICES.get(node.op) == index:
        return shape[node.attributes["axis"]]
    if (node.op, index) == ("RoiAlign", 2):
        return shape[0]
    if (node.op, index) in (("GatherND", 1), ("ScatterND", 1)):
        return min(shape)
    return None


PERIOD = 1_000_003
"""Numbers drawn at most; a larger array repeats them: a prime, as no stride of an array is."""


def _floats(
    drawn: Array, kinds: set[tuple[str, int]], shape: tuple[int, ...], spread: float = 1.0
) -> Array:
    """Draws from N(0, 1) as what reads an array of ``shape`` expects them."""
    if kinds & SCALES:
        return 0.01 + 0.04 * np.abs(drawn)
    if kinds & POSITIVE:
        return 0.5 + np.abs(drawn)
    if kinds & KERNELS:
        terms = int(np.prod(shape[1:])) if len(shape) > 2 else max(shape, default=1)
        return drawn / np.sqrt(max(terms, 1))
    return drawn * spread


LARGEST_SPREAD = 100.0


def spread_of(*bodies: Body) -> float:
    """The spread at which samples cross every ordinary limit written into the Bodies.

    A clip at 6 is no ReLU, but samples of N(0, 1) would hardly tell. Limits beyond
    ``LARGEST_SPREAD`` (masks, ends of a type's range) are left alone.
    """
    found = [1.0]
    for body in bodies:
        for node in body.nodes:
            literal = node.attributes.get("value")
            if isinstance(literal, Literal) and literal.dtype.is_float and len(literal.values) < 8:
                sizes = (abs(v) for v in literal.values if isinstance(v, float))
                found += [v for v in sizes if v <= LARGEST_SPREAD]
    return max(found)


def small_bindings(body: Body) -> dict[str, int]:
    """Small, distinct numbers for the Body's size symbols, such that its types still fit.

    Raises NetworkError when none of ``SIZES`` does.
    """
    names = body.symbols
    if not names:
        return {}
    for start in range(len(SIZES)):
        pool = itertools.chain(SIZES[start:], itertools.repeat(SIZES[-1]))
        bindings = dict(zip(names, pool, strict=False))
        if _fits(body, bindings):
            return bindings
    raise NetworkError(
        f"none of the sizes {SIZES} fits the symbols {', '.join(names)}",
        remedy="bind the symbols yourself",
    )


def _fits(body: Body, bindings: Mapping[str, Any]) -> bool:
    try:
        types = body.substitute(bindings).types
    except NetworkError:
        return False
    return all(isinstance(d, int) and d > 0 for t in types.values() for d in t.shape)
