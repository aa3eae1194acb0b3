"""Compiled kernels called at their machine code, without numba's dispatcher.

Source: numba.core.callconv (results and status first, then each argument taken apart) and
numba's arrays (owner, parent, items, item size, data, sizes, steps).
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from workbench.body import Array
from workbench.tactics.native import Native, piece
from workbench.tactics.numba.images import MappedKernel


def machine_call(kernel: Any, arguments: tuple[int | Array, ...]) -> Native | None:
    """The call with these arguments; None for a kernel that returns a value or has too many.

    Raises nothing of its own: what numba declares is compared with what would be passed, word by
    word, so that another version's convention is not called wrongly but not at all.
    """
    words: list[int] = []
    for a in arguments:
        words += _array_words(a) if isinstance(a, np.ndarray) else [a]
    entry = entry_of(kernel)
    if entry is None or entry[1] != len(words):
        return None
    return piece(entry[0], words, "numba kernel", (kernel, arguments))


def _array_words(array: Array) -> list[int]:
    """A flat contiguous array. Its memory is the caller's: no owner that numba would count."""
    return [0, 0, array.size, array.itemsize, array.ctypes.data, array.size, array.itemsize]


_entries: weakref.WeakKeyDictionary[Any, tuple[int, int] | None] = weakref.WeakKeyDictionary()


def entry_of(kernel: Any) -> tuple[int, int] | None:
    """Address and number of argument words of a kernel without result; else None."""
    if isinstance(kernel, MappedKernel):
        return kernel.address, kernel.words
    if kernel not in _entries:
        _entries[kernel] = _found(kernel)
    return _entries[kernel]


def _found(kernel: Any) -> tuple[int, int] | None:
    from numba.core import types

    (compiled,) = kernel.overloads.values()
    described = compiled.fndesc
    if described.restype != types.none:
        return None
    convention = compiled.target_context.call_conv
    declared = convention.get_function_type(described.restype, described.argtypes).args
    kinds = [str(t) for t in declared[2:]]
    expected: list[str] = []
    for t in described.argtypes:
        expected += _ARRAY if isinstance(t, types.Array) else _WORD
    if [("pointer" if k.endswith("*") or k == "ptr" else k) for k in kinds] != expected:
        return None
    return compiled.library.get_pointer_to_function(described.llvm_func_name), len(expected)


_WORD = ["i64"]
_ARRAY = ["pointer", "pointer", "i64", "i64", "pointer", "i64", "i64"]
