"""cuBLASLt's descriptors of one product. Numbers follow cublasLt.h (CUDA 12 and 13).

cuBLASLt is column-major: a row-major product A·B is computed as Bᵀ·Aᵀ, so that ``b`` comes first.
"""

from __future__ import annotations

import ctypes
import weakref
from typing import Any

from workbench.datatypes import DataType
from workbench.errors import DeviceError
from workbench.gpu_device import GpuDevice
from workbench.records import Refusal
from workbench.tactics.cublas_lt.library import TYPES, check, handle_of, load
from workbench.tactics.cublas_lt.product import Factor, Product

COMPUTE_32F, COMPUTE_32I, COMPUTE_TF32 = 68, 72, 77
REAL_32F = 0

TRANS_A, TRANS_B, EPILOGUE, BIAS_POINTER, D_SCALE_POINTER, BIAS_TYPE = 3, 4, 7, 8, 20, 26
A_SCALE_POINTER, B_SCALE_POINTER, A_SCALE_MODE, B_SCALE_MODE = 17, 18, 31, 32
OUTER_VECTOR = 3
"""cublasLtMatmulMatrixScale_t: a number a row of the first, a column of the second matrix."""
SOMEWHERE = 256
"""Stands for an address of scales while algorithms are looked for: nothing is read there."""
BATCH_COUNT, BATCH_STRIDE = 5, 6

EPILOGUES = {
    (False, ""): 1,
    (False, "Relu"): 2,
    (True, ""): 4,
    (True, "Relu"): 6,
    (False, "Gelu"): 32,
    (True, "Gelu"): 36,
}
"""cublasLtEpilogue_t by (bias, activation). Its GELU is the tanh approximation."""


def bias_kind(p: Product) -> DataType:
    """The type in which the bias is read: the output's, beside FP8 results BF16."""
    return DataType.BF16 if p.out is DataType.FP8 else p.out


class Descriptors:
    """Of one product: what multiplies, and where its matrices lie. Freed with this object."""

    def __init__(self, product: Product, device: GpuDevice, compute: int) -> None:
        library = load()
        if isinstance(library, Refusal):
            raise DeviceError(library.reason, place="CUBLAS_LT", remedy=library.remedy)
        self.library, self.product, self.compute = library, product, compute
        self.handle = handle_of(device)
        self.operation = ctypes.c_void_p()
        self._made: list[tuple[Any, Any]] = []
        weakref.finalize(self, _destroy, self._made)
        p = product
        created = library.cublasLtMatmulDescCreate(ctypes.byref(self.operation), compute, REAL_32F)
        check(created, "MatmulDescCreate")
        self._made.append((library.cublasLtMatmulDescDestroy, self.operation))
        self.set(TRANS_A, ctypes.c_int32(int(p.b.turned)))
        self.set(TRANS_B, ctypes.c_int32(int(p.a.turned)))
        self.set(EPILOGUE, ctypes.c_int32(EPILOGUES[bool(p.bias), p.activation]))
        if p.bias:
            self.set(BIAS_TYPE, ctypes.c_int32(TYPES[bias_kind(p)]))
        if p.columns is not None:
            for mode, pointer in ((A_SCALE_MODE, A_SCALE_POINTER), (B_SCALE_MODE, B_SCALE_POINTER)):
                self.set(mode, ctypes.c_int32(OUTER_VECTOR))
                self.set(pointer, ctypes.c_void_p(SOMEWHERE))
        self.b, self.a = self._factor(p.b), self._factor(p.a)
        whole = p.m * p.n
        self.d = self._layout(p.out, p.n, p.m, whole)
        # A result in FP8 needs another matrix C, of a half type, though nothing is read from it.
        c = DataType.BF16 if p.out is DataType.FP8 else p.out
        self.c = self.d if c is p.out else self._layout(c, p.n, p.m, whole)
        self.c_kind = c

    @property
    def types(self) -> tuple[int, int, int, int]:
        """cudaDataType_t of the four matrices."""
        p = self.product
        return TYPES[p.b.kind], TYPES[p.a.kind], TYPES[self.c_kind], TYPES[p.out]

    @property
    def layouts(self) -> tuple[Any, Any, Any, Any]:
        return self.b, self.a, self.c, self.d

    def set(self, attribute: int, value: Any) -> None:
        """An attribute of the operation."""
        status = self.library.cublasLtMatmulDescSetAttribute(
            self.operation, attribute, ctypes.byref(value), ctypes.sizeof(value)
        )
        check(status, f"MatmulDescSetAttribute {attribute}")

    def _factor(self, f: Factor) -> Any:
        return self._layout(f.kind, f.columns, f.rows, f.stride)

    def _layout(self, kind: DataType, rows: int, columns: int, stride: int) -> Any:
        made = ctypes.c_void_p()
        status = self.library.cublasLtMatrixLayoutCreate(
            ctypes.byref(made),
            TYPES[kind],
            ctypes.c_uint64(rows),
            ctypes.c_uint64(columns),
            ctypes.c_int64(rows),
        )
        check(status, "MatrixLayoutCreate")
        self._made.append((self.library.cublasLtMatrixLayoutDestroy, made))
        if self.product.batch != 1:
            for attribute, value in (
                (BATCH_COUNT, ctypes.c_int32(self.product.batch)),
                (BATCH_STRIDE, ctypes.c_int64(stride)),
            ):
                status = self.library.cublasLtMatrixLayoutSetAttribute(
                    made, attribute, ctypes.byref(value), ctypes.sizeof(value)
                )
                check(status, f"MatrixLayoutSetAttribute {attribute}")
        return made


def _destroy(made: list[tuple[Any, Any]]) -> None:
    for destroy, handle in made:
        destroy(handle)


def compute_types(product: Product, *, tf32: bool) -> tuple[int, ...]:
    """cublasComputeType_t that keep the product's precision, fastest first.

    tf32: whether float32 factors may be rounded to TF32.
    """
    if product.kind is DataType.INT8:
        return (COMPUTE_32I,)
    if product.kind is DataType.FLOAT and tf32:
        return COMPUTE_TF32, COMPUTE_32F
    return (COMPUTE_32F,)
