"""TRITON: kernels written in Triton, compiled ahead of time, launched through CuPy."""

from workbench.tactics.triton.source import TRITON

__all__ = ["TRITON"]
