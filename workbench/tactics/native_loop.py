"""The loop that runs rows of ``native``: LLVM's machine code, made once a process.

A row is words; ``native`` says which. Everything here is written through llvmlite's builder, whose
text fits the LLVM that is installed.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import platform
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from workbench.digests import sha256, sha256_hex
from workbench.errors import WorkbenchError
from workbench.files import cache_folder, make_folder, write_atomically

KIND, FUNCTION, PIECES, ARGUMENTS, STRIDE, STATUS, PARALLEL, THREAD, TEAM = range(9)
"""Words of a row: how it is called, what, how often, with what; bytes from one piece's arguments
to the next one's; the first failure; OpenMP's functions where pieces run at once, else 0."""
ROW = 9

CHECKED, IGNORED = 4, 0
"""Kinds that pass four words: a failure is a status other than 0, or there is none."""
ARITIES = (32, 64, 128)
"""Kinds that pass so many words, 0 beyond the function's own: in the calling conventions of x86-64
and ARM the caller clears the stack, and a callee reads no more than it declares."""
NO_VALUE = -2
"""What a numba function without result returns; see RETCODE_NONE in numba.core.callconv."""


_KIND = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)


@functools.cache
def loop() -> Callable[[int, int], int]:
    """``run(rows, count)``: 0, or one more than the index of the first row that failed.

    Its code is compiled once a machine and mapped from the cache's folder: LLVM alone takes 60 MiB
    of memory. Where it cannot be kept there, each process compiles it.
    """
    folder = cache_folder("kernels")
    code = mapped(folder) if sys.platform == "linux" else None
    if code is None:
        return _in_process()
    run = _KIND(np.frombuffer(code, np.uint8).ctypes.data + _HEAD)
    run.owner = code  # pyright: ignore[reportAttributeAccessIssue]
    return run


def mapped(folder: Path) -> mmap.mmap | None:
    """The loop's code, executable; None where this system or folder does not allow it."""
    path = folder / f"loop-{_identity()}.bin"
    try:
        if not path.exists():
            code = _self_contained(_object(_parsed()))
            if code is None:
                return None
            make_folder(folder)
            write_atomically(path, sha256(code) + bytes(_HEAD - 32) + code)
        with path.open("rb") as f:
            allowed = mmap.PROT_READ | mmap.PROT_EXEC
            found = mmap.mmap(f.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=allowed)
    except (OSError, WorkbenchError):
        return None
    whole = sha256(found[_HEAD:]) == found[:32]
    return found if whole else None


_HEAD = 64
"""Bytes before the code: its digest."""


def _identity() -> str:
    own = Path(__file__).read_bytes()
    about = f"{platform.machine()} {metadata.version('llvmlite')}".encode()
    return sha256_hex(own + about)[:32]


def _parsed() -> Any:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly(loop_text())
    module.verify()
    return module


def _target() -> Any:
    import llvmlite.binding as llvm

    # Without optimization: it is compiled in a few milliseconds, and only calls others.
    return llvm.Target.from_default_triple().create_target_machine(
        opt=0, reloc="pic", codemodel="small"
    )


def _object(module: Any) -> bytes:
    return _target().emit_object(module)


def _self_contained(data: bytes) -> bytes | None:
    """The code of an object file that needs nothing else; None if it does."""
    import llvmlite.binding as llvm

    found = llvm.ObjectFileRef.from_data(data).sections()
    sections: dict[bytes, bytes] = {s.name() or b"": s.data() for s in found}
    relocated = sections.keys() & {b".rela.text", b".rel.text"}
    return None if relocated else sections.get(b".text")


def _in_process() -> Callable[[int, int], int]:
    import llvmlite.binding as llvm

    engine = llvm.create_mcjit_compiler(_parsed(), _target())
    engine.finalize_object()
    run = _KIND(engine.get_function_address("run"))
    run.owner = engine  # pyright: ignore[reportAttributeAccessIssue]
    return run


