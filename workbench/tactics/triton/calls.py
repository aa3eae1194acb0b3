"""From a Program to a Call: machine code loaded, constants packed, launches bound to addresses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from workbench import gpu_targets
from workbench.body import Array
from workbench.devices import ALIGNMENT, Buffer
from workbench.errors import DeviceError
from workbench.gpu_device import DeviceConstant, GpuDevice, gpu_of, require_aligned
from workbench.gpu_launch import KernelLaunch, LoadedKernel, overlapped
from workbench.gpu_targets import OLDEST_PORTABLE, HardwareCompatibilityLevel, carried, runnable
from workbench.host_threads import contiguous
from workbench.records import Refusal
from workbench.tactics.compile_processes import CompileError
from workbench.tactics.machine_code import brings, machine_code
from workbench.tactics.native import in_order
from workbench.tactics.product import evaluated
from workbench.tactics.protocol import Call, Launch, Problem
from workbench.tactics.triton.compiler import (
    COMPILERS,
    parts,
    triton_version,
    unpack_code,
)
from workbench.tactics.triton.kernel import ALIGNED, PLAIN_SHARED, Argument, Kernel, Program
from workbench.tactics.triton.tiles import chip_of
from workbench.tactics.workspace import over_limit

SMALL_AMPERE = 86
"""Compute capability, times ten, of the GPUs of Ampere's kin with the least shared memory."""
_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES


def capability_of(problem: Problem) -> int:
    """Compute capability of a problem's device, times ten, from its fingerprint."""
    have = problem.device.fingerprint
    found = gpu_targets.capability_of(have)
    if found is None:
        raise DeviceError(
            f"a compute capability (sm_90, say) is needed, {have.kind} '{have.name}' has the "
            f"features {list(have.features)}",
            place="TRITON",
            remedy="build for a GPU: open_device('gpu')",
        )
    return found


def call_of(program: Program, problem: Problem, version: str) -> Call | Refusal:
    """Compile (or find) the machine code of a program, pack its constants, and give its Call.

    version: of the Triton that compiled the code that a plan brings.
    """
    code: dict[str, bytes] = {}
    keys: list[str] = []
    for kernel in program.kernels:
        try:
            found = _machine_code(kernel, problem, version)
        except CompileError as e:
            return Refusal(f"Triton does not compile it: {e}", code="compile")
        for target, made in zip(targets_of(problem), found.values(), strict=False):
            shared, limit = unpack_code(made)[0]["shared"], _shared_limit(target, problem)
            if shared > limit:
                return Refusal(
                    f"needs {shared / 1024:.0f} KiB of shared memory > {limit / 1024:.0f} KiB"
                    f" for {target}",
                    code="shared_memory",
                )
        code.update(found)
        keys.append(next(iter(found)))
    offsets, space = _workspace(program.workspace)
    hungry = over_limit(space, problem.workspace_limit)
    if hungry is not None:
        return hungry
    device = gpu_of(problem.device)
    with device.current:
        loaded = [_loaded(device, code[k]) for k in keys]
    constants = _constants(program, problem)

    def bind(
        inputs: Sequence[Buffer], outputs: Sequence[Buffer], workspace: Buffer | None, stream: Any
    ) -> Launch:
        own = stream or device.main_stream
        addresses = _addresses(problem, inputs, outputs)
        launches: list[KernelLaunch] = []
        for kernel, code_here in zip(program.kernels, loaded, strict=True):
            pointers: list[int] = []
            for a in kernel.arguments:
                if a.kind == "workspace":
                    assert workspace is not None
                    pointers.append(workspace.address + offsets[a.name])
                elif a in constants:
                    pointers.append(constants[a].address)
                else:
                    pointers.append(addresses[a.name])
            names = (f"{a.kind} {a.name}" for a in kernel.arguments)
            operands = dict(zip(names, pointers, strict=True))
            require_aligned(operands, ALIGNED, f"TRITON {program.name}")
            # Triton's kernels take two more pointers, to scratch memory that these don't use. The
            # last says instead whether the next kernel may start; see ``worker.waiting``.
            launches.append(KernelLaunch(code_here, kernel.grid, (*pointers, 0), own))
        return in_order(overlapped(launches))

    # A packed constant may be called as one of the Body's is.
    kept = {f"{a.kind} {a.name}": c for a, c in constants.items()}
    return Call(f"triton {program.name}", bind, space, packed=kept, code=code)


def offered_capability(problem: Problem) -> int:
    """The compute capability that kernels are shaped for, times ten."""
    own = capability_of(problem)
    return SMALL_AMPERE if _portable(problem) and own >= OLDEST_PORTABLE else own


