"""The NUMBA source: which generated kernels fit a Body."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from workbench.body import TensorType
from workbench.datatypes import DataType
from workbench.files import cache_folder
from workbench.formats import CHW16, FORMATS, HWC, LINEAR, Format
from workbench.records import Refusal
from workbench.tactics.arithmetic import emulated_in_float
from workbench.tactics.launch import reformat_body
from workbench.tactics.numba import means, rows, windows
from workbench.tactics.numba.attention import attention_call, plan_attention
from workbench.tactics.numba.cache import KernelCache, numba_version
from workbench.tactics.numba.copies import (
    copies_call,
    gather_call,
    gather_refusal,
    plan_copies,
    plan_reformat,
)
from workbench.tactics.numba.integer_attention import (
    integer_attention_call,
    is_integer_attention,
    plan_integer_attention,
)
from workbench.tactics.numba.joins import join_call, plan_join
from workbench.tactics.numba.means import means_call, plan_means
from workbench.tactics.numba.pointwise import plan_pointwise, pointwise_call
from workbench.tactics.numba.product_plan import is_product, plan_product
from workbench.tactics.numba.products import product_call
from workbench.tactics.numba.rows import plan_rows, rows_call
from workbench.tactics.numba.windows import plan_windows, windows_call
from workbench.tactics.numba.winograd import plan_winograd, winograd_call
from workbench.tactics.protocol import OVERWRITES, Call, Problem, Tactic
from workbench.tactics.views import VIEWS

REVISION = "8"
"""Changes when generated code changes: timings of other revisions do not count."""

WORTH_THREADS = 1 << 16
"""Elements from which a loop is also offered in several threads."""
WORTH_ALL_THREADS = 1 << 20
"""Elements from which it is offered in all threads alone: while others use the machine, one thread
would look faster than it is among the layers of a run."""


WORTH_PRODUCTS = {True: 64, False: 16}
"""Multiply-adds that count as one element: of bytes, and of float32."""

INTEGER = ("int8 attention", "int8 product", "int8 product in place")
"""Tactics that multiply bytes as bytes."""


class NumbaSource:
    """Kernels generated for the Body and compiled for this processor.

    cache: where compiled kernels are kept; by default the user's cache folder.
    """

    name = "NUMBA"
    device_kind = "cpu"

    def __init__(self, cache: KernelCache | None = None) -> None:
        self.cache = cache or KernelCache(cache_folder("kernels"))

    def unavailable(self) -> Refusal | None:
        return None

    @property
    def version(self) -> str:
        return f"{REVISION}+numba-{numba_version()}"

    def candidates(self, problem: Problem) -> Sequence[Tactic | Refusal]:
        node = problem.body.anchor_node
        found: list[Tactic | Refusal] = []
        if node is not None and node.op == "Softmax" and "MatMul" in problem.body.operator_names:
            return self._attention(problem)
        if node is not None and node.op in rows.ANCHORS:
            found += self._rows(problem)
        if node is not None and node.op in windows.ANCHORS:
            found += self._windows(problem)
        if node is not None and node.op in means.ANCHORS:
            found += self._means(problem)
        if node is not None and node.op == "Conv":
            found += self._winograd(problem)
        if is_product(problem.body):
            found += self._product(problem)
        if found:
            return _tactics_or_refusals(found)
        if all(n.op in (*VIEWS, "Concat", "Constant") for n in problem.body.nodes):
            return self._copies(problem)
        if node is not None and node.op == "Concat":
            return self._join(problem)
        if problem.body.operator_names == ("Gather",):
            return self._gather(problem)
        return self._pointwise(problem)

    def prepare(self, tactic: Tactic, problem: Problem) -> Call | Refusal:
        threads = min(tactic.parameter("threads"), problem.threads)
        match tactic.name:
            case "pointwise":
                plan = plan_pointwise(problem.body, tactic.outputs[0])
                if isinstance(plan, Refusal):
                    return plan
                return pointwise_call(plan, problem, self.cache, threads)
            case "rows":
                plan = plan_rows(problem.body)
                if isinstance(plan, Refusal):
                    return plan
                return rows_call(plan, problem, self.cache, threads)
            case "int8 attention":
                plan = plan_integer_attention(problem.body)
                if isinstance(plan, Refusal):
                    return plan
                return integer_attention_call(plan, problem, self.cache, threads)
            case "attention":
                plan = plan_attention(problem.body)
                if isinstance(plan, Refusal):
                    return plan
                return attention_call(plan, problem, self.cache, threads)
            case "join":
                plan = plan_join(problem.body)
                if isinstance(plan, Refusal):
                    return plan
                return join_call(plan, problem, self.cache, threads)
            case "means":
                plan = plan_means(problem.body)
                if isinstance(plan, Refusal):
                    return plan
                return means_call(plan, problem, self.cache, threads)
            case "window":
                plan = plan_windows(problem.body, tactic.outputs[0])
                if isinstance(plan, Refusal):
                    return plan
                return windows_call(plan, problem, self.cache, threads)
            case "product" | "product in place" | "int8 product" | "int8 product in place":
                plan = plan_product(problem.body)
                if isinstance(plan, Refusal):
                    return plan
                return product_call(plan, problem, self.cache, threads)
            case "winograd":
                plan = plan_winograd(problem.body, tactic.outputs[0])
                if isinstance(plan, Refusal):
                    return plan
                return winograd_call(plan, problem, self.cache, threads)
            case "copy":
                plan = plan_copies(problem.body, tactic.outputs[0])
                if isinstance(plan, Refusal):
                    return plan
                return copies_call(plan, problem, self.cache, threads)
            case "reformat":
                plan = plan_reformat(problem.body, tactic.inputs[0], tactic.outputs[0])
                if isinstance(plan, Refusal):
                    return plan
                return copies_call(plan, problem, self.cache, threads)
            case "gather":
                return gather_refusal(problem.body) or gather_call(problem, self.cache, threads)
            case _:
                return Refusal(f"NUMBA has no tactic '{tactic.name}'", code="unknown_tactic")

    def reformat(self, type_: TensorType, source: Format, target: Format) -> Tactic | Refusal:
        for f in (source, target):
            if f.owner or not f.fits(len(type_.shape)):
                return Refusal(f"{type_} in layout {f} is not read here", code="format")
        if type_.dtype is DataType.STRING:
            return Refusal("strings are not copied here", code="type")
        plan = plan_reformat(reformat_body(type_), source, target)
        if isinstance(plan, Refusal):
            return plan
        return Tactic(
            self.name,
            "reformat",
            (source,),
            (target,),
            type_.dtype,
            parameters=(("threads", 1),),
            version=self.version,
        )

    def _pointwise(self, problem: Problem) -> Sequence[Tactic | Refusal]:
        body = problem.body
        found: list[Tactic | Refusal] = []
        for layout in FORMATS:
            if not layout.fits(len(body.output_types[0].shape)):
                continue
            plan = plan_pointwise(body, layout)
            if isinstance(plan, Refusal):
                found.append(plan)
                continue
            for threads in thread_counts(problem, plan.nest.count):
                outputs = (layout,) * len(body.outputs)
                found.append(self._tactic("pointwise", problem, plan.layouts, outputs, threads))
        return _tactics_or_refusals(found)

    def _copies(self, problem: Problem) -> Sequence[Tactic | Refusal]:
        body = problem.body
        found: list[Tactic | Refusal] = []
        for layout in FORMATS if body.operator_names == ("Concat",) else (LINEAR,):
            if not layout.fits(len(body.output_types[0].shape)):
                continue
            plan = plan_copies(body, layout)
            if isinstance(plan, Refusal):
                found.append(plan)
                continue
            inputs = (layout,) * len(body.dynamic_inputs)
            outputs = (layout,) * len(body.outputs)
            for threads in thread_counts(problem, plan.elements):
                found.append(self._tactic("copy", problem, inputs, outputs, threads))
        return _tactics_or_refusals(found)

    def _gather(self, problem: Problem) -> Sequence[Tactic | Refusal]:
        refusal = gather_refusal(problem.body)
        if refusal is not None:
            return (refusal,)
        inputs = (LINEAR,) * len(problem.body.dynamic_inputs)
        return (self._tactic("gather", problem, inputs, (LINEAR,), 1),)

    def _rows(self, problem: Problem) -> Sequence[Tactic | Refusal]:
        plan = plan_rows(problem.body)
        if isinstance(plan, Refusal):
            return (plan,)
        inputs = (LINEAR,) * len(problem.body.dynamic_inputs)
        outputs = (LINEAR,) * len(problem.body.outputs)
        return [
            self._tactic("rows", problem, inputs, outputs, threads)
            for threads in thread_counts(problem, plan.nest.count)
        ]

    def _attention(self, problem: Problem) -> Sequence[Tactic | Refusal]:
        integers = is_integer_attention(problem.body)
        name = "int8 attention" if integers else "attention"
        plan = (plan_integer_attention if integers else plan_attention)(problem.body)
        if isinstance(plan, Refusal):
            return (plan,)
        inputs = (LINEAR,) * len(problem.body.dynamic_inputs)
        return [
            self._tactic(name, problem, inputs, (LINEAR,), threads)
            for threads in thread_counts(problem, plan.elements)
        ]

    def _join(self, problem: Problem) -> Sequence[Tactic | Refusal]:
        plan = plan_join(problem.body)
        if isinstance(plan, Refusal):
            return (plan,)
        inputs = (LINEAR,) * len(problem.body.dynamic_inputs)
        outputs = (LINEAR,) * len(problem.body.outputs)
        count = sum(s.nest.count for s in plan)
        return [
            self._tactic("join", problem, inputs, outputs, threads)
            for threads in thread_counts(problem, count)
        ]

    def _windows(self, problem: Problem) -> Sequence[Tactic | Refusal]:
        found: list[Tactic | Refusal] = []
        for layout in FORMATS:
            plan = plan_windows(problem.body, layout)
            if isinstance(plan, Refusal):
                found.append(plan)
                continue
            outputs = (layout,) * len(problem.body.outputs)
            for threads in thread_counts(problem, plan.elements):
                found.append(self._tactic("window", problem, plan.layouts, outputs, threads))
        return found

    def _means(self, problem: Problem) -> Sequence[Tactic | Refusal]:
        plan = plan_means(problem.body)
        if isinstance(plan, Refusal):
            return (plan,)
        names = [i.name for i in problem.body.dynamic_inputs]
        inputs = tuple(plan.layout if n == plan.source else LINEAR for n in names)
        outputs = (LINEAR,) * len(problem.body.outputs)
        return [
            self._tactic("means", problem, inputs, outputs, threads)
            for threads in thread_counts(problem, plan.elements)
        ]

    def _winograd(self, problem: Problem) -> Sequence[Tactic | Refusal]:
        found: list[Tactic | Refusal] = []
        for layout in (HWC, CHW16):
            plan = plan_winograd(problem.body, layout)
            if isinstance(plan, Refusal):
                found.append(plan)
                continue
            for threads in thread_counts(problem, plan.elements):
                found.append(self._tactic("winograd", problem, plan.layouts, (layout,), threads))
        return _tactics_or_refusals(found)

    def _product(self, problem: Problem) -> Sequence[Tactic | Refusal]:
        plan = plan_product(problem.body)
        if isinstance(plan, Refusal):
            return (plan,)
        name = "int8 product" if plan.code.integers else "product"
        outputs = (plan.layout,) * len(problem.body.outputs)
        elements = plan.elements // WORTH_PRODUCTS[plan.code.integers]
        found = [
            self._tactic(name, problem, plan.layouts, outputs, threads)
            for threads in thread_counts(problem, elements)
        ]
        if plan.overwritable is None:
            return found
        over = (OVERWRITES, plan.overwritable)
        return [
            *(replace(t, name=f"{name} in place", parameters=(*t.parameters, over)) for t in found),
            *found,
        ]

    def _tactic(
        self,
        name: str,
        problem: Problem,
        inputs: tuple[Format, ...],
        outputs: tuple[Format, ...],
        threads: int,
    ) -> Tactic:
        return Tactic(
            self.name,
            name,
            inputs,
            outputs,
            problem.body.compute_type,
            parameters=(("threads", threads),),
            version=self.version,
            emulated=name not in INTEGER and emulated_in_float(problem.body),
        )


def thread_counts(problem: Problem, elements: int) -> tuple[int, ...]:
    """Numbers of threads worth timing."""
    if problem.threads == 1 or elements < WORTH_THREADS:
        return (1,)
    return (problem.threads,) if elements >= WORTH_ALL_THREADS else (problem.threads, 1)


def _tactics_or_refusals(found: Sequence[Tactic | Refusal]) -> Sequence[Tactic | Refusal]:
    tactics = [f for f in found if isinstance(f, Tactic)]
    return tactics or list(dict.fromkeys(found))


NUMBA = NumbaSource()
