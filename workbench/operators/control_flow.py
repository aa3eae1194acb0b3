"""Control flow: If, Loop, Scan, SequenceMap.

The nested graphs are Bodies. What they read from outside comes as further operands of the layer:
after an operator's own inputs follow those of each Body in turn (``captured``). The host runs
them, node by node.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, cast

import numpy as np

from workbench import dimensions
from workbench.body import (
    REQUIRED,
    Attributes,
    Body,
    HostType,
    Inference,
    InferRule,
    Operator,
    Reference,
    SequenceType,
    TensorType,
    Value,
    general,
    interpret,
)
from workbench.errors import ExecutionError, InferenceError
from workbench.operators.rules import no_error

STEP_LIMIT = 20_000
"""Iterations after which a Loop is taken to be endless, unless its ``step_limit`` says more."""
BYTE_LIMIT = 1 << 29
"""Bytes that a Loop may carry and stack up, unless its ``byte_limit`` says more."""


# -- types --------------------------------------------------------------------------------
def visible(inference: Inference, type_: TensorType, output: int, shift: int = 0) -> TensorType:
    """A nested graph's type as seen outside: sizes that only exist inside are for later.

    shift: axes that come before it in the layer's output.
    """
    if isinstance(type_, SequenceType):
        return SequenceType(visible(inference, type_.element, output))
    if isinstance(type_, HostType):
        return type_
    outside = {
        s
        for t in inference.inputs
        if t is not None and not isinstance(t, HostType)
        for d in t.shape
        for s in dimensions.symbols_of(d)
    }
    shape = tuple(
        d if dimensions.symbols_of(d) <= outside else inference.later(k + shift, output)
        for k, d in enumerate(type_.shape)
    )
    return TensorType(type_.dtype, shape)


def _if_types(inference: Inference) -> tuple[TensorType, ...]:
    branches = [inference.attributes[b].output_types for b in ("then_branch", "else_branch")]
    if len(branches[0]) != len(branches[1]):
        counts = " and ".join(str(len(b)) for b in branches)
        raise InferenceError(f"its branches give {counts} outputs", remedy="give both as many")
    return tuple(
        general(
            visible(inference, a, k),
            visible(inference, b, k),
            lambda axis, k=k: inference.later(axis, k),
        )
        for k, (a, b) in enumerate(zip(*branches, strict=True))
    )


def _loop_types(inference: Inference) -> tuple[TensorType, ...]:
    body, carried = inference.attributes["body"], inference.attributes["carried"]
    made = body.output_types[1:]
    types = [
        general(
            visible(inference, t, k),
            visible(inference, inference.input(2 + k), k),
            lambda axis, k=k: inference.later(axis, k),
        )
        for k, t in enumerate(made[:carried])
    ]
    for k, t in enumerate(made[carried:], carried):
        types.append(_stacked(inference, t, k, inference.later(0, k)))
    return tuple(types)


def _stacked(inference: Inference, type_: TensorType, output: int, count: Any) -> TensorType:
    """The type of values of one type put one after another along a new first axis."""
    inner = visible(inference, type_, output, shift=1)
    if isinstance(inner, HostType):
        return inner
    return TensorType(inner.dtype, (count, *inner.shape))


def _scan_types(inference: Inference) -> tuple[TensorType, ...]:
    if not inference.attributes["batched"]:
        return _step_types(inference)
    batch = inference.input(0).shape[0]
    count = inference.attributes["states"] + inference.attributes["num_scan_inputs"]
    one = tuple(
        t if t is None or k >= count else TensorType(t.dtype, t.shape[1:])
        for k, t in enumerate(inference.inputs)
    )
    made = _step_types(replace(inference, inputs=one))
    return tuple(TensorType(t.dtype, (batch, *t.shape)) for t in made)


def _step_types(inference: Inference) -> tuple[TensorType, ...]:
    body, scanned = inference.attributes["body"], inference.attributes["num_scan_inputs"]
    states = inference.attributes["states"]
    made = body.output_types
    types = [
        general(
            visible(inference, t, k),
            visible(inference, inference.input(k), k),
            lambda axis, k=k: inference.later(axis, k),
        )
        for k, t in enumerate(made[:states])
    ]
    lengths: list[Any] = []
    for i in range(scanned):
        t = inference.input(states + i)
        if not isinstance(t, HostType):
            axis = _entry(inference.attributes["scan_input_axes"], i)
            lengths.append(t.shape[axis])
    for k, t in enumerate(made[states:]):
        output = states + k
        count = lengths[0] if lengths else inference.later(0, output)
        stacked = _stacked(inference, t, output, count)
        axis = _entry(inference.attributes["scan_output_axes"], k)
        if axis and not isinstance(stacked, HostType):
            shape = list(stacked.shape[1:])
            shape.insert(axis % len(stacked.shape), count)
            stacked = TensorType(stacked.dtype, tuple(shape))
        types.append(stacked)
    return tuple(types)


def _entry(values: Sequence[int] | None, index: int) -> int:
    return 0 if not values else values[index]


def _map_types(inference: Inference) -> tuple[TensorType, ...]:
    body: Body = inference.attributes["body"]
    return tuple(SequenceType(visible(inference, t, k)) for k, t in enumerate(body.output_types))


# -- references ---------------------------------------------------------------------------
def _run(body: Body, given: Sequence[Value]) -> list[Value]:
    """A Body on values by position; its outputs in order."""
    values = {i.name: v for i, v in zip(body.inputs, given, strict=True)}
    made = interpret(body, values)
    return [made[o] for o in body.outputs]


def _if(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Value, ...]:
    then, other = attributes["then_branch"], attributes["else_branch"]
    captured = list(inputs[1:])
    if bool(np.asarray(inputs[0]).reshape(())):
        return tuple(_run(then, captured[: len(then.inputs)]))
    return tuple(_run(other, captured[len(then.inputs) :]))


@dataclass
class _Run:
    """The iterations of the outermost Loop that is running, and of those inside it.

    end: their count at which the first of the Loops that are running now has reached its ``limit``.
    """

    steps: int = 0
    end: float = math.inf
    limit: int = 0


_RUN: ContextVar[_Run] = ContextVar("loop")


def _loop(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Value, ...]:
    around = _RUN.get(None)
    run = _Run() if around is None else around
    token = _RUN.set(run)
    end, limit = run.end, run.limit
    own = attributes["step_limit"]
    if run.steps + own < end:
        run.end, run.limit = run.steps + own, own
    try:
        return _looped(attributes, inputs, run)
    finally:
        run.end, run.limit = end, limit
        _RUN.reset(token)


def _nbytes(value: Value) -> int:
    if isinstance(value, list):
        return sum(map(_nbytes, cast("list[Value]", value)))
    return getattr(value, "nbytes", 0)


def _looped(attributes: Attributes, inputs: Sequence[Any], run: _Run) -> tuple[Value, ...]:
    body, carried = attributes["body"], attributes["carried"]
    trips, condition = inputs[0], inputs[1]
    most = None if trips is None else int(np.asarray(trips).reshape(()))
    going = True if condition is None else bool(np.asarray(condition).reshape(()))
    state, captured = list(inputs[2 : 2 + carried]), list(inputs[2 + carried :])
    scans: list[list[Value]] = [[] for _ in body.outputs[1 + carried :]]
    step = kept_bytes = 0
    while going and (most is None or step < most):
        if run.steps >= run.end:
            raise ExecutionError(
                f"it goes on after {run.limit:,} iterations, those of the loops around and inside "
                "it included",
                remedy="mend its condition, or allow more with max_loop_steps",
            )
        run.steps += 1
        given = [np.array(step, np.int64), np.array(going), *state, *captured]
        kept, *made = _run(body, given)
        going = bool(np.asarray(kept).reshape(()))
        state = made[:carried]
        for scan, value in zip(scans, made[carried:], strict=True):
            scan.append(value)
        step += 1
        kept_bytes += sum(map(_nbytes, made[carried:]))
        if kept_bytes + sum(map(_nbytes, state)) > attributes["byte_limit"]:
            raise ExecutionError(
                f"after {step:,} iterations it keeps more than {attributes['byte_limit']:,} bytes",
                remedy="let it keep less of each, or parse it with a larger max_tensor_bytes",
            )
    empties = body.output_types[1 + carried :]
    return (*state, *(_stack(s, t) for s, t in zip(scans, empties, strict=True)))


def _stack(values: Sequence[Any], type_: TensorType, axis: int = 0) -> Any:
    """Values along a new axis. Raises ExecutionError where their shapes differ."""
    if not values:
        shape = () if isinstance(type_, HostType) else type_.shape
        sizes = tuple(d if isinstance(d, int) else 0 for d in shape)
        return np.zeros((0, *sizes), type_.dtype.numpy)
    shapes = {np.shape(v) for v in values}
    if len(shapes) > 1:
        raise ExecutionError(
            f"a scan output changes its shape: {sorted(shapes)}",
            remedy="give it one shape in every iteration",
        )
    return np.stack(values, axis)


def _scan(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Value, ...]:
    if not attributes["batched"]:
        return _steps(attributes, inputs)
    count = attributes["states"] + attributes["num_scan_inputs"]
    each = [
        _steps(attributes, [*(x[b] for x in inputs[:count]), *inputs[count:]])
        for b in range(len(inputs[0]))
    ]
    return tuple(np.stack(values) for values in zip(*each, strict=True))


def _steps(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Value, ...]:
    body, scanned = attributes["body"], attributes["num_scan_inputs"]
    states = attributes["states"]
    state = list(inputs[:states])
    data = [np.asarray(x) for x in inputs[states : states + scanned]]
    captured = list(inputs[states + scanned :])
    for i, x in enumerate(data):
        x = np.moveaxis(x, _entry(attributes["scan_input_axes"], i), 0)
        data[i] = x[::-1] if _entry(attributes["scan_input_directions"], i) else x
    lengths = {len(x) for x in data}
    if len(lengths) != 1:
        raise ExecutionError(
            f"its scan inputs have {sorted(lengths)} steps", remedy="give one length"
        )
    outputs: list[list[Value]] = [[] for _ in body.outputs[states:]]
    for step in range(lengths.pop()):
        made = _run(body, [*state, *(x[step] for x in data), *captured])
        state = made[:states]
        for output, value in zip(outputs, made[states:], strict=True):
            output.append(value)
    stacked: list[Value] = []
    for k, (values, type_) in enumerate(zip(outputs, body.output_types[states:], strict=True)):
        if _entry(attributes["scan_output_directions"], k):
            values = values[::-1]
        stacked.append(_stack(values, type_, _entry(attributes["scan_output_axes"], k)))
    return (*state, *stacked)


def _sequence_map(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Value, ...]:
    body: Body = attributes["body"]
    mapped = attributes["mapped"]
    given, captured = list(inputs[:mapped]), list(inputs[mapped:])
    lengths = {len(x) for x in given if isinstance(x, list)}
    if len(lengths) != 1:
        raise ExecutionError(
            f"its sequences have {sorted(lengths)} entries",
            remedy="give sequences of one length",
        )
    results: list[list[Value]] = [[] for _ in body.outputs]
    for k in range(lengths.pop()):
        made = _run(body, [*(x[k] if isinstance(x, list) else x for x in given), *captured])
        for result, value in zip(results, made, strict=True):
            result.append(value)
    return tuple(results)


# -- rows ---------------------------------------------------------------------------------
def _row(
    name: str,
    infer: InferRule,
    reference: Reference | Callable[..., tuple[Value, ...]],
    layer_type: str,
    attributes: Mapping[str, Any],
) -> Operator:
    return Operator(
        name=name,
        infer=infer,
        reference=reference,
        bound=no_error,
        layer_type=layer_type,
        family="control flow",
        attributes=MappingProxyType(dict(attributes)),
        host=True,
        stored=True,
    )


CONTROL_FLOW: tuple[Operator, ...] = (
    _row("If", _if_types, _if, "CONDITION", {"then_branch": REQUIRED, "else_branch": REQUIRED}),
    _row(
        "Loop",
        _loop_types,
        _loop,
        "LOOP_OUTPUT",
        # carried: loop-carried values; step_limit: see STEP_LIMIT; byte_limit: see BYTE_LIMIT.
        {
            "body": REQUIRED,
            "carried": REQUIRED,
            "step_limit": STEP_LIMIT,
            "byte_limit": BYTE_LIMIT,
        },
    ),
    _row(
        "Scan",
        _scan_types,
        _scan,
        "LOOP_OUTPUT",
        {
            "body": REQUIRED,
            "num_scan_inputs": REQUIRED,
            "states": REQUIRED,
            "batched": 0,
            "scan_input_axes": None,
            "scan_input_directions": None,
            "scan_output_axes": None,
            "scan_output_directions": None,
        },
    ),
    # mapped: inputs of the operator's own, before what its Body reads from outside.
    _row(
        "SequenceMap",
        _map_types,
        _sequence_map,
        "LOOP_OUTPUT",
        {"body": REQUIRED, "mapped": REQUIRED},
    ),
)
"""Cost: that of the outputs; how often a Body runs is only known at run time."""
