"""TRITON, the tactic source: generated Triton kernels, compiled ahead of time in processes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from itertools import zip_longest

from workbench.body import Body, TensorType
from workbench.datatypes import DataType
from workbench.formats import LINEAR, Format
from workbench.gpu_packages import not_installed
from workbench.records import Refusal
from workbench.tactics.machine_code import has_machine_code
from workbench.tactics.product import product_of
from workbench.tactics.protocol import TF32, Call, Problem, Tactic
from workbench.tactics.scalar_text import Untranslatable
from workbench.tactics.triton.attention import attention_of
from workbench.tactics.triton.attention_code import attention_program, block_of, blocks
from workbench.tactics.triton.calls import (
    call_of,
    capability_of,
    offered_capability,
    targets_of,
)
from workbench.tactics.triton.compiler import COMPILERS, parts, triton_version
from workbench.tactics.triton.depthwise import depthwise_program, is_depthwise, strip_of, strips
from workbench.tactics.triton.kernel import Program
from workbench.tactics.triton.plans import FORMS, layouts_of, offered_tiles, plan_of
from workbench.tactics.triton.product_code import program_of
from workbench.tactics.triton.tiles import ROUNDED, tile_of

REVISION = "11"
ATTENTION, DEPTHWISE = "attention", "depthwise"
FP8_SINCE = 89
OLDEST = 80
"""Compute capability, times ten, from which on these kernels are compiled."""


class TritonSource:
    """Kernels as Triton text; see ``product_code`` and ``plans``."""

    name = "TRITON"
    device_kind = "gpu"
    slow = True

    def unavailable(self) -> Refusal | None:
        return not_installed("triton", "Triton") or not_installed("cupy", "CuPy")

    @property
    def version(self) -> str:
        return f"{REVISION}/{triton_version()}"

    def candidates(self, problem: Problem) -> Sequence[Tactic | Refusal]:
        capability = offered_capability(problem)
        if capability < OLDEST:
            text = f"needs compute capability {OLDEST / 10}, this is {capability / 10}"
            return (Refusal(text, code="device"),)
        if problem.body.anchor_node is not None and problem.body.anchor_node.op == "Softmax":
            return self._attention(problem, capability)
        try:
            return self._depthwise(problem)
        except Untranslatable:
            pass  # then it is a product, or a refusal says what it is
        found: list[Tactic] = []
        reasons: list[Refusal] = []
        for alike in FORMS:
            made: list[Sequence[Tactic]] = []
            for form in alike:
                try:
                    made.append(self._products(problem, form, capability))
                except Untranslatable as e:
                    if not form:
                        reasons.append(Refusal(str(e), code="operator"))
            found += _dealt(made)
        return tuple(found or reasons)

    def _attention(self, problem: Problem, capability: int) -> Sequence[Tactic | Refusal]:
        try:
            found = attention_of(problem.body, problem.constants)
            if problem.body.output_types[0].dtype is DataType.FP8:
                _require_fp8(problem, capability)
            offered = blocks(found, capability, tf32=problem.tf32)
            names = [attention_program(found, b).name for b in offered]
        except Untranslatable as e:
            return (Refusal(str(e), code="operator"),)
        return tuple(
            self._tactic(problem.body, found.kinds[0], ATTENTION, b.parameters, name)
            for b, name in zip(offered, names, strict=True)
        )

    def _depthwise(self, problem: Problem) -> list[Tactic]:
        product = product_of(problem.body, problem.constants)
        if not is_depthwise(product):
            raise Untranslatable("it is no depthwise convolution")
        layouts = layouts_of(problem.body, DEPTHWISE)
        return [
            self._tactic(
                problem.body,
                product.kind,
                DEPTHWISE,
                s.parameters,
                depthwise_program(product, s, layouts).name,
            )
            for s in strips(product)
        ]

    def _products(self, problem: Problem, form: str, capability: int) -> list[Tactic]:
        plan = plan_of(problem.body, problem.constants, form)
        kind = plan.product.kind
        if kind is DataType.FP8:
            _require_fp8(problem, capability)
        offered = offered_tiles(plan, problem.body, capability, tf32=problem.tf32)
        program_of(plan, offered[0])  # raises where the epilogue has no text
        return [
            self._tactic(problem.body, kind, form, t.parameters, program_of(plan, t).name)
            for t in offered
        ]

    def _tactic(
        self,
        body: Body,
        kind: DataType,
        form: str,
        parameters: tuple[tuple[str, object], ...],
        name: str,
    ) -> Tactic:
        layouts = layouts_of(body, form)
        return Tactic(
            self.name,
            name,
            tuple(layouts.get(i.name, LINEAR) for i in body.dynamic_inputs),
            tuple(layouts.get(o, LINEAR) for o in body.outputs),
            kind,
            (
                *((TF32,) if ("multiply", ROUNDED) in parameters else ()),
                ("form", form),
                *parameters,
            ),
            self.version,
        )

    def prepare(self, tactic: Tactic, problem: Problem) -> Call | Refusal:
        try:
            program = program_for(tactic, problem)
        except Untranslatable as e:
            return Refusal(str(e), code="operator")
        return call_of(program, problem, tactic.version.partition("/")[2])

    def precompile(self, problem: Problem, tactics: Sequence[Tactic]) -> tuple[Future[bytes], ...]:
        """Start compiling what ``prepare`` of these tactics will need; returns at once.

        Kernels whose code the plan or this machine has are left out. ``prepare`` waits for those
        under way; wait for the Futures (which may raise CompileError) before anything is timed.
        """
        started: list[Future[bytes]] = []
        for tactic in tactics:
            try:
                kernels = program_for(tactic, problem).kernels
            except Untranslatable:
                continue  # prepare refuses it with the reason
            for kernel in kernels:
                started += [
                    COMPILERS.submit(kernel, target)
                    for target in targets_of(problem)
                    if not has_machine_code(problem, parts(kernel, target, triton_version()))
                ]
        return tuple(dict.fromkeys(started))

    def reformat(self, type_: TensorType, source: Format, target: Format) -> Tactic | Refusal:
        return Refusal("no Triton kernel rewrites layouts", code="operator")


def _dealt(forms: Sequence[Sequence[Tactic]]) -> list[Tactic]:
    """Some of each form before all of any: which is best is not known beforehand."""
    return [t for turn in zip_longest(*forms) for t in turn if t is not None]


def _require_fp8(problem: Problem, capability: int) -> None:
    """Raises Untranslatable where the kernels' compute capability, times ten, has no FP8."""
    if capability >= FP8_SINCE:
        return
    here = capability_of(problem)
    level = f"{problem.compatibility.name} goes back to {OLDEST / 10}"
    reason = f"this is {here / 10}" if capability == here else level
    raise Untranslatable(f"FP8 needs compute capability {FP8_SINCE / 10}, {reason}")


def program_for(tactic: Tactic, problem: Problem) -> Program:
    """The launches of a tactic. Raises Untranslatable."""
    form = str(tactic.parameter("form"))
    if form == ATTENTION:
        return attention_program(
            attention_of(problem.body, problem.constants), block_of(tactic.parameters)
        )
    if form == DEPTHWISE:
        product = product_of(problem.body, problem.constants)
        layouts = layouts_of(problem.body, form)
        return depthwise_program(product, strip_of(tactic.parameters), layouts)
    plan = plan_of(problem.body, problem.constants, form)
    return program_of(plan, tile_of(tactic.parameters))


TRITON = TritonSource()
