"""CUBLAS_LT, the tactic source: matrix products with bias and activation epilogues, by ctypes.

Each algorithm that the library's heuristic returns is one tactic. Constants follow cublasLt.h
(CUDA 12 and 13). cuBLASLt is column-major: a row-major product A·B is computed as Bᵀ·Aᵀ.
"""

from __future__ import annotations

import ctypes
import functools
import glob
import importlib.util
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from workbench.body import Body, Node, TensorType
from workbench.datatypes import DataType
from workbench.devices import Buffer
from workbench.errors import DeviceError
from workbench.formats import LINEAR, Format
from workbench.gpu_device import gpu_of
from workbench.records import Refusal
from workbench.tactics.protocol import Call, Launch, Problem, Tactic

REVISION = "1"
WORKSPACE = 4 << 20
ALGORITHMS = 8
_TYPES = {DataType.FLOAT: 0, DataType.HALF: 2, DataType.BF16: 14}  # cudaDataType_t
_COMPUTE_32F, _REAL_32F = 68, 0
_TRANS_A, _TRANS_B, _EPILOGUE, _BIAS_POINTER, _BIAS_TYPE = 3, 4, 7, 8, 26
_WORKSPACE_BYTES = 1  # CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES
_EPILOGUES = {
    (False, ""): 1,
    (False, "Relu"): 2,
    (True, ""): 4,
    (True, "Relu"): 6,
}


