"""NUMPY: runs every Body on every platform, through NumPy and its BLAS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from workbench import dimensions
from workbench.body import Array, Body, TensorType
from workbench.datatypes import DataType
from workbench.devices import Buffer
from workbench.errors import ExecutionError, NetworkError
from workbench.formats import LINEAR, Format
from workbench.records import Refusal
from workbench.tactics.arithmetic import emulated_in_float
from workbench.tactics.blas_threads import blas_threads, on_threads
from workbench.tactics.numpy_pointwise import POINTWISE_MAKERS
from workbench.tactics.numpy_pooling import POOLING_MAKERS
from workbench.tactics.numpy_products import PRODUCT_MAKERS
from workbench.tactics.numpy_program import KernelMaker, lower
from workbench.tactics.protocol import Call, Launch, Problem, Tactic
from workbench.tactics.views import Copy, laid_over, movement_copies

MAKERS: dict[str, KernelMaker] = {**PRODUCT_MAKERS, **POOLING_MAKERS, **POINTWISE_MAKERS}
"""How the tactic ``prepared`` computes an operator; others run by their reference."""

REVISION = "4"
"""Changes when a kernel of this source changes: timings of other revisions do not count."""


class NumpySource:
    """NumPy kernels, on linear tensors.

    ``reference`` is the typed reference interpreter, and runs every Body. ``prepared`` lowers the
    Body to BLAS products, strided views and ufuncs over prepared buffers; ``views`` copies between
    views of the buffers. ``once`` computes a Body that reads no data when its sizes are bound; a
    run copies the result.
    """

    name = "NUMPY"
    device_kind = "cpu"

    def unavailable(self) -> Refusal | None:
        return None

    @property
    def version(self) -> str:
        return f"{REVISION}+numpy-{np.__version__}"

    def candidates(self, problem: Problem) -> Sequence[Tactic | Refusal]:
        if (refusal := _refused(problem.body)) is not None:
            return (refusal,)
        reference = self._tactic("reference", problem.body)
        if not isinstance(movement_copies(problem.body), Refusal):
            return (self._tactic("views", problem.body), reference)
        if _reads_no_data(problem.body):
            return (self._tactic("once", problem.body),)
        if any(n.op in MAKERS for n in problem.body.nodes):
            return (self._tactic("prepared", problem.body), reference)
        return (reference,)

    def prepare(self, tactic: Tactic, problem: Problem) -> Call | Refusal:
        if (refusal := _refused(problem.body)) is not None:
            return refusal
        match tactic.name:
            case "prepared":
                return lower(problem, MAKERS).call(problem)
            case "views":
                copies = movement_copies(problem.body)
                return copies if isinstance(copies, Refusal) else _views_call(copies, problem)
            case "once":
                return _once_call(problem)
            case "reference":
                return _reference_call(problem)
            case "reformat":
                return _reformat_call(tactic, problem)
            case _:
                return Refusal(f"NUMPY has no tactic '{tactic.name}'", code="unknown_tactic")

    def reformat(self, type_: TensorType, source: Format, target: Format) -> Tactic | Refusal:
        for f in (source, target):
            if f.owner:
                return Refusal(f"only {f.owner} reads layout {f}", code="opaque_format")
            if not f.fits(len(type_.shape)):
                return Refusal(f"{type_} cannot lie in layout {f}", code="format_rank")
        return Tactic(
            self.name, "reformat", (source,), (target,), type_.dtype, version=self.version
        )

    def _tactic(self, name: str, body: Body) -> Tactic:
        return Tactic(
            self.name,
            name,
            (LINEAR,) * len(body.dynamic_inputs),
            (LINEAR,) * len(body.outputs),
            body.compute_type,
            version=self.version,
            emulated=emulated_in_float(body),
            deterministic=all(n.operator.deterministic for n in body.nodes),
        )


def _refused(body: Body) -> Refusal | None:
    for name, t in body.types.items():
        if t.dtype is DataType.STRING:
            return Refusal(f"'{name}' holds strings", code="strings")
    for name, t in zip(body.outputs, body.output_types, strict=True):
        if not dimensions.is_static(t.shape):
            return Refusal(
                f"the size of '{name}' {t} depends on values",
                remedy="bind every size before a tactic is asked for",
                code="dynamic_shape",
            )
    return None


def views(body: Body, buffers: Sequence[Buffer], *, outputs: bool) -> dict[str, Array]:
    """Linear arrays over the buffers of a Body's dynamic inputs, or of its outputs."""
    if outputs:
        named = zip(body.outputs, body.output_types, strict=True)
    else:
        named = ((i.name, i.type) for i in body.dynamic_inputs)
    return {n: b.view(t.dtype, t.shape) for (n, t), b in zip(list(named), buffers, strict=True)}


