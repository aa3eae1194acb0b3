"""What a device can reach at most: bytes and operations a second, measured with our own kernels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from workbench.body import Body, BodyInput, Node, TensorType
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


@dataclass(frozen=True)
class Ceilings:
    """The most that was reached on a device. threads: of a CPU.

    bytes_per_s: read and written by a Relu of a large tensor. flops_per_s: of a large square
    product, by type. kernels: which kernel reached it, by what was measured.
    """

    device: Fingerprint
    threads: int
    bytes_per_s: float
    flops_per_s: Mapping[DataType, float]
    kernels: Mapping[str, str]


def measure_ceilings(device: Device, types: tuple[DataType, ...] = (DataType.FLOAT,)) -> Ceilings:
    """Measure a device's ceilings, for products in these float types; takes a second or two.

    A type that no kernel multiplies is left out. Raises NoTacticError if nothing runs.
    """
    config = BuilderConfig()
    config.verify = "none"  # speed alone is asked here; builds check these kernels
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
        best = _fastest(shop, _product(edge, kind))
        if best is not None:
            kernels[kind.info.label], seconds = best
            flops[kind] = 2 * edge**3 / seconds
    threads = getattr(device, "threads", 1)
    return Ceilings(device.fingerprint, threads, rate, flops, kernels)


def _fastest(shop: Workshop, body: Body) -> tuple[str, float] | None:
    """Kernel and seconds of the fastest tactic."""
    weights = {
        i.name: np.full(i.type.shape, 0.5, i.type.dtype.numpy) for i in body.inputs if i.constant
    }
    problem = LayerProblem("ceiling", body, (body,), weights, body.compute_type)
    timed = [c for c in shop.candidates(problem) if c.eligible and c.timing]
    if not timed:
        return None
    best = min(timed, key=lambda c: c.timing.min_us if c.timing else 0.0)
    assert best.timing is not None
    return best.kernel, best.timing.min_us / 1e6


def _relu(count: int) -> Body:
    relu = operator_named("Relu")
    shape = (count >> 10, 1 << 10)
    x = BodyInput("x", TensorType(DataType.FLOAT, shape))
    return Body((x,), (Node(relu, ("x",), ("y",), relu.complete({})),), ("y",))


def _product(edge: int, kind: DataType) -> Body:
    matmul = operator_named("MatMul")
    type_ = TensorType(kind, (edge, edge))
    node = Node(matmul, ("x", "w"), ("y",), matmul.complete({}))
    return Body((BodyInput("x", type_), BodyInput("w", type_, constant=True)), (node,), ("y",), 0)
