"""Graph records handed to cuDNN's frontend: its plans, compiled plans, and their launches.

A compiled plan travels as bytes: eight of its workspace size, then what the frontend serializes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from workbench.datatypes import DataType
from workbench.tactics.cudnn.graph import Graph, Number, Operation
from workbench.tactics.cudnn.library import load

KINDS = {
    DataType.FLOAT: "FLOAT",
    DataType.HALF: "HALF",
    DataType.BF16: "BFLOAT16",
    DataType.INT8: "INT8",
    DataType.INT32: "INT32",
    DataType.FP8: "FP8_E4M3",
    DataType.FP8E5M2: "FP8_E5M2",
}
"""cudnn.data_type of the element types that graphs store or compute in."""

LARGEST_ENGINE = 10_000
"""Engines from this number on are the frontend's own Python kernels, which need further packages
and are no part of a serialized cuDNN plan. Source: cudnn/engines/engine_ids.py of the frontend."""

UNWANTED_NOTES = ("NONDETERMINISTIC", "REDUCED_PRECISION_REDUCTION")
"""numerical_note of engines that are never used: results must repeat, and sum in float32."""
ROUNDING_NOTES = ("DOWN_CONVERT_INPUTS", "TENSOR_CORE")
"""numerical_note of engines that round float32 factors to TF32."""
UNKNOWN_KNOB = "NOT_SET"
"""How the frontend names a knob of a newer library: such a plan is found among the proposals."""
MESSAGE_LENGTH = 300

_NORMS = ("layernorm", "rmsnorm")


class PlanRefused(Exception):
    """cuDNN has no plan, or does not build or load one; the text is its own."""


@dataclass(frozen=True)
class PlanChoice:
    """A plan by what reproduces it: cuDNN's engine and its knobs.

    tf32: whether an engine may be taken that rounds float32 factors to TF32.
    """

    engine: int
    knobs: tuple[tuple[str, int], ...] = ()
    tf32: bool = False

    @property
    def title(self) -> str:
        """``engine 3 tile_m 128 stages 4``."""
        words = [f"engine {self.engine}", *(f"{k.lower()} {v}" for k, v in self.knobs)]
        return " ".join(["TF32", *words] if self.tf32 else words)


@dataclass(frozen=True, eq=False)
class LoadedPlan:
    """A compiled plan, ready to launch."""

    graph: Any
    workspace_bytes: int

    def execute(self, addresses: Mapping[int, int], workspace: int, handle: Any) -> None:
        """Enqueue it on the handle's stream."""
        self.graph.execute(addresses, workspace, handle=handle)


def proposals(graph: Graph, handle: Any) -> tuple[PlanChoice, ...]:
    """The plans that cuDNN's heuristics propose, its best guess first. Raises PlanRefused."""
    cudnn = load()
    try:
        choices = _proposed(cudnn, _drawn(graph, handle))
    except (cudnn.cudnnGraphNotSupportedError, RuntimeError, ValueError) as e:
        raise PlanRefused(_message(e)) from None
    return tuple(dict.fromkeys(c for c in choices if 0 <= c.engine < LARGEST_ENGINE))


def _proposed(cudnn: Any, drawn: Any) -> list[PlanChoice]:
    """The heuristics' plans, in the order in which the drawn graph then holds them."""
    drawn.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
    count = int(drawn.get_execution_plan_count())
    found = [drawn.get_engine_and_knobs_at_index(k) for k in range(count)]
    return [
        PlanChoice(int(engine), tuple(sorted((k.name, int(v)) for k, v in knobs.items())))
        for engine, knobs in found
    ]


def _chosen(cudnn: Any, drawn: Any, choice: PlanChoice) -> int:
    """The plan's position among those of the drawn graph, which it is added to."""
    if UNKNOWN_KNOB not in dict(choice.knobs):
        knobs = {getattr(cudnn.knob_type, k): v for k, v in choice.knobs}
        drawn.create_execution_plan(choice.engine, knobs)
        return int(drawn.get_execution_plan_count()) - 1
    proposed_now = _proposed(cudnn, drawn)
    plain = replace(choice, tf32=False)
    if plain not in proposed_now:
        raise PlanRefused("at these sizes the heuristics do not propose it")
    return proposed_now.index(plain)


