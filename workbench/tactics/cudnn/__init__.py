"""CUDNN: convolutions, products, attention and norms by cuDNN's graphs."""

from workbench.tactics.cudnn.source import CUDNN

__all__ = ["CUDNN"]
