"""Compiled kernels: generated source, compiled by numba, kept on disk by content.

The source is generated from a Body each time and never read from a plan; the file on disk only
gives numba's own cache a place and an identity. A second process compiles nothing; on Linux and
x86-64 it maps the kernel's image and does not even load numba.
"""

from __future__ import annotations

import functools
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from workbench.digests import sha256_hex
from workbench.tactics.native import MOST_WORDS
from workbench.tactics.numba.entry import entry_of
from workbench.tactics.numba.images import SUPPORTED, MappedKernel, keep, kept, processor

Compiled = Callable[..., Any] | MappedKernel
"""Numba's dispatcher, or only the machine code that it made (see ``images``)."""


@dataclass(frozen=True)
class KernelText:
    """A generated kernel: source of a module with a function ``kernel``, and its type.

    signature: numba's, such as ``void(int64, float32[::1])``.
    """

    source: str
    signature: str


class KernelCache:
    """Compiles KernelTexts once a process, and once a machine where ``folder`` can be written."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._compiled: dict[str, Compiled] = {}
        self._lock = threading.Lock()

    def compile(self, text: KernelText) -> Compiled:
        """The compiled kernel. Warns once if the folder cannot be written."""
        key = kernel_key(text)
        with self._lock:
            if key not in self._compiled:
                self._compiled[key] = self._build(text, key)
            return self._compiled[key]

    def kernels(self) -> tuple[Compiled, ...]:
        """What this process compiled or loaded, in order."""
        return tuple(self._compiled.values())

    def _build(self, text: KernelText, key: str) -> Compiled:
        path = self._file(text, key)
        image = path.with_name(f"k{key}-{processor()}.image") if path and SUPPORTED else None
        mapped = kept(image) if image else None
        if mapped is not None:
            return mapped
        compiled = self._compiled_by_numba(text, key, path)
        entry = entry_of(compiled)
        # What numba took from its own files comes without the text that an image is made of.
        if not image or not entry or entry[1] > MOST_WORDS or compiled.stats.cache_hits:
            return compiled
        (only,) = compiled.overloads.values()
        return keep(image, only, entry[1]) or compiled

    def _compiled_by_numba(self, text: KernelText, key: str, path: Path | None) -> Any:
        from numba import njit

        filename = str(path) if path else f"<kernel {key}>"
        # numba finds the globals of a kernel from its disk cache by the name of its module.
        module = ModuleType(f"workbench_kernel_{key}", "A generated kernel.")
        sys.modules[module.__name__] = module
        exec(compile(text.source, filename, "exec"), module.__dict__)
        return njit(
            text.signature,
            cache=path is not None,
            nogil=True,
            error_model="numpy",
            fastmath={"contract"},
        )(module.__dict__["kernel"])

    def _file(self, text: KernelText, key: str) -> Path | None:
        if self.folder is None:
            return None
        path = self.folder / f"k{key}.py"
        try:
            # An unchanged file keeps its time stamp, by which numba knows its compiled form.
            if not path.exists() or path.read_text(encoding="utf-8") != text.source:
                _write(path, text.source)
        except OSError as e:
            warnings.warn(
                f"compiled kernels are not kept: {self.folder} cannot be written ({e})",
                RuntimeWarning,
                stacklevel=2,
            )
            self.folder = None
            return None
        return path


def _write(path: Path, text: str) -> None:
    """Write at once: another process sees the old file, or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    with os.fdopen(handle, "w", encoding="utf-8") as f:
        f.write(text)
    os.replace(temporary, path)


REVISION = "3"
"""Changes when what is kept for a kernel changes."""


def kernel_key(text: KernelText) -> str:
    """Identity of a kernel: its source, its type, and the functions that it may inline."""
    parts = (text.source, text.signature, _inlined_digest(), numba_version(), REVISION)
    return sha256_hex("\0".join(parts).encode())[:32]


@functools.cache
def _inlined_digest() -> str:
    folder = Path(__file__).parent
    sources = (
        folder / name
        for name in (
            "mathematics.py",
            "blocks.py",
            "patches.py",
            "product_finish.py",
            "product_shapes.py",
            "product_tiles.py",
            "tiles.py",
            "vector_rows.py",
            "vnni_tiles.py",
            "winograd_tiles.py",
            "winograd_transforms.py",
        )
    )
    return sha256_hex(b"".join(s.read_bytes() for s in sources))


@functools.cache
def numba_version() -> str:
    """Version of the installed numba, without importing it."""
    return metadata.version("numba")
