"""NUMBA: kernels generated from Bodies, compiled by LLVM for the processor at hand.

``source.py`` offers the tactics. ``pointwise.py``, ``rows.py``, ``copies.py`` and ``windows.py``
are the kernel families; ``expressions.py``, ``loops.py`` and ``nests.py`` are what they generate
from; ``cache.py`` compiles and keeps the result on disk. Importing this package does not import
numba.
"""

from workbench.tactics.numba.source import NUMBA, NumbaSource

__all__ = ["NUMBA", "NumbaSource"]