def compiled(graph: Graph, choice: PlanChoice, handle: Any) -> bytes:
    """The plan's bytes. Raises PlanRefused."""
    cudnn = load()
    exact = graph.io is DataType.FLOAT and not choice.tf32
    notes = [*UNWANTED_NOTES, *(ROUNDING_NOTES if exact else ())]
    try:
        drawn = _drawn(graph, handle)
        index = _chosen(cudnn, drawn, choice)
        drawn.deselect_numeric_notes([getattr(cudnn.numerical_note, n) for n in notes])
        drawn.build_plan_at_index(index)
        workspace = max(int(drawn.get_workspace_size_plan_at_index(index)), 0)
        data = bytes(drawn.serialize())
    except (cudnn.cudnnGraphNotSupportedError, RuntimeError, ValueError) as e:
        raise PlanRefused(_message(e)) from None
    return workspace.to_bytes(8, "little") + data


def loaded(code: bytes, handle: Any) -> LoadedPlan:
    """A plan from its bytes. Raises PlanRefused where they are not for this device and library."""
    cudnn = load()
    try:
        graph = cudnn.pygraph(handle=handle)
        graph.deserialize(handle, list(code[8:]))
    except (cudnn.cudnnGraphNotSupportedError, RuntimeError, ValueError) as e:
        raise PlanRefused(_message(e)) from None
    return LoadedPlan(graph, int.from_bytes(code[:8], "little"))


def _message(error: Exception) -> str:
    """cuDNN's own words on one line, cut."""
    text = " ".join(str(error).split())
    return text if len(text) <= MESSAGE_LENGTH else f"{text[:MESSAGE_LENGTH]}..."


def _drawn(graph: Graph, handle: Any) -> Any:
    """The frontend's graph, validated."""
    cudnn = load()
    kinds = {k: getattr(cudnn.data_type, v) for k, v in KINDS.items()}
    made = cudnn.pygraph(
        io_data_type=kinds[graph.io],
        intermediate_data_type=cudnn.data_type.FLOAT,
        compute_data_type=cudnn.data_type.FLOAT,
        handle=handle,
    )
    tensors: dict[str, Any] = {}
    outputs = {o.output for o in graph.operations}
    numbers = dict((t.name, k) for k, t in graph.placed)
    for t in graph.tensors:
        if t.name in outputs:
            continue
        tensors[t.name] = made.tensor(
            name=t.name,
            dim=list(t.dims),
            stride=list(t.strides),
            data_type=kinds[t.kind],
            is_pass_by_value=isinstance(t.place, Number),
        )
        tensors[t.name].set_uid(numbers[t.name])
    for o in graph.operations:
        result = _called(cudnn, made, o, tensors, kinds)
        own = graph.tensor(o.output)
        if own.place is not None or o.kind == "conv_dgrad":
            result.set_dim(list(own.dims)).set_stride(list(own.strides))
        if own.place is not None:
            result.set_output(True).set_uid(numbers[own.name])
        result.set_data_type(kinds[own.kind])
        tensors[own.name] = result
    made.validate()
    made.build_operation_graph()
    return made


def _called(cudnn: Any, made: Any, o: Operation, tensors: Mapping[str, Any], kinds: Any) -> Any:
    """The tensor that an operation makes; the first, where it makes several."""
    options: dict[str, Any] = {k: list(v) if isinstance(v, tuple) else v for k, v in o.options}
    if o.kind in _NORMS:
        options["norm_forward_phase"] = cudnn.norm_forward_phase.INFERENCE
    if o.kind == "sdpa":
        options["generate_stats"] = False
    given = {name: tensors[v] for name, v in o.inputs}
    result = getattr(made, o.kind)(**given, **options, compute_data_type=kinds[o.compute])
    return result[0] if isinstance(result, list | tuple) else result
