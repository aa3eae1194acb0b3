"""One product's descriptors and algorithms. Constants follow cublasLt.h (CUDA 12 and 13)."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from workbench.devices import Buffer
from workbench.errors import DeviceError
from workbench.gpu_device import gpu_of
from workbench.records import Refusal
from workbench.tactics.cublas_lt.library import check, handle, load, stored_bits
from workbench.tactics.cublas_lt.product import TYPES, Product
from workbench.tactics.protocol import Call, Launch, Problem, Tactic

WORKSPACE = 4 << 20
ALGORITHMS = 8
_COMPUTE_32F, _REAL_32F = 68, 0
_TRANS_A, _TRANS_B, _EPILOGUE, _BIAS_POINTER, _BIAS_TYPE = 3, 4, 7, 8, 26
_WORKSPACE_BYTES = 1  # CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES
SETTINGS: tuple[tuple[str, int, Any], ...] = (
    ("algorithm", 0, ctypes.c_int32),
    ("tile", 1, ctypes.c_uint32),
    ("split_k", 2, ctypes.c_uint32),
    ("reduction", 3, ctypes.c_uint32),
    ("swizzle", 4, ctypes.c_uint32),
    ("custom", 5, ctypes.c_uint32),
    ("stages", 6, ctypes.c_uint32),
    ("inner_shape", 7, ctypes.c_uint16),
    ("cluster_shape", 8, ctypes.c_uint16),
)
"""cublasLtMatmulAlgoConfigAttributes_t: name, number, type."""
_EPILOGUES = {
    (False, ""): 1,
    (False, "Relu"): 2,
    (True, ""): 4,
    (True, "Relu"): 6,
}


class Heuristic(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t; the algorithm is its first 64 bytes."""

    _fields_ = (
        ("algorithm", ctypes.c_uint64 * 8),
        ("workspace", ctypes.c_size_t),
        ("state", ctypes.c_int),
        ("waves", ctypes.c_float),
        ("reserved", ctypes.c_int * 4),
    )


