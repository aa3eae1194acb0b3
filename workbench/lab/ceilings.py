"""What a device can reach at most: bytes and operations a second, measured with our own kernels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from workbench.body import Array, Body, BodyInput, Node, TensorType
from workbench.config import BuilderConfig
from workbench.datatypes import DataType
from workbench.devices import Device, Fingerprint
from workbench.errors import NoTacticError
from workbench.operators import operator_named
from workbench.selection.candidates import Workshop
from workbench.selection.layer_problem import LayerProblem
from workbench.timing import TimingCache

ELEMENTS = {"cpu": 1 << 24, "gpu": 1 << 28}
"""FP32 values of the copy: several times what the caches hold."""
EDGE = {"cpu": 1024, "gpu": 8192}
"""Rows and columns of the square product."""
BLOCK = 1_000_003
"""Random weights that are drawn; no multiple of a row, so that rows differ."""
MOST_TACTICS = 12
"""Tactics tried of all sources together: their best guesses come first."""
AS_STORED = frozenset({DataType.FLOAT, DataType.BF16, DataType.HALF, DataType.DOUBLE})
"""Types whose products read them as they are."""
QUANTIZED: Mapping[DataType, DataType] = MappingProxyType(
    {
        DataType.INT8: DataType.INT8,
        DataType.UINT8: DataType.INT8,
        DataType.FP8: DataType.FP8,
    }
)
"""Types whose products read them through DequantizeLinear, and the type of the weights there."""


@dataclass(frozen=True)
class Ceilings:
    """The most that was reached on a device. threads: of a CPU.

    bytes_per_s: read and written by a Relu of a large tensor. flops_per_s: of a large square
    product, by the type in which it was executed. kernels: which kernel reached it, by what was
    measured.
    """

    device: Fingerprint
    threads: int
    bytes_per_s: float
    flops_per_s: Mapping[DataType, float]
    kernels: Mapping[str, str]


def measure_ceilings(device: Device, types: tuple[DataType, ...] = (DataType.FLOAT,)) -> Ceilings:
    """Measure a device's ceilings, for products in these types; takes a second or two.

    A type in which nothing is multiplied here is left out: its ceiling stays unknown. Raises
    NoTacticError if nothing runs.
    """
    config = BuilderConfig()
    config.verify = "none"  # speed alone is asked here; builds check these kernels
    config.max_num_tactics = MOST_TACTICS
    shop = Workshop(device, config.frozen(), TimingCache(device.fingerprint))
    kernels: dict[str, str] = {}
    count = ELEMENTS[device.kind]
    copied = _fastest(shop, _relu(count))
    if copied is None:
        raise NoTacticError("nothing runs a Relu", place=str(device.fingerprint))
    kernels["bytes"], seconds = copied
    rate = 2 * 4 * count / seconds
    edge = EDGE[device.kind]
    flops: dict[DataType, float] = {}
    for kind in types:
        product = _product(edge, kind)
        best = None if product is None else _fastest(shop, product)
        if best is not None:
            kernels[kind.info.label], seconds = best
            flops[kind] = 2 * edge**3 / seconds
    threads = getattr(device, "threads", 1)
    return Ceilings(device.fingerprint, threads, rate, flops, kernels)


def _fastest(shop: Workshop, body: Body) -> tuple[str, float] | None:
    """Kernel and seconds of the fastest tactic that computes in the Body's own type."""
    kind = body.compute_type
    weights = {i.name: _weights(i.type) for i in body.inputs if i.constant}
    found = shop.candidates(LayerProblem("ceiling", body, (body,), weights, kind))
    own = (c for c in found if c.tactic is not None and c.tactic.precision is kind)
    timed = [c for c in own if c.eligible and c.timing]
    if not timed:
        return None
    best = min(timed, key=lambda c: c.timing.min_us if c.timing else 0.0)
    assert best.timing is not None and best.tactic is not None
    rounded = best.tactic.tf32 and "TF32" not in best.kernel
    return best.kernel + (" in TF32" if rounded else ""), best.timing.min_us / 1e6


def _weights(kind: TensorType) -> Array:
    """Random values, a block of them over and over; 1 for a scale.

    A chip that multiplies by ones takes less power, and so runs faster than it ever will.
    """
    if not kind.shape:
        return np.ones((), kind.dtype.numpy)
    random = np.random.default_rng(0)
    block = random.standard_normal(BLOCK)
    if kind.dtype.is_integer:
        block = random.integers(-128, 128, BLOCK)
    return np.resize(block.astype(kind.dtype.numpy), tuple(map(int, kind.shape)))


def _relu(count: int) -> Body:
    relu = operator_named("Relu")
    shape = (count >> 10, 1 << 10)
    x = BodyInput("x", TensorType(DataType.FLOAT, shape))
    return Body((x,), (Node(relu, ("x",), ("y",), relu.complete({})),), ("y",))


def _product(edge: int, kind: DataType) -> Body | None:
    """A square product with constant weights; None for a type that has none."""
    if kind in QUANTIZED:
        return _quantized_product(edge, kind)
    if kind not in AS_STORED:
        return None
    matmul = operator_named("MatMul")
    type_ = TensorType(kind, (edge, edge))
    node = Node(matmul, ("x", "w"), ("y",), matmul.complete({}))
    return Body((BodyInput("x", type_), BodyInput("w", type_, constant=True)), (node,), ("y",), 0)


def _quantized_product(edge: int, kind: DataType) -> Body:
    """As a quantized linear layer multiplies, with one scale for each factor."""
    matmul, dequantize = operator_named("MatMul"), operator_named("DequantizeLinear")
    x, w = (TensorType(k, (edge, edge)) for k in (kind, QUANTIZED[kind]))
    scale = TensorType(DataType.FLOAT, ())
    inputs = (
        BodyInput("x", x),
        BodyInput("x_scale", scale, constant=True),
        BodyInput("w", w, constant=True),
        BodyInput("w_scale", scale, constant=True),
    )
    nodes = (
        Node(dequantize, ("x", "x_scale"), ("x_real",), dequantize.complete({})),
        Node(dequantize, ("w", "w_scale"), ("w_real",), dequantize.complete({})),
        Node(matmul, ("x_real", "w_real"), ("y",), matmul.complete({})),
    )
    return Body(inputs, nodes, ("y",), 2)
