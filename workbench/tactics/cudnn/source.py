"""CUDNN, the tactic source: convolutions, products, attention and norms as cuDNN graphs.

Each plan that cuDNN's heuristics propose for a graph is one tactic, named by its engine and knobs.
The plan file carries the compiled plan, so that loading asks no heuristics and compiles nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from itertools import zip_longest
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from workbench.body import TensorType
from workbench.devices import Buffer
from workbench.errors import DeviceError
from workbench.formats import Format
from workbench.gpu_device import DeviceConstant, GpuDevice, gpu_of
from workbench.gpu_packages import not_installed
from workbench.records import Refusal
from workbench.tactics.compile_processes import CompileError
from workbench.tactics.cudnn.described import graphs_of
from workbench.tactics.cudnn.frontend import (
    UNKNOWN_KNOB,
    LoadedPlan,
    PlanChoice,
    PlanRefused,
    compiled,
    loaded,
    proposals,
)
from workbench.tactics.cudnn.graph import Graph, Input, Number
from workbench.tactics.cudnn.library import handle_of, load, planning_handle, versions
from workbench.tactics.cudnn.planners import PLANNERS
from workbench.tactics.machine_code import has_machine_code, machine_code
from workbench.tactics.protocol import TF32, Call, Launch, Problem, Tactic
from workbench.tactics.terms import Constant, Constants

REVISION = "1"


ROUNDED_PRODUCTS = Refusal(
    "cuDNN's matrix products of float32 round their factors to TF32",
    remedy="set BuilderFlag.TF32 to allow it",
    code="tf32",
)
"""Seen with cuDNN 9.19 on an H200: engine 0 does so whichever numerical notes are deselected."""


class CudnnSource:
    """cuDNN's own choice of engines, each timed."""

    name = "CUDNN"
    device_kind = "gpu"
    slow = False

    def __init__(self) -> None:
        self._proposed: dict[tuple[int, str], tuple[PlanChoice, ...] | Refusal] = {}
        self._plans: WeakValueDictionary[tuple[int, str], LoadedPlan] = WeakValueDictionary()

    def unavailable(self) -> Refusal | None:
        found = not_installed("cupy", "CuPy") or load()
        return found if isinstance(found, Refusal) else None

    @property
    def version(self) -> str:
        return f"{REVISION}/{versions()}"

    def candidates(self, problem: Problem) -> Sequence[Tactic | Refusal]:
        graphs = graphs_of(problem)
        if isinstance(graphs, Refusal):
            return (graphs,)
        device = problem.device
        if not isinstance(device, GpuDevice):
            reason = f"cuDNN's heuristics ask the GPU; this is '{device.kind}'"
            return (Refusal(reason, code="device"),)
        offered = [self.proposed(g, device) for g in graphs]
        refused = [r for r in offered if isinstance(r, Refusal)]
        lists = [
            [self._tactic(problem, g, choice) for choice in choices]
            for g, found in zip(graphs, offered, strict=True)
            if not isinstance(found, Refusal)
            for choices in arithmetics(g, found, tf32=problem.tf32)
        ]
        # The best guesses of every graph first.
        tactics = [t for row in zip_longest(*lists) for t in row if t is not None]
        if not tactics and not refused:
            return (ROUNDED_PRODUCTS,)
        return (*tactics, *refused)

    def proposed(self, graph: Graph, device: GpuDevice) -> tuple[PlanChoice, ...] | Refusal:
        """What the heuristics propose for a graph: asked once in a process."""
        key = (device.index, graph.text)
        if key not in self._proposed:
            try:
                with device.current:
                    found = proposals(graph, planning_handle(device))
            except PlanRefused as e:
                found = ()
                reason = f"no cuDNN engine runs this graph ({graph.variant}): {e}"
            else:
                reason = f"cuDNN proposes no engine for this graph ({graph.variant})"
            self._proposed[key] = found or Refusal(reason, code="engine")
        return self._proposed[key]

    def _tactic(self, problem: Problem, graph: Graph, choice: PlanChoice) -> Tactic:
        kind = problem.body.compute_type
        return Tactic(
            self.name,
            f"{graph.variant}, {choice.title}",
            graph.inputs,
            graph.outputs,
            kind,
            (
                *((TF32,) if choice.tf32 else ()),
                ("graph", graph.variant),
                ("engine", choice.engine),
                ("knobs", choice.knobs),
            ),
            self.version,
            emulated=not problem.device.native(kind),
        )

    def prepare(self, tactic: Tactic, problem: Problem) -> Call | Refusal:
        graphs = graphs_of(problem)
        if isinstance(graphs, Refusal):
            return graphs
        graph = _graph_of(tactic, graphs)
        if graph is None:
            return Refusal(f"no graph '{tactic.parameter('graph')}' at these sizes", code="graph")
        choice = _choice_of(tactic)
        device = gpu_of(problem.device)
        with device.current:
            return self._prepared(graph, choice, problem, device)

    def _prepared(
        self, graph: Graph, choice: PlanChoice, problem: Problem, device: GpuDevice
    ) -> Call | Refusal:
        handle = planning_handle(device)
        parts = self._parts(graph, choice, device)

        def make() -> bytes:
            begun = PLANNERS.planned(parts)
            return begun.result() if begun else compiled(graph, choice, handle)

        try:
            key, code = machine_code(problem, parts, make)
            plan = self._loaded(key, code, device)
        except (PlanRefused, CompileError) as e:
            return Refusal(f"cuDNN does not build this plan: {e}", code="plan")
        return _call(graph, plan, choice, problem, {key: code})

    def precompile(self, problem: Problem, tactics: Sequence[Tactic]) -> tuple[Future[bytes], ...]:
        graphs = graphs_of(problem)
        if isinstance(graphs, Refusal):
            return ()
        device = gpu_of(problem.device)
        started: list[Future[bytes]] = []
        for tactic in tactics:
            graph, choice = _graph_of(tactic, graphs), _choice_of(tactic)
            # Knobs without a name are found among what the heuristics propose in this process.
            if graph is None or UNKNOWN_KNOB in dict(choice.knobs):
                continue
            parts = self._parts(graph, choice, device)
            if not has_machine_code(problem, parts):
                started.append(PLANNERS.submit(parts, graph, choice, device))
        return tuple(started)

    def _parts(self, graph: Graph, choice: PlanChoice, device: GpuDevice) -> tuple[str, ...]:
        """All that decides a plan's code."""
        return (self.name, self.version, str(device.fingerprint), graph.text, repr(choice))

    def _loaded(self, key: str, code: bytes, device: GpuDevice) -> LoadedPlan:
        """The plan of some code: layers alike share one. Raises PlanRefused."""
        place = (device.index, key)
        found = self._plans.get(place)
        if found is None:
            found = self._plans[place] = loaded(code, planning_handle(device))
        return found

    def reformat(self, type_: TensorType, source: Format, target: Format) -> Tactic | Refusal:
        return Refusal("cuDNN rewrites no layouts here", code="operator")