def _reference_call(problem: Problem) -> Call:
    body, constants = problem.body, dict(problem.constants)
    threads = blas_threads(problem.threads)

    def bind(
        inputs: Sequence[Buffer], outputs: Sequence[Buffer], workspace: Buffer | None, stream: Any
    ) -> Launch:
        given = {**constants, **views(body, inputs, outputs=False)}
        results = [
            b.view(t.dtype, t.shape) for t, b in zip(body.output_types, outputs, strict=True)
        ]

        def launch() -> None:
            try:
                computed = body.evaluate(given)
            except NetworkError as e:
                raise ExecutionError(e.problem, place=e.place, remedy=e.remedy) from None
            for name, out in zip(body.outputs, results, strict=True):
                out[...] = computed[name]

        return on_threads(launch, threads)

    return Call("numpy reference", bind)


def _reads_no_data(body: Body) -> bool:
    """Whether every run computes the same."""
    return not body.dynamic_inputs and all(n.operator.deterministic for n in body.nodes)


def _once_call(problem: Problem) -> Call:
    body = problem.body
    computed = body.evaluate(dict(problem.constants))
    kept = [np.array(computed[name]) for name in body.outputs]

    def bind(
        inputs: Sequence[Buffer], outputs: Sequence[Buffer], workspace: Buffer | None, stream: Any
    ) -> Launch:
        results = [
            b.view(t.dtype, t.shape) for t, b in zip(body.output_types, outputs, strict=True)
        ]

        def launch() -> None:
            for out, value in zip(results, kept, strict=True):
                np.copyto(out, value)

        return launch

    return Call("numpy once", bind)


def _views_call(copies: Sequence[Copy], problem: Problem) -> Call:
    body = problem.body
    dynamic = {i.name: k for k, i in enumerate(body.dynamic_inputs)}

    def bind(
        inputs: Sequence[Buffer], outputs: Sequence[Buffer], workspace: Buffer | None, stream: Any
    ) -> Launch:
        pairs: list[tuple[Array, Array]] = []
        for c in copies:
            if not c.read.size:
                continue
            if c.source in dynamic:
                memory = inputs[dynamic[c.source]].memory
            else:
                constant = np.ascontiguousarray(problem.constants[c.source])
                memory = constant.reshape(-1).view(np.uint8)
            target = outputs[c.output].memory
            pairs.append((laid_over(c.write, target), laid_over(c.read, memory)))

        def launch() -> None:
            for write, read in pairs:
                np.copyto(write, read)

        return launch

    return Call("numpy views", bind)


def _reformat_call(tactic: Tactic, problem: Problem) -> Call | Refusal:
    if problem.body.operator_names != ("Identity",):
        return Refusal("a reformat runs the Body Identity only", code="not_identity")
    (source,), (target,) = tactic.inputs, tactic.outputs
    type_ = problem.body.inputs[0].type

    def bind(
        inputs: Sequence[Buffer], outputs: Sequence[Buffer], workspace: Buffer | None, stream: Any
    ) -> Launch:
        stored = inputs[0].view(type_.dtype, source.physical_shape(type_.shape))
        result = outputs[0].view(type_.dtype, target.physical_shape(type_.shape))

        def launch() -> None:
            result[...] = target.pack(source.unpack(stored, type_.shape))

        return launch

    return Call("numpy reformat", bind)


NUMPY = NumpySource()
