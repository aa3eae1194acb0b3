"""Triton's compiler, in processes of its own, and the form in which its machine code is kept."""

from __future__ import annotations

import functools
import importlib.metadata
import json
from concurrent.futures import Future
from pathlib import Path

from workbench.devices import usable_cpus
from workbench.tactics.compile_processes import Answer, CompileProcesses, code_of
from workbench.tactics.triton.kernel import ALIGNED, Kernel

PASSED = "fenced waiting early"
"""What the worker makes of Triton's PTX; see its functions of these names."""
WORKER = Path(__file__).with_name("worker.py")


@functools.cache
def triton_version() -> str:
    """The installed version of Triton, ``none`` where there is none."""
    try:
        return importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return "none"


def parts(kernel: Kernel, target: str, version: str) -> tuple[str, ...]:
    """All that decides a kernel's machine code; see ``machine_code``. version: of Triton."""
    return (
        "triton",
        version,
        target,
        kernel.text,
        " ".join(kernel.signature),
        f"warps {kernel.warps} stages {kernel.stages}",
        PASSED,
    )


def pack_code(meta: dict[str, int], cubin: bytes) -> bytes:
    """Machine code with what launching it needs in front."""
    head = json.dumps(meta, sort_keys=True).encode()
    return len(head).to_bytes(4, "little") + head + cubin


def unpack_code(code: bytes) -> tuple[dict[str, int], bytes]:
    """What ``pack_code`` put together."""
    size = int.from_bytes(code[:4], "little")
    return json.loads(code[4 : 4 + size]), code[4 + size :]


class Compilers:
    """A pool of Triton's compiler processes. processes: at most; None for one a processor."""

    def __init__(self, processes: int | None = None) -> None:
        self._pool = CompileProcesses(
            WORKER, usable_cpus if processes is None else lambda: processes
        )

    def submit(self, kernel: Kernel, target: str) -> Future[bytes]:
        """Packed code of a kernel, when it is ready; see ``CompileProcesses.submit``.

        target: ``sm_90``, say, for machine code, ``compute_80`` for PTX.
        """
        form, _, capability = target.partition("_")
        request = {
            "text": kernel.text,
            "signature": list(kernel.signature),
            "aligned": ALIGNED,
            "warps": kernel.warps,
            "stages": kernel.stages,
            "capability": int(capability),
            "form": "ptx" if form == "compute" else "cubin",
        }
        return self._pool.submit(parts(kernel, target, triton_version()), request, _packed)

    def close(self) -> None:
        """End the processes. What they were compiling is lost."""
        self._pool.close()


def _packed(answer: Answer) -> bytes:
    return pack_code(answer["meta"], code_of(answer))


COMPILERS = Compilers()