def _portable(problem: Problem) -> bool:
    return problem.compatibility is HardwareCompatibilityLevel.AMPERE_PLUS


def targets_of(problem: Problem) -> tuple[str, ...]:
    """What a plan carries each kernel for: this device first."""
    return carried(problem.compatibility, capability_of(problem))


def _machine_code(kernel: Kernel, problem: Problem, version: str) -> dict[str, bytes]:
    """Code by key: for this device first, then for every other target that a plan must carry.

    Where a plan brings the code, that alone. Raises CompileError.
    """
    for target in runnable(capability_of(problem)):
        key = parts(kernel, target, version)
        if brings(problem, key):
            return dict([machine_code(problem, key, bytes)])
    return dict(
        machine_code(
            problem, parts(kernel, target, version), lambda t=target: _compiled(kernel, t, version)
        )
        for target in targets_of(problem)
    )


def _shared_limit(target: str, problem: Problem) -> int:
    """Shared memory on every GPU that runs a target's code: 8.0's kin of a portable plan, too."""
    own = int(target.partition("_")[2])
    smaller = _portable(problem) and own == OLDEST_PORTABLE
    return chip_of(SMALL_AMPERE if smaller else own).shared


def _compiled(kernel: Kernel, target: str, version: str) -> bytes:
    if version != triton_version():
        raise CompileError(f"it is of Triton {version}, installed is {triton_version()}")
    return COMPILERS.submit(kernel, target).result()


def _loaded(device: GpuDevice, code: bytes) -> LoadedKernel:
    meta, cubin = unpack_code(code)
    module = device.cupy.cuda.function.Module()
    module.load(cubin)
    function, shared = module.get_function("kernel"), meta["shared"]
    if shared > PLAIN_SHARED:
        device.cupy.cuda.driver.funcSetAttribute(function.ptr, _DYNAMIC_SHARED, shared)
    block = (32 * meta["warps"], 1, 1)
    return LoadedKernel(device, function, block, shared, bool(meta["waits"]))


def _workspace(sizes: Mapping[str, int]) -> tuple[dict[str, int], int]:
    """Where each part begins, and the bytes of all of them."""
    offsets: dict[str, int] = {}
    total = 0
    for name, size in sizes.items():
        offsets[name] = total
        total += -(-size // ALIGNMENT) * ALIGNMENT
    return offsets, total


def _addresses(
    problem: Problem, inputs: Sequence[Buffer], outputs: Sequence[Buffer]
) -> dict[str, int]:
    body = problem.body
    names = [i.name for i in body.dynamic_inputs]
    found = {n: b.address for n, b in zip(names, inputs, strict=True)}
    return {**found, **{n: b.address for n, b in zip(body.outputs, outputs, strict=True)}}


def constants_of(program: Program, problem: Problem) -> dict[Argument, Array]:
    """Every constant that the kernels read: of the Body as they are, and derived ones."""
    return {
        a: contiguous(_made(a, program, problem)) for a in _constant_arguments(program, problem)
    }


def _constant_arguments(program: Program, problem: Problem) -> tuple[Argument, ...]:
    constant = {i.name for i in problem.body.inputs if i.constant}
    every = (a for kernel in program.kernels for a in kernel.arguments)
    wanted = (a for a in every if a.kind == "packed" or (a.kind == "value" and a.name in constant))
    return tuple(dict.fromkeys(wanted))


def _made(argument: Argument, program: Program, problem: Problem) -> Array:
    if argument.kind == "value":
        return np.asarray(problem.constants[argument.name])
    pack = program.packs[argument.name]
    return pack.arrange(np.asarray(evaluated(problem.body, pack.value, problem.constants)))


def _constants(program: Program, problem: Problem) -> dict[Argument, DeviceConstant]:
    """The constants on the device, shared with every Call that packs the same arrays alike."""
    return {a: _constant(a, program, problem) for a in _constant_arguments(program, problem)}


def _constant(argument: Argument, program: Program, problem: Problem) -> DeviceConstant:
    device, given = gpu_of(problem.device), problem.constants
    if argument.kind == "value":
        return device.constant((given[argument.name],))
    pack = program.packs[argument.name]
    own, sources = "", (pack.value,)
    if pack.value not in given:
        # Names differ from layer to layer; what is computed within a Body is its own.
        own = f"{problem.body.signature} {pack.value}"
        sources = tuple(i.name for i in problem.body.inputs if i.constant)
    packing = f"triton {pack.recipe} {own}"
    arrays = [given[n] for n in sources]
    return device.constant(arrays, packing, lambda: _made(argument, program, problem))
