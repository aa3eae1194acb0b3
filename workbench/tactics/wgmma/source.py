"""WGMMA, the tactic source: products by constant weights on compute capability 9.0.

Generated as CUDA C++ and compiled by NVRTC, like NVRTC's own kernels, but for this one compute
capability: its matrix instructions are in no other (the target ``sm_90a``).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from workbench.body import TensorType
from workbench.devices import Buffer
from workbench.formats import Format
from workbench.gpu_device import gpu_of, require_aligned
from workbench.gpu_launch import KernelLaunch, LoadedKernel
from workbench.gpu_targets import HardwareCompatibilityLevel, capability_of
from workbench.records import Refusal
from workbench.tactics.compile_processes import CompileError
from workbench.tactics.machine_code import brings, machine_code
from workbench.tactics.nvrtc.compiler import (
    CompiledByNvrtc,
    compile_text,
    compilers,
    nvrtc_version,
)
from workbench.tactics.product import evaluated
from workbench.tactics.protocol import Call, Launch, Problem, Tactic
from workbench.tactics.scalar_text import Untranslatable
from workbench.tactics.wgmma.code import THREADS, ProductText, product_text
from workbench.tactics.wgmma.epilogue import finish
from workbench.tactics.wgmma.matrices import Matrices, matrices_of, packed_weights
from workbench.tactics.wgmma.tensor_map import tensor_map, window_map
from workbench.tactics.wgmma.tiles import tile_of, tiles

CAPABILITY = 90
TARGET = "sm_90a"
_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_ALIGNED = 16
"""Bytes to which operands are aligned: so many are read at once."""


class WgmmaSource(CompiledByNvrtc):
    """Kernels as text; see ``code``."""

    name = "WGMMA"
    revision = "1"

    def candidates(self, problem: Problem) -> Sequence[Tactic | Refusal]:
        capability = capability_of(problem.device.fingerprint)
        if capability != CAPABILITY:
            have = "none" if capability is None else f"{capability / 10}"
            text = f"needs compute capability {CAPABILITY / 10} itself, this is {have}"
            return (Refusal(text, code="device"),)
        if problem.compatibility is HardwareCompatibilityLevel.AMPERE_PLUS:
            level = problem.compatibility.name
            text = f"{level}: its instructions are those of compute capability 9.0 alone"
            return (Refusal(text, code="hardware_compatibility"),)
        try:
            matrices = matrices_of(problem.body, problem.constants)
            beside = bool(finish(matrices).beside)  # raises where the epilogue has no text
            offered = tiles(matrices.rows, matrices.columns, matrices.steps, beside=beside)
        except Untranslatable as e:
            return (Refusal(str(e), code="operator"),)
        layouts, body = matrices.layouts, problem.body
        return tuple(
            Tactic(
                self.name,
                t.title,
                tuple(layouts[i.name] for i in body.dynamic_inputs),
                tuple(layouts[o] for o in body.outputs),
                matrices.product.kind,
                t.parameters,
                self.version,
            )
            for t in offered
        )

    def prepare(self, tactic: Tactic, problem: Problem) -> Call | Refusal:
        try:
            return _call(tactic, problem)
        except Untranslatable as e:
            return Refusal(str(e), code="operator")
        except CompileError as e:
            return Refusal(f"NVRTC does not compile it: {e}", code="compile")

    def precompile(self, problem: Problem, tactics: Sequence[Tactic]) -> tuple[Future[bytes], ...]:
        def compiled(tactic: Tactic) -> bytes:
            return _machine_code(_text(tactic, problem)[1], tactic, problem)[1]

        return tuple(compilers().submit(compiled, t) for t in tactics)

    def reformat(self, type_: TensorType, source: Format, target: Format) -> Tactic | Refusal:
        return Refusal("products rewrite no layouts", code="operator")


def _text(tactic: Tactic, problem: Problem) -> tuple[Matrices, ProductText]:
    matrices = matrices_of(problem.body, problem.constants)
    return matrices, product_text(matrices, tile_of(tactic.parameters))


def _machine_code(text: ProductText, tactic: Tactic, problem: Problem) -> tuple[str, bytes]:
    device = gpu_of(problem.device)
    own = ("wgmma", tactic.version.partition("/")[2], TARGET, text.code)
    if brings(problem, own):
        return machine_code(problem, own, bytes)
    parts = ("wgmma", nvrtc_version(), TARGET, text.code)
    return machine_code(problem, parts, lambda: compile_text(device.cupy, text.code, TARGET))


def _call(tactic: Tactic, problem: Problem) -> Call:
    device, body = gpu_of(problem.device), problem.body
    matrices, text = _text(tactic, problem)
    tile = tile_of(tactic.parameters)
    key, code = _machine_code(text, tactic, problem)
    with device.current:
        module = device.cupy.cuda.function.Module()
        module.load(code)
        function = module.get_function("run")
        device.cupy.cuda.driver.funcSetAttribute(function.ptr, _DYNAMIC_SHARED, tile.shared_bytes)
    kernel = LoadedKernel(device, function, (THREADS, 1, 1), tile.shared_bytes, waits=True)
    constants = {
        i.name: device.constant((problem.constants[i.name],))
        for i in body.inputs
        if i.constant and i.name in text.operands
    }
    weights = _weights(matrices, problem)
    row_bytes = matrices.depth * matrices.product.kind.itemsize
    driver, whole = device.library, matrices.taps * row_bytes
    columns = tensor_map(driver, weights.address, matrices.placed, whole, tile.columns)
    blocks = min(text.tiles, device.processors)

    def bind(
        inputs: Sequence[Buffer], outputs: Sequence[Buffer], workspace: Buffer | None, stream: Any
    ) -> Launch:
        names = [*(i.name for i in body.dynamic_inputs), *body.outputs]
        addresses = {n: b.address for n, b in zip(names, (*inputs, *outputs), strict=True)}
        require_aligned(addresses, _ALIGNED, tactic.title)
        left = addresses[matrices.product.left.value]
        if matrices.windows is None:
            rows = tensor_map(driver, left, matrices.rows, row_bytes, tile.height)
        else:
            rows = window_map(driver, left, matrices.windows, row_bytes, tile.height)
        addresses |= {n: c.address for n, c in constants.items()}
        arguments = (rows, columns, *(addresses[n] for n in text.operands))
        own = stream or device.main_stream
        return KernelLaunch(kernel, (blocks, 1, 1), arguments, own)

    kept = {"module": module, "weights": weights, **constants}
    return Call(f"wgmma {tactic.name}", bind, packed=kept, code={key: code})


def _weights(matrices: Matrices, problem: Problem) -> Any:
    """The packed weights on the device, shared with every Call that packs the same array so."""
    device, value = gpu_of(problem.device), matrices.product.right.value
    recipe = f"wgmma {'nk' if matrices.filters_first else 'kn'} {matrices.columns}"
    names = [value]
    if value not in problem.constants:
        # Names differ from layer to layer; what is computed within a Body is its own.
        recipe += f" {problem.body.signature} {value}"
        names = [i.name for i in problem.body.inputs if i.constant]

    def make() -> Any:
        return packed_weights(matrices, evaluated(problem.body, value, problem.constants))

    return device.constant([problem.constants[n] for n in names], recipe, make)


WGMMA = WgmmaSource()
