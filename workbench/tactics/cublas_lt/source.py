"""CUBLAS_LT, the tactic source: matrix products with bias and activation epilogues, by ctypes.

Each algorithm that the library's heuristic returns is one tactic. Constants follow cublasLt.h
(CUDA 12 and 13). cuBLASLt is column-major: a row-major product A·B is computed as Bᵀ·Aᵀ.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from workbench.body import TensorType
from workbench.formats import LINEAR, Format
from workbench.records import Refusal
from workbench.tactics.cublas_lt.library import library_version, load
from workbench.tactics.cublas_lt.product import product_of
from workbench.tactics.cublas_lt.product_plan import ProductPlan
from workbench.tactics.protocol import Call, Problem, Tactic

REVISION = "2"


class CublasLtSource:
    """cuBLASLt's own choice of algorithms, each timed."""

    name = "CUBLAS_LT"
    device_kind = "gpu"

    def unavailable(self) -> Refusal | None:
        if importlib.util.find_spec("cupy") is None:
            return Refusal("CuPy is not installed", remedy="install the extra gpu", code="library")
        found = load()
        return found if isinstance(found, Refusal) else None

    @property
    def version(self) -> str:
        library = load()
        return f"{REVISION}/{'none' if isinstance(library, Refusal) else library_version(library)}"

    def candidates(self, problem: Problem) -> Sequence[Tactic | Refusal]:
        product = product_of(problem.body)
        if isinstance(product, Refusal):
            return (product,)
        plan = ProductPlan(product)
        layouts = (LINEAR,) * len(problem.body.dynamic_inputs)
        return tuple(
            Tactic(
                self.name,
                plan.title(settings),
                layouts,
                (LINEAR,),
                product.kind,
                settings,
                self.version,
                emulated=not problem.device.native(product.kind),
            )
            for settings in dict.fromkeys(plan.settings(h) for h in plan.heuristics())
        )

    def prepare(self, tactic: Tactic, problem: Problem) -> Call | Refusal:
        product = product_of(problem.body)
        if isinstance(product, Refusal):
            return product
        plan = ProductPlan(product)
        words = plan.algorithm(tactic.parameters)
        if not plan.accepts(words):
            return Refusal("cuBLASLt does not run this algorithm at these sizes", code="algorithm")
        return plan.call(tactic, problem, words)

    def reformat(self, type_: TensorType, source: Format, target: Format) -> Tactic | Refusal:
        return Refusal("cuBLASLt rewrites no layouts", code="operator")


CUBLAS_LT = CublasLtSource()
