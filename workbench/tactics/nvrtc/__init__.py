"""NVRTC: CUDA C++ generated for a Body and compiled on the machine, launched through CuPy."""

from workbench.tactics.nvrtc.source import NVRTC

__all__ = ["NVRTC"]