def _graph_of(tactic: Tactic, graphs: Sequence[Graph]) -> Graph | None:
    return next((g for g in graphs if g.variant == tactic.parameter("graph")), None)


def _choice_of(tactic: Tactic) -> PlanChoice:
    return PlanChoice(tactic.parameter("engine"), tactic.parameter("knobs"), tactic.tf32)


def arithmetics(
    graph: Graph, found: Sequence[PlanChoice], *, tf32: bool
) -> tuple[Sequence[PlanChoice], ...]:
    """The plans of a graph by how they multiply float32: as TF32 where allowed, and in float32."""
    product = graph.float_product
    if not product:
        return (found,)
    rounded = ([replace(c, tf32=True) for c in found],) if tf32 else ()
    return rounded if product == "matmul" else (*rounded, found)


def _call(
    graph: Graph, plan: LoadedPlan, choice: PlanChoice, problem: Problem, code: dict[str, bytes]
) -> Call:
    device = gpu_of(problem.device)
    fixed: dict[int, int] = {}
    kept: dict[str, Any] = {"plan": plan}
    values = Constants(problem.body, problem.constants)
    for number, t in graph.placed:
        if isinstance(t.place, Constant):
            made = _constant(device, values, t.place)
            fixed[number], kept[t.name] = made.address, made
        elif isinstance(t.place, Number):
            array = np.full(1, t.place.value, np.float32)
            fixed[number], kept[t.name] = array.ctypes.data, array
    inputs_at = [(number, t) for number, t in graph.placed if isinstance(t.place, Input)]
    (output,) = (n for n, t in graph.placed if t.name == graph.operations[-1].output)

    def bind(
        inputs: Sequence[Buffer], outputs: Sequence[Buffer], workspace: Buffer | None, stream: Any
    ) -> Launch:
        addresses = {**fixed, output: outputs[0].address}
        for number, t in inputs_at:
            assert isinstance(t.place, Input)
            offset = t.place.offset * t.kind.itemsize
            addresses[number] = inputs[t.place.index].address + offset
        own = stream or device.main_stream
        space = workspace.address if workspace else 0
        cudnn = load()

        def launch() -> None:
            handle = handle_of(device)
            with device.current:
                cudnn.set_stream(handle=handle, stream=own.ptr)
                try:
                    plan.execute(addresses, space, handle)
                except RuntimeError as e:
                    raise DeviceError(f"cuDNN does not run its plan: {e}", place="CUDNN") from None

        return launch

    return Call(
        f"cudnn {graph.io.info.label} engine {choice.engine}",
        bind,
        plan.workspace_bytes,
        packed=kept,
        code=code,
    )


def _constant(device: GpuDevice, values: Constants, constant: Constant) -> DeviceConstant:
    """The constant on the device, shared with every Call that packs the same arrays alike."""
    factors = constant.term.factors
    names = list(dict.fromkeys(s for v, _ in factors for s in values.sources(v)))
    computed = any(v not in names for v, _ in factors)
    # Names differ from layer to layer; what is computed within a Body is its own.
    terms = [(names.index(v) if v in names else v, p) for v, p in factors]
    own = (values.body.signature, names) if computed else ()
    packing = f"cudnn {terms} {own} {constant.kind.value} {constant.shape} {constant.order}"
    sources = [values.given[n] for n in names]
    return device.constant(sources, packing, lambda: values.packed(constant))


CUDNN = CudnnSource()
