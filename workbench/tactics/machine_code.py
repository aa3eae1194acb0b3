"""Machine code of kernels, by the text that decides it: from the plan, this machine, or compiled.

A plan carries the code of its kernels, so that loading compiles nothing; what a build compiles is
also kept on the machine, by content, for the next build.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from workbench.files import cache_folder, write_atomically
from workbench.tactics.protocol import Problem


def machine_code(
    problem: Problem, parts: Sequence[str], make: Callable[[], bytes]
) -> tuple[str, bytes]:
    """Key and machine code of a kernel. The Call that uses it lists both in ``Call.code``.

    parts: all that decides the code (source text, options, compiler and its version, target).
    make: compiles; only called where neither the plan nor the machine has the code.
    """
    key = _key(parts)
    if key in problem.code:
        return key, problem.code[key]
    kept = _place(key)
    found = _read(kept)
    if found is None:
        found = make()
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, hashlib.sha256(found).digest() + found)
    return key, found


def brings(problem: Problem, parts: Sequence[str]) -> bool:
    """Whether the plan has a kernel's code."""
    return _key(parts) in problem.code


def has_machine_code(problem: Problem, parts: Sequence[str]) -> bool:
    """Whether the plan or this machine has a kernel's code already."""
    key = _key(parts)
    return key in problem.code or _read(_place(key)) is not None


def _key(parts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _place(key: str) -> Path:
    return cache_folder("machine_code") / key[:2] / key


def _read(path: Path) -> bytes | None:
    """The code in a cache file; None where there is none, or a damaged one."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    digest, code = data[:32], data[32:]
    return code if hashlib.sha256(code).digest() == digest else None
