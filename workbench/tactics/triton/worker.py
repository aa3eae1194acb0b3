"""Compiles Triton text in a process of its own: a compiler that crashes takes nothing with it.

One JSON line in, one JSON line out; see ``compiler``. Ends when its input does. Run by its path: it
imports nothing of the package, so that a process starts fast. What anything in the process prints,
the assembler and LLVM included, goes to its stderr: answers have a descriptor of their own.
"""

from __future__ import annotations

import base64
import json
import linecache
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from typing import Any, TextIO

# Triton is imported in functions, once nothing that it prints can be taken for an answer. It is an
# extra, which may be absent; beside this file its name means this package to a type checker.


_ASYNCHRONOUS = ("wgmma.mma_async", "tcgen05.mma")
"""Products of Hopper and Blackwell that read shared memory through the async proxy."""
_ARRIVED = re.compile(r"cp\.async\.wait_group\s+\d+;")
"""A thread's own copies to shared memory have arrived; a barrier tells the others."""


def fenced(ptx: str) -> str:
    """PTX whose asynchronous products see what asynchronous copies put into shared memory.

    cp.async writes through the generic proxy, wgmma reads through the async proxy: without a fence
    between them a product may read what lay there before (PTX ISA, "Async proxy"). Triton 3.6
    fences stores from registers alone; 3.7 the copies, too (its pull request 9610). On an H200 an
    FP8 convolution became NaN now and then, beginning at the first row of a thread's last copy.
    """
    if not any(product in ptx for product in _ASYNCHRONOUS):
        return ptx
    return _ARRIVED.sub(lambda m: f"{m[0]}\n\tfence.proxy.async.shared::cta;", ptx)


_ENTRY = re.compile(r"\.entry kernel\([^)]*\)[^{]*\{\n(?:\s*\.(?:reg|local|shared)\b[^\n]*\n)*")
"""A kernel's head and declarations: its first instruction follows."""
_WAITS_SINCE = 90
"""Compute capability, times ten, that knows griddepcontrol."""


_PARAMETER = re.compile(r"\bkernel_param_\d+\b")
_BEGINNING = """\
	griddepcontrol.wait;
	{{
	.reg .b64 %lets_next_start;
	.reg .pred %lets;
	ld.param.b64 %lets_next_start, [{last}];
	setp.ne.b64 %lets, %lets_next_start, 0;
	@%lets griddepcontrol.launch_dependents;
	}}
"""


def waiting(ptx: str, capability: int) -> str:
    """PTX that waits for the kernel before it, and may let the next one start; see ``gpu_launch``.

    Its last parameter, a pointer that the kernel does not use, says whether it does.
    """
    if capability < _WAITS_SINCE:
        return ptx
    found, count = _ENTRY.subn(
        lambda m: m[0] + _BEGINNING.format(last=_PARAMETER.findall(m[0])[-1]), ptx
    )
    if count != 1:
        raise ValueError(f"Triton's PTX has {count} entries of the form that is known, not one")
    return found


def _rewrite(
    backend: Any, stages: dict[str, Any], options: Any, language: Any, capability: Any
) -> None:
    """Triton's hook: changes the stages of a compilation."""
    del backend, options, language
    written = stages["ptx"]
    stages["ptx"] = lambda source, metadata: waiting(  # pyright: ignore
        fenced(written(source, metadata)), int(capability)
    )


def compile_kernel(
    text: str,
    signature: list[str],
    aligned: int,
    warps: int,
    stages: int,
    capability: int,
    form: str,
) -> tuple[dict[str, int], bytes]:
    """What launching needs (shared memory, warps, whether it waits), and the code.

    aligned: bytes to which every pointer is aligned. form: ``cubin`` or ``ptx``.
    """
    import triton  # pyright: ignore
    from triton.backends.compiler import GPUTarget  # pyright: ignore
    from triton.compiler import ASTSource  # pyright: ignore

    triton.knobs.runtime.add_stages_inspection_hook = _rewrite  # pyright: ignore
    function = _function(text)
    names = [f"p{i}" for i in range(len(signature))]
    source = ASTSource(
        fn=function,
        signature=dict(zip(names, signature, strict=True)),
        constexprs={},
        attrs={(i,): [["tt.divisibility", aligned]] for i in range(len(signature))},
    )
    made = triton.compile(  # pyright: ignore
        source,
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": warps, "num_stages": stages},
    )
    meta = made.metadata
    if meta.global_scratch_size or meta.num_ctas != 1:
        raise ValueError("the kernel needs scratch memory or clusters, which are not launched here")
    code = made.asm[form]
    if form == "ptx":
        code = code.encode() + b"\0"  # the driver reads a string
    waits = int(capability >= _WAITS_SINCE)
    return {"shared": meta.shared, "warps": meta.num_warps, "waits": waits}, code


def _function(text: str) -> Any:
    """The function ``kernel`` of a module's text. Triton reads its lines through linecache."""
    name = f"<kernel {abs(hash(text)):x}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    namespace: dict[str, Any] = {"__name__": "generated_kernel"}
    exec(compile(text, name, "exec"), namespace)
    return namespace["kernel"]


def _answer(request: Mapping[str, Any]) -> dict[str, Any]:
    try:
        meta, code = compile_kernel(**request)
    except Exception as e:  # what a compiler raises is its answer: the caller refuses the tactic
        lines = [line for line in str(e).splitlines() if line.strip()]
        return {"error": f"{type(e).__name__}: {' '.join(lines[-3:])[:600]}"}
    return {"meta": meta, "code": base64.b64encode(code).decode()}


def answers_apart() -> TextIO:
    """Where answers go. Descriptor 1 is stderr from now on, for this process and its children."""
    own = os.fdopen(os.dup(1), "w")  # not inherited by children
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return own


def serve() -> None:
    """Answer requests until there are none."""
    answers = answers_apart()
    import triton  # pyright: ignore

    with tempfile.TemporaryDirectory() as folder:
        triton.knobs.cache.dir = folder  # pyright: ignore  # what is compiled here is kept by content elsewhere
        triton.knobs.compilation.disable_line_info = True  # pyright: ignore  # a third of the code
        for line in sys.stdin:
            answers.write(json.dumps(_answer(json.loads(line))) + "\n")
            answers.flush()


if __name__ == "__main__":
    serve()
