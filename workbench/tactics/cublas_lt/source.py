"""CUBLAS_LT, the tactic source: matrix products with bias, residual and activation, by ctypes.

Each algorithm that the library's heuristics return is one tactic.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from workbench.body import Array, TensorType
from workbench.datatypes import DataType
from workbench.devices import Buffer
from workbench.formats import LINEAR, Format
from workbench.gpu_device import DeviceConstant, GpuDevice, gpu_of
from workbench.gpu_packages import not_installed
from workbench.records import Refusal
from workbench.tactics.cublas_lt import algorithms
from workbench.tactics.cublas_lt.descriptors import (
    A_SCALE_POINTER,
    B_SCALE_POINTER,
    BIAS_POINTER,
    COMPUTE_TF32,
    D_SCALE_POINTER,
    Descriptors,
    bias_kind,
    compute_types,
)
from workbench.tactics.cublas_lt.library import check, library_version, load
from workbench.tactics.cublas_lt.product import NARROW, Factor, Product, product_of
from workbench.tactics.protocol import TF32, Call, Launch, Problem, Tactic
from workbench.tactics.terms import Constant, Constants, Term

REVISION = "4"
SCALES_SINCE = 120900
"""The library's version (12.9) that first takes a scale for each row and each column."""


class CublasLtSource:
    """cuBLASLt's own choice of algorithms, each timed."""

    name = "CUBLAS_LT"
    device_kind = "gpu"

    def unavailable(self) -> Refusal | None:
        found = not_installed("cupy", "CuPy") or load()
        return found if isinstance(found, Refusal) else None

    @property
    def version(self) -> str:
        library = load()
        return f"{REVISION}/{'none' if isinstance(library, Refusal) else library_version(library)}"

    def candidates(self, problem: Problem) -> Sequence[Tactic | Refusal]:
        product = stored_product(problem)
        if isinstance(product, Refusal):
            return (product,)
        device = problem.device
        if not isinstance(device, GpuDevice):
            reason = f"cuBLASLt's heuristics ask the GPU; this is '{device.kind}'"
            return (Refusal(reason, code="device"),)
        if product.columns is not None and (version := library_version(load())) < SCALES_SINCE:
            reason = f"cuBLASLt scales FP8 by channel from {SCALES_SINCE} on; this is {version}"
            return (Refusal(reason, code="library"),)
        found: list[Tactic | Refusal] = []
        with device.current:
            for compute in compute_types(product, tf32=problem.tf32):
                d = Descriptors(product, device, compute)
                for settings in algorithms.proposed(d, problem.workspace_limit):
                    found.append(self._tactic(problem, product, compute, settings))
        return found or (Refusal("cuBLASLt has no algorithm for this product", code="algorithm"),)

    def _tactic(
        self, problem: Problem, product: Product, compute: int, settings: algorithms.Settings
    ) -> Tactic:
        body = problem.body
        name = algorithms.title(settings)
        tf32 = compute == COMPUTE_TF32
        return Tactic(
            self.name,
            f"TF32 {name}" if tf32 else name,
            tuple(_layout(product, i.type) for i in body.dynamic_inputs),
            tuple(_layout(product, t) for t in body.output_types),
            product.kind,
            (*((TF32,) if tf32 else ()), ("compute", compute), *settings),
            self.version,
            emulated=not problem.device.native(product.kind),
        )

    def prepare(self, tactic: Tactic, problem: Problem) -> Call | Refusal:
        product = stored_product(problem)
        if isinstance(product, Refusal):
            return product
        device = gpu_of(problem.device)
        with device.current:
            d = Descriptors(product, device, tactic.parameter("compute"))
            words = algorithms.algorithm(d, tactic.parameters)
            space = algorithms.workspace_needed(d, words)
        if space is None:
            return Refusal("cuBLASLt does not run this algorithm at these sizes", code="algorithm")
        return _call(d, words, space, tactic, problem, device)

    def reformat(self, type_: TensorType, source: Format, target: Format) -> Tactic | Refusal:
        return Refusal("cuBLASLt rewrites no layouts", code="operator")


def stored_product(problem: Problem) -> Product | Refusal:
    """The Body's product with constant factors as they are packed: the summed axis innermost."""
    constants = Constants(problem.body, problem.constants)
    product = product_of(problem.body, constants)
    if isinstance(product, Refusal):
        return product
    packed = replace(
        product,
        a=_packed(product.a, constants, wanted=False),
        b=_packed(product.b, constants, wanted=True),
    )
    if packed.kind in NARROW and (packed.a.turned or not packed.b.turned):
        reason = f"{packed.kind.value} factors need the summed axis innermost"
        return Refusal(reason, code="layout")
    return packed