class ProductPlan:
    """Descriptors of one product. Kept alive by the Call that uses them."""

    def __init__(self, product: Product) -> None:
        library = load()
        if isinstance(library, Refusal):
            raise DeviceError(str(library), place="CUBLAS_LT")
        self.library, self.product = library, product
        self.handle = handle()
        p = product
        kind = TYPES[p.kind]
        self.description = ctypes.c_void_p()
        check(
            library.cublasLtMatmulDescCreate(
                ctypes.byref(self.description), _COMPUTE_32F, _REAL_32F
            ),
            "MatmulDescCreate",
        )
        # Column-major: first operand is b (n × k), second is a (k × m), result is n × m.
        self._set(_TRANS_A, ctypes.c_int32(1 if p.transposed else 0))
        self._set(_TRANS_B, ctypes.c_int32(0))
        self._set(_EPILOGUE, ctypes.c_int32(_EPILOGUES[bool(p.bias), p.activation]))
        if p.bias:
            self._set(_BIAS_TYPE, ctypes.c_int32(kind))
        self.b = self._layout(kind, p.k if p.transposed else p.n, p.n if p.transposed else p.k)
        self.a = self._layout(kind, p.k, p.m)
        self.d = self._layout(kind, p.n, p.m)

    def heuristics(self) -> list[Heuristic]:
        """The algorithms that the library proposes, its best guess first."""
        preference = ctypes.c_void_p()
        check(self.library.cublasLtMatmulPreferenceCreate(ctypes.byref(preference)), "Preference")
        size = ctypes.c_size_t(WORKSPACE)
        check(
            self.library.cublasLtMatmulPreferenceSetAttribute(
                preference, _WORKSPACE_BYTES, ctypes.byref(size), 8
            ),
            "PreferenceSetAttribute",
        )
        results, count = (Heuristic * ALGORITHMS)(), ctypes.c_int(0)
        status = self.library.cublasLtMatmulAlgoGetHeuristic(
            self.handle,
            self.description,
            self.b,
            self.a,
            self.d,
            self.d,
            preference,
            ALGORITHMS,
            results,
            ctypes.byref(count),
        )
        self.library.cublasLtMatmulPreferenceDestroy(preference)
        if status == 15:  # CUBLAS_STATUS_NOT_SUPPORTED: no algorithm
            return []
        check(status, "MatmulAlgoGetHeuristic")
        return [r for r in results[: count.value] if r.state == 0]

    def settings(self, found: Heuristic) -> tuple[tuple[str, int], ...]:
        """What tells an algorithm from others. Its 64 bytes also hold what was never written."""
        values: list[tuple[str, int]] = []
        for name, attribute, kind in SETTINGS:
            value, written = kind(), ctypes.c_size_t()
            check(
                self.library.cublasLtMatmulAlgoConfigGetAttribute(
                    ctypes.byref(found.algorithm),
                    attribute,
                    ctypes.byref(value),
                    ctypes.sizeof(value),
                    ctypes.byref(written),
                ),
                f"MatmulAlgoConfigGetAttribute {name}",
            )
            values.append((name, int(value.value)))
        return tuple(values)

    def algorithm(self, settings: Sequence[tuple[str, int]]) -> Any:
        """The library's 64 bytes for these settings."""
        values, words = dict(settings), (ctypes.c_uint64 * 8)()
        kind = TYPES[self.product.kind]
        check(
            self.library.cublasLtMatmulAlgoInit(
                self.handle,
                _COMPUTE_32F,
                _REAL_32F,
                *(kind,) * 4,
                values[SETTINGS[0][0]],
                words,
            ),
            "MatmulAlgoInit",
        )
        for name, attribute, type_ in SETTINGS[1:]:
            value = type_(values[name])
            check(
                self.library.cublasLtMatmulAlgoConfigSetAttribute(
                    words, attribute, ctypes.byref(value), ctypes.sizeof(value)
                ),
                f"MatmulAlgoConfigSetAttribute {name}",
            )
        return words

    @staticmethod
    def title(settings: Sequence[tuple[str, int]]) -> str:
        """``algorithm 55 tile 11 stages 31``: the settings that are not 0."""
        return " ".join(f"{name} {value}" for name, value in settings if value)

    def accepts(self, words: Any) -> bool:
        """Whether an algorithm runs at these sizes."""
        result = Heuristic()
        status = self.library.cublasLtMatmulAlgoCheck(
            self.handle,
            self.description,
            self.b,
            self.a,
            self.d,
            self.d,
            words,
            ctypes.byref(result),
        )
        return status == 0 and result.workspace <= WORKSPACE

    def call(self, tactic: Tactic, problem: Problem, words: Any) -> Call:
        cupy = gpu_of(problem.device).cupy
        p = self.product
        dynamic = [i.name for i in problem.body.dynamic_inputs]
        constants = {
            i.name: cupy.asarray(stored_bits(problem.constants[i.name]))
            for i in problem.body.inputs
            if i.constant
        }
        cupy.cuda.Stream.null.synchronize()
        if p.bias:
            self._set(_BIAS_POINTER, ctypes.c_void_p(constants[p.bias].data.ptr))
        one, zero = ctypes.c_float(1.0), ctypes.c_float(0.0)

        def bind(
            inputs: Sequence[Buffer],
            outputs: Sequence[Buffer],
            workspace: Buffer | None,
            stream: Any,
        ) -> Launch:
            def address(name: str) -> int:
                if name in constants:
                    return int(constants[name].data.ptr)
                return inputs[dynamic.index(name)].address

            own = stream or gpu_of(problem.device).main_stream
            void = ctypes.c_void_p
            d = void(outputs[0].address)
            arguments = (
                self.handle,
                self.description,
                ctypes.byref(one),
                void(address(p.b)),
                self.b,
                void(address(p.a)),
                self.a,
                ctypes.byref(zero),
                d,
                self.d,
                d,
                self.d,
                words,
                void(workspace.address if workspace else 0),
                ctypes.c_size_t(WORKSPACE),
                void(own.ptr),
            )

            def launch() -> None:
                check(self.library.cublasLtMatmul(*arguments), "Matmul")

            return launch

        return Call(
            f"cublasLt {p.kind.info.label} {tactic.name}",
            bind,
            WORKSPACE,
            packed={"plan": self, "words": words, **constants},
        )

    def _set(self, attribute: int, value: Any) -> None:
        check(
            self.library.cublasLtMatmulDescSetAttribute(
                self.description, attribute, ctypes.byref(value), ctypes.sizeof(value)
            ),
            f"MatmulDescSetAttribute {attribute}",
        )

    def _layout(self, kind: int, rows: int, columns: int) -> Any:
        made = ctypes.c_void_p()
        check(
            self.library.cublasLtMatrixLayoutCreate(
                ctypes.byref(made),
                kind,
                ctypes.c_uint64(rows),
                ctypes.c_uint64(columns),
                ctypes.c_int64(rows),
            ),
            "MatrixLayoutCreate",
        )
        return made
