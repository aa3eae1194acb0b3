"""NVRTC, the tactic source: generated kernels for whatever has no library call."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from workbench.body import Body, TensorType
from workbench.devices import Buffer, usable_cpus
from workbench.formats import HWC, LINEAR, Format
from workbench.gpu_device import gpu_of, not_installed, require_aligned
from workbench.records import Refusal
from workbench.tactics.arithmetic import has_product
from workbench.tactics.launch import reformat_body
from workbench.tactics.machine_code import machine_code
from workbench.tactics.nvrtc.frame import KernelText
from workbench.tactics.nvrtc.kernels import (
    Variant,
    kernel,
    reformat_kernel,
    variant_of,
    variants,
)
from workbench.tactics.nvrtc.pointwise import followed_layouts
from workbench.tactics.nvrtc.scalars import STORAGE
from workbench.tactics.protocol import Call, Launch, Problem, Tactic

REVISION = "4"


MESSAGE_LENGTH = 600


class CompileError(Exception):
    """What NVRTC said of a kernel."""


class NvrtcSource:
    """Kernels as text, compiled for the device's compute capability; see ``kernels``."""

    name = "NVRTC"
    device_kind = "gpu"
    slow = False

    def unavailable(self) -> Refusal | None:
        return not_installed("cupy", "CuPy")

    @property
    def version(self) -> str:
        return REVISION

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
        followed = followed_layouts(body, v.layout)
        kind = body.compute_type
        return Tactic(
            self.name,
            v.name,
            tuple(followed[i.name] for i in body.dynamic_inputs),
            (v.layout,) * len(body.outputs),
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
        texts = [_text(t, problem.body) for t in tactics]
        return tuple(
            _compilers().submit(lambda t=t: _machine_code(t, problem)[1])
            for t in texts
            if isinstance(t, KernelText)
        )

    def reformat(self, type_: TensorType, source: Format, target: Format) -> Tactic | Refusal:
        if type_.dtype not in STORAGE or not {source, target} <= {LINEAR, HWC}:
            return Refusal(f"no NVRTC kernel rewrites {type_} from {source} to {target}")
        if len(type_.shape) < 3:
            return Refusal("layouts need a rank of 3 and more", code="rank")
        parameters = (("body", reformat_body(type_).signature),)
        return Tactic(
            self.name, "reformat", (source,), (target,), type_.dtype, parameters, self.version
        )


def _too_new(text: KernelText, problem: Problem) -> Refusal | None:
    have = gpu_of(problem.device).compute_capability
    if have >= text.since:
        return None
    need = f"{text.since // 10}.{text.since % 10}"
    return Refusal(f"needs compute capability {need}, this is {have / 10}", code="device")


def emulated_product(body: Body) -> bool:
    """Whether the Body multiplies integers, which these kernels do in float32."""
    kind = body.compute_type
    return kind.is_integer and kind.info.bits <= 8 and has_product(body)


@functools.cache
def _compilers() -> ThreadPoolExecutor:
    """Threads are enough: NVRTC compiles without Python's lock."""
    return ThreadPoolExecutor(usable_cpus(), thread_name_prefix="nvrtc")


def _text(tactic: Tactic, body: Body) -> KernelText | Refusal:
    if tactic.name == "reformat":
        return reformat_kernel(body, tactic.inputs[0], tactic.outputs[0])
    layout = tactic.parameter("layout")
    return kernel(body, variant_of(tactic.name, layout, tactic.parameters))


def _machine_code(text: KernelText, problem: Problem) -> tuple[str, bytes]:
    device = gpu_of(problem.device)
    target = f"sm_{device.compute_capability}"
    parts = ("nvrtc", str(device.cupy.cuda.nvrtc.getVersion()), target, text.code)
    return machine_code(problem, parts, lambda: compile_text(device.cupy, text.code, target))


def _call(text: KernelText, tactic: Tactic, problem: Problem) -> Call:
    device = gpu_of(problem.device)
    key, code = _machine_code(text, problem)
    module = device.cupy.cuda.function.Module()
    module.load(code)
    function = module.get_function("run")
    constants = [
        device.constant((problem.constants[i.name],)) for i in problem.body.inputs if i.constant
    ]

    names = [*(i.name for i in problem.body.dynamic_inputs), *problem.body.outputs]

    def bind(
        inputs: Sequence[Buffer], outputs: Sequence[Buffer], workspace: Buffer | None, stream: Any
    ) -> Launch:
        arguments = tuple(b.address for b in (*inputs, *outputs)) + tuple(
            c.address for c in constants
        )
        own = stream or gpu_of(problem.device).main_stream
        operands = dict(zip(names, (b.address for b in (*inputs, *outputs)), strict=True))
        require_aligned(operands, text.aligned, tactic.title)

        def launch() -> None:
            with own:
                function((text.grid,), (text.block,), arguments)

        return launch

    packed = {f"c{k}": c for k, c in enumerate(constants)}
    kept = {"module": module, **packed}
    return Call(f"nvrtc {tactic.name}", bind, packed=kept, code={key: code})


def compile_text(cupy: Any, text: str, target: str) -> bytes:
    """CUDA C++ as machine code (cubin) for ``target``, such as ``sm_90``. Needs no GPU.

    Raises CompileError with the errors in the compiler's log.
    """
    nvrtc = cupy.cuda.nvrtc
    program = nvrtc.createProgram(text, "kernel.cu", (), ())
    try:
        nvrtc.compileProgram(program, (f"--gpu-architecture={target}", "--std=c++17"))
        return bytes(nvrtc.getCUBIN(program))
    except nvrtc.NVRTCError as e:
        lines = [line.strip() for line in nvrtc.getProgramLog(program).splitlines()]
        said = " ".join(line for line in lines if "error" in line) or " ".join(lines)
        raise CompileError(f"{e}: {said}"[:MESSAGE_LENGTH]) from None
    finally:
        nvrtc.destroyProgram(program)


NVRTC = NvrtcSource()