class _Heuristic(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t; the algorithm is its first 64 bytes."""

    _fields_ = (
        ("algorithm", ctypes.c_uint64 * 8),
        ("workspace", ctypes.c_size_t),
        ("state", ctypes.c_int),
        ("waves", ctypes.c_float),
        ("reserved", ctypes.c_int * 4),
    )


@dataclass(frozen=True)
class Product:
    """out[m, n] = act(a[m, k] · b[k, n] + bias[n]), row-major; b may be stored transposed."""

    m: int
    n: int
    k: int
    a: str
    b: str
    bias: str
    transposed: bool
    activation: str
    kind: DataType


def product_of(body: Body) -> Product | Refusal:
    """The product that a Body is, if cuBLASLt computes all of it in one call."""
    anchor = body.anchor_node
    if anchor is None or anchor.op not in ("Gemm", "MatMul"):
        return Refusal("cuBLASLt multiplies matrices only", code="operator")
    left, right = anchor.inputs[0], anchor.inputs[1]
    a, b = body.types[left], body.types[right]
    if a.dtype not in _TYPES or b.dtype is not a.dtype or len(b.shape) != 2:
        return Refusal(f"no cuBLASLt product of {a} and {b}", code="type")
    transposed = False
    bias = ""
    if anchor.op == "Gemm":
        t = anchor.attributes
        if t["transA"] or t["alpha"] != 1.0 or t["beta"] != 1.0:
            return Refusal("transA, alpha and beta are not among its calls here", code="attribute")
        transposed = bool(t["transB"])
        bias = anchor.inputs[2] if len(anchor.inputs) > 2 else ""
    out = body.types[anchor.outputs[0]]
    rest = [n for n in body.nodes if n is not anchor and n.op != "Constant"]
    bias, activation, beyond = _epilogue(body, anchor, rest, bias)
    if beyond or body.output_types[0].dtype is not a.dtype:
        names = " + ".join(n.op for n in beyond) or "a change of type"
        return Refusal(f"cuBLASLt has no epilogue {names}", code="epilogue")
    if bias and body.types[bias].shape not in ((out.shape[-1],), (1, out.shape[-1])):
        return Refusal(f"its bias has shape {body.types[bias].shape}", code="shape")
    return Product(
        prod(out.shape[:-1]),
        out.shape[-1],
        a.shape[-1],
        left,
        right,
        bias,
        transposed,
        activation,
        a.dtype,
    )


def _epilogue(
    body: Body, anchor: Node, rest: Sequence[Node], bias: str
) -> tuple[str, str, list[Node]]:
    left = list(rest)
    value = anchor.outputs[0]
    constants = {i.name for i in body.inputs if i.constant}
    if left and left[0].op == "Add" and not bias:
        others = [v for v in left[0].inputs if v != value]
        if len(others) == 1 and others[0] in constants:
            bias, value = others[0], left.pop(0).outputs[0]
    activation = ""
    if left and left[0].op == "Relu" and left[0].inputs == (value,):
        activation = left.pop(0).op
    return bias, activation, left


class CublasLtSource:
    """cuBLASLt's own choice of algorithms, each timed."""

    name = "CUBLAS_LT"
    device_kind = "gpu"

    def unavailable(self) -> Refusal | None:
        if importlib.util.find_spec("cupy") is None:
            return Refusal("CuPy is not installed", remedy="install the extra gpu", code="library")
        found = _load()
        return found if isinstance(found, Refusal) else None

    @property
    def version(self) -> str:
        library = _load()
        return f"{REVISION}/{'none' if isinstance(library, Refusal) else _version(library)}"

    def candidates(self, problem: Problem) -> Sequence[Tactic | Refusal]:
        product = product_of(problem.body)
        if isinstance(product, Refusal):
            return (product,)
        plan = _Plan(product)
        layouts = (LINEAR,) * len(problem.body.dynamic_inputs)
        return tuple(
            Tactic(
                self.name,
                f"algorithm {index}",
                layouts,
                (LINEAR,),
                product.kind,
                (
                    ("algorithm", tuple(int(w) for w in found.algorithm)),
                    ("workspace", int(found.workspace)),
                ),
                self.version,
                emulated=not problem.device.native(product.kind),
            )
            for index, found in enumerate(plan.heuristics())
        )

    def prepare(self, tactic: Tactic, problem: Problem) -> Call | Refusal:
        product = product_of(problem.body)
        if isinstance(product, Refusal):
            return product
        plan = _Plan(product)
        words = (ctypes.c_uint64 * 8)(*tactic.parameter("algorithm"))
        known = [tuple(h.algorithm) for h in plan.heuristics()]
        if tuple(words) not in known and not plan.accepts(words):
            return Refusal("cuBLASLt does not run this algorithm at these sizes", code="algorithm")
        return plan.call(tactic, problem, words)

    def reformat(self, type_: TensorType, source: Format, target: Format) -> Tactic | Refusal:
        return Refusal("cuBLASLt rewrites no layouts", code="operator")


class _Plan:
    """Descriptors of one product. Kept alive by the Call that uses them."""

    def __init__(self, product: Product) -> None:
        library = _load()
        if isinstance(library, Refusal):
            raise DeviceError(str(library), place="CUBLAS_LT")
        self.library, self.product = library, product
        self.handle = _handle()
        p = product
        kind = _TYPES[p.kind]
        self.description = ctypes.c_void_p()
        _check(
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

    def heuristics(self) -> list[_Heuristic]:
        """The algorithms that the library proposes, its best guess first."""
        preference = ctypes.c_void_p()
        _check(self.library.cublasLtMatmulPreferenceCreate(ctypes.byref(preference)), "Preference")
        size = ctypes.c_size_t(WORKSPACE)
        _check(
            self.library.cublasLtMatmulPreferenceSetAttribute(
                preference, _WORKSPACE_BYTES, ctypes.byref(size), 8
            ),
            "PreferenceSetAttribute",
        )
        results, count = (_Heuristic * ALGORITHMS)(), ctypes.c_int(0)
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
        _check(status, "MatmulAlgoGetHeuristic")
        return [r for r in results[: count.value] if r.state == 0]

    def accepts(self, words: Any) -> bool:
        """Whether an algorithm runs at these sizes."""
        result = _Heuristic()
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
            i.name: cupy.asarray(_bits(problem.constants[i.name]))
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
                _check(self.library.cublasLtMatmul(*arguments), "Matmul")

            return launch

        return Call(
            f"cublasLt {p.kind.info.label} {tactic.name}",
            bind,
            WORKSPACE,
            packed={"plan": self, "words": words, **constants},
        )

    def _set(self, attribute: int, value: Any) -> None:
        _check(
            self.library.cublasLtMatmulDescSetAttribute(
                self.description, attribute, ctypes.byref(value), ctypes.sizeof(value)
            ),
            f"MatmulDescSetAttribute {attribute}",
        )

    def _layout(self, kind: int, rows: int, columns: int) -> Any:
        made = ctypes.c_void_p()
        _check(
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


def _bits(array: Any) -> Any:
    own = np.ascontiguousarray(array)
    return own.view(np.uint16) if own.dtype.name == "bfloat16" else own


def _check(status: int, call: str) -> None:
    if status:
        raise DeviceError(f"cublasLt{call} answers status {status}", place="CUBLAS_LT")


@functools.cache
def _load() -> Any:
    """The library, or why it cannot be loaded. Prefers the wheels' over the system's."""
    roots = [sysconfig.get_path("purelib"), "/usr/local/cuda"]
    found = [p for r in roots for p in glob.glob(f"{r}/nvidia/**/libcublasLt.so.*", recursive=True)]
    found += glob.glob("/usr/local/cuda*/**/libcublasLt.so.1[23]", recursive=True)
    tried: list[str] = []
    for name in (*sorted(found), "libcublasLt.so.13", "libcublasLt.so.12"):
        try:
            return ctypes.CDLL(name)
        except OSError as e:
            tried.append(f"{Path(name).name}: {e}")
    return Refusal(f"libcublasLt is not found ({tried[-1]})", remedy="install the extra gpu")


def _version(library: Any) -> int:
    library.cublasLtGetVersion.restype = ctypes.c_size_t
    return int(library.cublasLtGetVersion())


@functools.cache
def _handle() -> Any:
    library = _load()
    handle = ctypes.c_void_p()
    _check(library.cublasLtCreate(ctypes.byref(handle)), "Create")
    return handle


CUBLAS_LT = CublasLtSource()
