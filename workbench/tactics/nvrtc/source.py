"""NVRTC, the tactic source: generated kernels for whatever has no library call."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from workbench.body import Array, Body, TensorType
from workbench.devices import Buffer
from workbench.formats import GPU_FORMATS, Format
from workbench.gpu_device import (
    DeviceConstant,
    GpuDevice,
    gpu_of,
    require_aligned,
)
from workbench.gpu_launch import KernelLaunch, LoadedKernel, overlapped, waits
from workbench.gpu_targets import carried, least_capability, runnable
from workbench.records import Refusal
from workbench.tactics.arithmetic import has_product
from workbench.tactics.compile_processes import CompileError
from workbench.tactics.launch import reformat_body
from workbench.tactics.machine_code import brings, machine_code
from workbench.tactics.native import in_order
from workbench.tactics.nvrtc.compiler import (
    CompiledByNvrtc,
    compile_text,
    compilers,
    nvrtc_version,
)
from workbench.tactics.nvrtc.frame import KernelText
from workbench.tactics.nvrtc.kernels import (
    Variant,
    kernel,
    layouts_of,
    reformat_kernel,
    variant_of,
    variants,
)
from workbench.tactics.nvrtc.scalars import STORAGE
from workbench.tactics.nvrtc.weight_only import packed
from workbench.tactics.protocol import Call, Launch, Problem, Tactic

LEVEL = "hardware_compatibility"
"""Code of refusals for other GPUs' sake."""


class NvrtcSource(CompiledByNvrtc):
    """Kernels as text, compiled for the device's compute capability; see ``kernels``."""

    name = "NVRTC"
    revision = "6"

    def candidates(self, problem: Problem) -> Sequence[Tactic | Refusal]:
        offered = variants(problem.body)
        if isinstance(offered, Refusal):
            return (offered,)
        found: list[Tactic | Refusal] = []
        for v in offered:
            text = kernel(problem.body, v)
            reason = text if isinstance(text, Refusal) else _too_new(text, problem)
            found.append(reason or self._tactic(problem, v))
        return tuple(dict.fromkeys(found))

    def _tactic(self, problem: Problem, v: Variant) -> Tactic:
        body, device = problem.body, problem.device
        followed, written = layouts_of(body, v)
        kind = body.compute_type
        return Tactic(
            self.name,
            v.name,
            tuple(followed[i.name] for i in body.dynamic_inputs),
            (written,) * len(body.outputs),
            kind,
            (*v.parameters, ("layout", v.layout.name)),
            self.version,
            emulated=not device.native(kind) or emulated_product(body),
        )

    def prepare(self, tactic: Tactic, problem: Problem) -> Call | Refusal:
        text = _text(tactic, problem.body)
        if isinstance(text, Refusal):
            return text
        try:
            return _call(text, tactic, problem)
        except CompileError as e:
            return Refusal(f"NVRTC does not compile it: {e}", code="compile")

    def precompile(self, problem: Problem, tactics: Sequence[Tactic]) -> tuple[Future[bytes], ...]:
        def compiled(text: KernelText, tactic: Tactic) -> bytes:
            return next(iter(_machine_code(text, tactic, problem)[1].values()))

        texts = [(_text(t, problem.body), t) for t in tactics]
        return tuple(
            compilers().submit(compiled, text, t)
            for text, t in texts
            if isinstance(text, KernelText)
        )

    def reformat(self, type_: TensorType, source: Format, target: Format) -> Tactic | Refusal:
        if len(type_.shape) < 3:
            return Refusal("layouts need a rank of 3 and more", code="rank")
        known = {f for f in GPU_FORMATS if f.holds(type_.dtype, type_.shape)}
        if type_.dtype not in STORAGE or not {source, target} <= known:
            return Refusal(f"no NVRTC kernel rewrites {type_} from {source} to {target}")
        parameters = (("body", reformat_body(type_).signature),)
        return Tactic(
            self.name, "reformat", (source,), (target,), type_.dtype, parameters, self.version
        )


