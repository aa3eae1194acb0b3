"""NUMBA: kernels generated from Bodies, compiled by LLVM for the processor at hand.

``source.py`` offers tactics of six families: ``pointwise.py``, ``rows.py`` (its tables in
``lookups.py``), ``attention.py`` (its text in ``attention_code.py``, its products in ``tiles.py``),
``joins.py``, ``windows.py`` (its text in ``window_code.py``) and ``copies.py``. They generate from
``scalars.py`` and ``expressions.py`` (one element), ``loops.py`` and ``nests.py`` (the loops around
it); ``mathematics.py`` and ``blocks.py`` are what generated code calls.
``cache.py`` compiles and keeps the result on disk, ``calls.py`` and ``threads.py`` bind and run it.
Importing this package does not import numba.
"""

from workbench.tactics.numba.source import NUMBA, NumbaSource

__all__ = ["NUMBA", "NumbaSource"]