def loop_text() -> str:
    """The loop in LLVM's assembly."""
    from llvmlite import ir

    module = ir.Module("launches")
    word, half = ir.IntType(64), ir.IntType(32)
    # First, so that its code is at the start.
    run = ir.Function(module, ir.FunctionType(word, (word, word)), "run")
    call = _call_function(module)
    worker = _worker_function(module, call)
    rows, count = run.args
    names = ("top", "test", "body", "one", "many", "after", "next", "failed", "done")
    blocks = {n: run.append_basic_block(n) for n in names}
    ir.IRBuilder(blocks["top"]).branch(blocks["test"])
    b = ir.IRBuilder(blocks["test"])
    index = b.phi(word)
    index.add_incoming(word(0), blocks["top"])
    b.cbranch(b.icmp_signed("<", index, count), blocks["body"], blocks["done"])
    b = ir.IRBuilder(blocks["body"])
    row = b.add(rows, b.mul(index, word(8 * ROW)))
    parallel = _word(b, row, PARALLEL)
    b.cbranch(b.icmp_signed("==", parallel, word(0)), blocks["one"], blocks["many"])
    b = ir.IRBuilder(blocks["one"])
    b.call(call, (row, _word(b, row, ARGUMENTS)))
    b.branch(blocks["after"])
    b = ir.IRBuilder(blocks["many"])
    fork = ir.FunctionType(ir.VoidType(), (word, word, half, half)).as_pointer()
    pieces = b.trunc(_word(b, row, PIECES), half)
    b.call(b.inttoptr(parallel, fork), (b.ptrtoint(worker, word), row, pieces, half(0)))
    b.branch(blocks["after"])
    b = ir.IRBuilder(blocks["after"])
    failed = b.icmp_signed("!=", _word(b, row, STATUS), word(0))
    b.cbranch(failed, blocks["failed"], blocks["next"])
    b = ir.IRBuilder(blocks["next"])
    index.add_incoming(b.add(index, word(1)), blocks["next"])
    b.branch(blocks["test"])
    b = ir.IRBuilder(blocks["failed"])
    b.ret(b.add(index, word(1)))
    ir.IRBuilder(blocks["done"]).ret(word(0))
    return str(module)


def _word(b: Any, row: Any, which: int) -> Any:
    from llvmlite import ir

    place = b.add(row, ir.IntType(64)(8 * which))
    return b.load(b.inttoptr(place, ir.IntType(64).as_pointer()))


def _call_function(module: Any) -> Any:
    """``call(row, arguments)``: one piece; its status is kept in the row if it failed."""
    from llvmlite import ir

    word, half = ir.IntType(64), ir.IntType(32)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), (word, word)), "call")
    function.linkage = "internal"
    row, arguments = function.args
    b = ir.IRBuilder(function.append_basic_block("top"))
    done, failed = function.append_basic_block("done"), function.append_basic_block("failed")
    callee = _word(b, row, FUNCTION)
    cases = {n: function.append_basic_block(f"words{n}") for n in (IGNORED, CHECKED, *ARITIES)}
    # Compared one by one: a table of jumps would be data beside the code.
    wanted = _word(b, row, KIND)
    for kind in (CHECKED, *ARITIES):
        following = function.append_basic_block(f"not{kind}")
        b.cbranch(b.icmp_signed("==", wanted, word(kind)), cases[kind], following)
        b = ir.IRBuilder(following)
    b.branch(cases[IGNORED])
    found: list[tuple[Any, Any]] = []
    for kind, block in cases.items():
        b = ir.IRBuilder(block)
        count = kind or CHECKED
        type_ = ir.FunctionType(half, (word,) * count).as_pointer()
        given = [_word(b, arguments, k) for k in range(count)]
        status = b.call(b.inttoptr(callee, type_), given)
        if kind == IGNORED:
            b.branch(done)
            continue
        bad = b.icmp_signed("!=", status, half(0))
        if kind != CHECKED:
            bad = b.and_(bad, b.icmp_signed("!=", status, half(NO_VALUE)))
        found.append((b.sext(status, word), block))
        b.cbranch(bad, failed, done)
    b = ir.IRBuilder(failed)
    status = b.phi(word)
    for value, block in found:
        status.add_incoming(value, block)
    place = b.add(row, word(8 * STATUS))
    b.store(status, b.inttoptr(place, word.as_pointer()))
    b.branch(done)
    ir.IRBuilder(done).ret_void()
    return function


def _worker_function(module: Any, call: Any) -> Any:
    """``worker(row)``: this thread's pieces, from its number on in steps of the team's size."""
    from llvmlite import ir

    word, half = ir.IntType(64), ir.IntType(32)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), (word,)), "worker")
    function.linkage = "internal"
    (row,) = function.args
    top, test, body, done = (
        function.append_basic_block(n) for n in ("top", "test", "body", "done")
    )
    b = ir.IRBuilder(top)
    asked = ir.FunctionType(half, ()).as_pointer()
    first = b.sext(b.call(b.inttoptr(_word(b, row, THREAD), asked), ()), word)
    step = b.sext(b.call(b.inttoptr(_word(b, row, TEAM), asked), ()), word)
    count, start, stride = (_word(b, row, k) for k in (PIECES, ARGUMENTS, STRIDE))
    b.branch(test)
    b = ir.IRBuilder(test)
    index = b.phi(word)
    index.add_incoming(first, top)
    b.cbranch(b.icmp_signed("<", index, count), body, done)
    b = ir.IRBuilder(body)
    b.call(call, (row, b.add(start, b.mul(index, stride))))
    index.add_incoming(b.add(index, step), body)
    b.branch(test)
    ir.IRBuilder(done).ret_void()
    return function
