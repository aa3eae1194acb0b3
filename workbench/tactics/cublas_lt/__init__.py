"""CUBLAS_LT: matrix products by cuBLASLt, called through ctypes."""

from workbench.tactics.cublas_lt.source import CUBLAS_LT

__all__ = ["CUBLAS_LT"]
