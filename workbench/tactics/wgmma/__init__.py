"""WGMMA: products by Hopper's asynchronous matrix instructions, as generated CUDA C++."""

from workbench.tactics.wgmma.source import WGMMA

__all__ = ["WGMMA"]