def _too_new(text: KernelText, problem: Problem) -> Refusal | None:
    own = gpu_of(problem.device).compute_capability
    have = least_capability(problem.compatibility, own)
    if have >= text.since:
        return None
    need = f"needs compute capability {text.since / 10}"
    if own >= text.since:
        return Refusal(f"{need}; {problem.compatibility.name} goes back to {have / 10}", code=LEVEL)
    return Refusal(f"{need}, this is {have / 10}", code="device")


def emulated_product(body: Body) -> bool:
    """Whether the Body multiplies integers, which these kernels do in float32."""
    kind = body.compute_type
    return kind.is_integer and kind.info.bits <= 8 and has_product(body)


def _text(tactic: Tactic, body: Body) -> KernelText | Refusal:
    if tactic.name == "reformat":
        return reformat_kernel(body, tactic.inputs[0], tactic.outputs[0])
    layout = tactic.parameter("layout")
    return kernel(body, variant_of(tactic.name, layout, tactic.parameters))


def _machine_code(
    text: KernelText, tactic: Tactic, problem: Problem
) -> tuple[str, dict[str, bytes]]:
    """The target that this device runs, and code by key: that, then all that a plan must carry.

    Where a plan brings the code, that alone.
    """
    device = gpu_of(problem.device)
    own = device.compute_capability
    for target in runnable(own):
        parts = _parts(text, target, tactic.version.partition("/")[2])
        if brings(problem, parts):
            return target, dict([machine_code(problem, parts, bytes)])
    targets = carried(problem.compatibility, own)
    return targets[0], dict(_compiled(text, t, problem, device) for t in targets)


def _parts(text: KernelText, target: str, version: str) -> tuple[str, ...]:
    """All that decides a kernel's code. version: of NVRTC."""
    return ("nvrtc", version, target, text.code)


def _compiled(
    text: KernelText, target: str, problem: Problem, device: GpuDevice
) -> tuple[str, bytes]:
    parts = _parts(text, target, nvrtc_version())
    return machine_code(problem, parts, lambda: compile_text(device.cupy, text.code, target))


def _call(text: KernelText, tactic: Tactic, problem: Problem) -> Call:
    device = gpu_of(problem.device)
    target, carries = _machine_code(text, tactic, problem)
    with device.current:
        module = device.cupy.cuda.function.Module()
        module.load(next(iter(carries.values())))
        loaded = [
            (LoadedKernel(device, module.get_function(n), (b, 1, 1), 0, waits(target)), (g, 1, 1))
            for n, g, b in text.launches
        ]
    constants = [
        _constant(device, text, k, problem.constants[i.name])
        for k, i in enumerate(problem.body.inputs)
        if i.constant
    ]

    names = [*(i.name for i in problem.body.dynamic_inputs), *problem.body.outputs]

    def bind(
        inputs: Sequence[Buffer], outputs: Sequence[Buffer], workspace: Buffer | None, stream: Any
    ) -> Launch:
        arguments = tuple(b.address for b in (*inputs, *outputs)) + tuple(
            c.address for c in constants
        )
        if workspace is not None:
            arguments += (workspace.address,)
        own = stream or device.main_stream
        operands = dict(zip(names, (b.address for b in (*inputs, *outputs)), strict=True))
        require_aligned(operands, text.aligned, tactic.title)
        launches = [KernelLaunch(one, grid, arguments, own) for one, grid in loaded]
        return in_order(overlapped(launches))

    packed = {f"c{k}": c for k, c in enumerate(constants)}
    kept = {"module": module, **packed}
    return Call(f"nvrtc {tactic.name}", bind, text.workspace, packed=kept, code=carries)


def _constant(device: GpuDevice, text: KernelText, position: int, array: Array) -> DeviceConstant:
    """A constant on the device, as the kernel reads it."""
    packing = dict(text.packing).get(position, "")
    return device.constant((array,), packing, lambda: packed(packing, array))


NVRTC = NvrtcSource()