def _packed(factor: Factor, constants: Constants, *, wanted: bool) -> Factor:
    if factor.turned == wanted or not constants.knows(factor.name):
        return factor
    return replace(factor, rows=factor.columns, columns=factor.rows, turned=wanted, flipped=True)


def _layout(product: Product, type_: TensorType) -> Format:
    return product.layout if product.layout.fits(len(type_.shape)) else LINEAR


def _call(
    d: Descriptors, words: Any, space: int, tactic: Tactic, problem: Problem, device: GpuDevice
) -> Call:
    p, library = d.product, d.library
    values = Constants(problem.body, problem.constants)
    positions = {i.name: k for k, i in enumerate(problem.body.dynamic_inputs)}
    constants = {
        side: _factor(device, values, f)
        for side, f in (("a", p.a), ("b", p.b))
        if values.knows(f.name)
    }
    if p.bias:
        constants["bias"] = _vector(device, values, p.bias, bias_kind(p))
        d.set(BIAS_POINTER, ctypes.c_void_p(constants["bias"].address))
    if p.columns is not None:
        columns = Constant(p.columns, DataType.FLOAT, (p.n,))
        constants["columns"] = device.constant((values.packed(columns),))
        constants["rows"] = device.constant((np.ones(p.m, np.float32),))
        # Column-major: ``b`` comes first.
        d.set(A_SCALE_POINTER, ctypes.c_void_p(constants["columns"].address))
        d.set(B_SCALE_POINTER, ctypes.c_void_p(constants["rows"].address))
    alpha = p.number * _number(values, p.alpha)
    if p.scale is not None and p.out is DataType.FP8:
        scale = np.array([_number(values, p.scale)], np.float32)
        constants["scale"] = device.constant((scale,))
        d.set(D_SCALE_POINTER, ctypes.c_void_p(constants["scale"].address))
    elif p.scale is not None:
        alpha *= _number(values, p.scale)
    one, beta = ctypes.c_float(alpha), ctypes.c_float(1.0 if p.residual else 0.0)

    def bind(
        inputs: Sequence[Buffer], outputs: Sequence[Buffer], workspace: Buffer | None, stream: Any
    ) -> Launch:
        def at(side: str, name: str) -> Any:
            found = constants.get(side) or inputs[positions[name]]
            return ctypes.c_void_p(found.address)

        own = stream or device.main_stream
        target = ctypes.c_void_p(outputs[0].address)
        # Of a C that is not read only the address is looked at; FP8 results need one of their own.
        apart = at("b", p.b.name) if p.out is DataType.FP8 else target
        arguments = (
            d.handle,
            d.operation,
            ctypes.byref(one),
            at("b", p.b.name),
            d.b,
            at("a", p.a.name),
            d.a,
            ctypes.byref(beta),
            at("residual", p.residual) if p.residual else apart,
            d.c,
            target,
            d.d,
            words,
            ctypes.c_void_p(workspace.address if workspace else 0),
            ctypes.c_size_t(space),
            ctypes.c_void_p(own.ptr),
        )

        def launch() -> None:
            with device.current:
                check(library.cublasLtMatmul(*arguments), "Matmul")

        return launch

    # No name is a Body value's: any of these may be called "scale" or "words".
    kept = {"descriptors": d, "words": words, **constants}
    return Call(f"cublasLt {p.kind.info.label} {tactic.name}", bind, space, packed=kept)


def _number(values: Constants, term: Term) -> float:
    """What a term of numbers amounts to."""
    total = 1.0
    for value, power in term.factors:
        total *= values.number(value) ** power
    return total


def _factor(device: GpuDevice, values: Constants, factor: Factor) -> DeviceConstant:
    """A constant factor on the device, as its record says that it is stored."""
    array = values.value(factor.name)

    def packed() -> Array:
        return array.mT if factor.flipped else array

    return _shared(device, values, factor.name, f"factor {factor.flipped}", packed)


def _vector(device: GpuDevice, values: Constants, name: str, kind: DataType) -> DeviceConstant:
    def packed() -> Array:
        return values.value(name).reshape(-1).astype(kind.numpy, copy=False)

    return _shared(device, values, name, f"vector {kind.value}", packed)


def _shared(
    device: GpuDevice, values: Constants, name: str, packing: str, make: Any
) -> DeviceConstant:
    """A packed constant; one that is computed within the Body is this Body's own."""
    own = "" if name in values.constant_inputs else f"{values.body.signature} {name}"
    sources = [values.given[s] for s in values.sources(name)]
    return device.constant(sources, f"cublasLt {packing} {own}", make)


CUBLAS_LT = CublasLtSource()
