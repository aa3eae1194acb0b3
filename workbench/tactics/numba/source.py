"""The NUMBA source: which generated kernels fit a Body."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.body import TensorType
from workbench.formats import FORMATS, LINEAR, Format
from workbench.records import Refusal
from workbench.tactics.arithmetic import emulated_in_float
from workbench.tactics.numba.cache import KernelCache, default_cache_folder, numba_version
from workbench.tactics.numba.pointwise import plan_pointwise, pointwise_call
from workbench.tactics.numba.rows import ANCHORS, plan_rows, rows_call
from workbench.tactics.protocol import Call, Problem, Tactic

REVISION = "1"
"""Changes when generated code changes: timings of other revisions do not count."""

WORTH_THREADS = 1 << 16
"""Elements from which a loop is also offered in several threads."""


class NumbaSource:
    """Kernels generated for the Body and compiled for this processor.

    cache: where compiled kernels are kept; by default the user's cache folder.
    """

    name = "NUMBA"
    device_kind = "cpu"

    def __init__(self, cache: KernelCache | None = None) -> None:
        self.cache = cache or KernelCache(default_cache_folder())

    def unavailable(self) -> Refusal | None:
        return None

    @property
    def version(self) -> str:
        return f"{REVISION}+numba-{numba_version()}"

    def candidates(self, problem: Problem) -> Sequence[Tactic | Refusal]:
        node = problem.body.anchor_node
        if node is not None and node.op in ANCHORS:
            return self._rows(problem)
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
            case _:
                return Refusal(f"NUMBA has no tactic '{tactic.name}'", code="unknown_tactic")

    def reformat(self, type_: TensorType, source: Format, target: Format) -> Tactic | Refusal:
        return Refusal("generated kernels do not reformat yet", code="no_kernel")

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
            emulated=emulated_in_float(problem.body),
        )


def thread_counts(problem: Problem, elements: int) -> tuple[int, ...]:
    """Numbers of threads worth timing."""
    if problem.threads > 1 and elements >= WORTH_THREADS:
        return (problem.threads, 1)
    return (1,)


def _tactics_or_refusals(found: Sequence[Tactic | Refusal]) -> Sequence[Tactic | Refusal]:
    tactics = [f for f in found if isinstance(f, Tactic)]
    return tactics or list(dict.fromkeys(found))


NUMBA = NumbaSource()
