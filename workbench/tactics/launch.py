"""One launch of a prepared Call on given arrays: what checks, timings and tests share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.body import Array, Body, BodyInput, Node, TensorType
from workbench.devices import Buffer, Device
from workbench.errors import ExecutionError
from workbench.formats import Format
from workbench.operators import operator_named
from workbench.tactics.protocol import Call, Launch, Problem, Tactic


@dataclass(frozen=True, eq=False)
class BoundCall:
    """A Call bound to buffers of its own: launch it as often as you like.

    inputs and outputs are the buffers of the Body's dynamic inputs and outputs, in order.
    """

    launch: Launch
    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]
    workspace: Buffer | None
    tactic: Tactic
    problem: Problem

    def write(self, inputs: Mapping[str, Array], stream: Any = None) -> None:
        """Pack linear arrays, by input name, into the input buffers."""
        _write(self.tactic, self.problem, self.inputs, inputs, stream)

    def read(self, stream: Any = None) -> dict[str, Array]:
        """The outputs by name, as linear arrays."""
        device, body = self.problem.device, self.problem.body
        found: dict[str, Array] = {}
        for name, t, layout, b in zip(
            body.outputs, body.output_types, self.tactic.outputs, self.outputs, strict=True
        ):
            stored = device.download(b, t.dtype, layout.physical_shape(t.shape), stream)
            found[name] = layout.unpack(stored, t.shape)
        return found


def stored_bytes(type_: TensorType, layout: Format) -> int:
    """Bytes of a tensor in this layout, padding included."""
    return int(layout.volume(type_.shape)) * type_.dtype.itemsize


def bind(
    call: Call,
    tactic: Tactic,
    problem: Problem,
    stream: Any = None,
    inputs: tuple[Buffer, ...] | None = None,
    outputs: tuple[Buffer, ...] | None = None,
) -> BoundCall:
    """Bind one Call to buffers of its own, or to ``inputs`` that hold its operands already.

    outputs: where it writes; buffers of its own where they are not given.
    """
    body, device = problem.body, problem.device
    if inputs is None:
        inputs = _allocate(device, [i.type for i in body.dynamic_inputs], tactic.inputs)
    if outputs is None:
        outputs = _allocate(device, body.output_types, tactic.outputs)
    workspace = device.allocate(call.workspace_bytes) if call.workspace_bytes else None
    launch = call.bind(inputs, outputs, workspace, stream)
    return BoundCall(launch, inputs, outputs, workspace, tactic, problem)


def _write(
    tactic: Tactic,
    problem: Problem,
    buffers: Sequence[Buffer],
    inputs: Mapping[str, Array],
    stream: Any,
) -> None:
    operands = problem.body.dynamic_inputs
    for i, layout, b in zip(operands, tactic.inputs, buffers, strict=True):
        array = inputs[i.name]
        if array.shape != tuple(i.type.shape) or array.dtype != i.type.dtype.numpy:
            raise ExecutionError(
                f"needs {i.type}, given {array.dtype}{list(array.shape)}",
                place=f"input '{i.name}'",
                remedy="bind the Body to the arrays' shapes and cast them first",
            )
        problem.device.upload(layout.pack(array), b, stream)


def _allocate(
    device: Device, types: Sequence[TensorType], layouts: Sequence[Format]
) -> tuple[Buffer, ...]:
    return tuple(
        device.allocate(stored_bytes(t, layout)) for t, layout in zip(types, layouts, strict=True)
    )


def upload(
    tactic: Tactic, problem: Problem, inputs: Mapping[str, Array], stream: Any = None
) -> tuple[Buffer, ...]:
    """Linear arrays, by input name, in new buffers in the tactic's layouts."""
    types = [i.type for i in problem.body.dynamic_inputs]
    made = _allocate(problem.device, types, tactic.inputs)
    _write(tactic, problem, made, inputs, stream)
    return made


def run_once(
    call: Call,
    tactic: Tactic,
    problem: Problem,
    inputs: Mapping[str, Array] | tuple[Buffer, ...],
) -> dict[str, Array]:
    """Run a Call on linear arrays (dynamic inputs by name); gives linear outputs by name.

    inputs may also be buffers that hold them already. Output buffers hold NaN bit patterns (0xFF
    bytes) before the launch, so that an element which the kernel leaves unwritten is seen.
    """
    stream = problem.device.stream()
    if not isinstance(inputs, tuple):
        inputs = upload(tactic, problem, inputs, stream)
    bound = bind(call, tactic, problem, stream, inputs)
    for b in bound.outputs:
        problem.device.upload(np.full(b.nbytes, 0xFF, np.uint8), b, stream)
    bound.launch()
    problem.device.synchronize(stream)
    return bound.read(stream)


def reformat_body(type_: TensorType) -> Body:
    """The Body ``Identity`` that a reformat tactic runs."""
    node = Node(operator_named("Identity"), ("input",), ("output",))
    return Body((BodyInput("input", type_),), (node,), ("output",))
