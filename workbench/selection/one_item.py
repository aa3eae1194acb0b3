"""The last item of a batch: what of a large layer is compared with the reference.

All of it runs, as it will run later; a float64 reference of all of it would take seconds.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from workbench.body import CONSTANT, Array, Body, Node
from workbench.devices import Buffer
from workbench.tactics.launch import bind, stored_bytes
from workbench.tactics.protocol import Call, Problem, Tactic

_ITEMWISE = frozenset(
    {"Conv", "ConvTranspose", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"}
)
_ALONG_AN_AXIS = frozenset(
    {"Softmax", "LogSoftmax", "LayerNormalization", "RMSNormalization", "Split", "Concat"}
)


def is_itemwise(body: Body) -> bool:
    """Whether each item along the first axis is computed from the same item of every input.

    False also where it is not known to be so.
    """
    if not body.dynamic_inputs or not body.dynamic_inputs[0].type.shape:
        return False
    batch = body.dynamic_inputs[0].type.shape[0]
    known = {i.name for i in body.inputs if i.constant}
    types = body.types
    moving = [i.name for i in body.dynamic_inputs]
    for n in body.nodes:
        if n.operator is CONSTANT or all(v in known for v in n.inputs if v):
            known.update(n.outputs)
        elif _keeps_items(n, body, known):
            moving += [o for o in n.outputs if o]
        else:
            return False
    return all(types[v].shape[:1] == (batch,) for v in moving)


def _keeps_items(node: Node, body: Body, known: set[str]) -> bool:
    types, attributes = body.types, node.attributes
    read = [v for v in node.inputs if v and v not in known]
    first, out = types[node.inputs[0]].shape, types[node.outputs[0]].shape
    if node.op in _ITEMWISE:
        return read == [node.inputs[0]]
    if node.operator.pointwise:
        return all(len(types[v].shape) == len(out) for v in read)
    if node.op in _ALONG_AN_AXIS:
        return attributes["axis"] % len(first) != 0
    match node.op:
        case "QuantizeLinear" | "DequantizeLinear":
            whole = np.prod(types[node.inputs[1]].shape, dtype=int) == 1
            return read == [node.inputs[0]] and (whole or attributes["axis"] % len(first) != 0)
        case "MatMul":
            second = types[node.inputs[1]].shape
            stacked = len(first) == len(second) == len(out) and len(out) > 2
            return stacked or (read == [node.inputs[0]] and len(first) == len(out) > 1)
        case "Gemm":
            # A C that is computed has the product's own rows, or its one column.
            wide = all(len(types[v].shape) == 2 for v in read)
            return not attributes["transA"] and node.inputs[1] in known and wide
        case "Transpose":
            return (attributes["perm"] or (1,))[0] == 0
        case "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze":
            return read == [node.inputs[0]] and first[:1] == out[:1]
        case _:
            return False


def operands_with_last(
    tactic: Tactic, problem: Problem, drawn: Mapping[str, Array]
) -> tuple[Buffer, ...]:
    """Operands of a whole batch on the device, the last item in the tactic's layouts.

    The other items' elements lie in the order they were drawn in: nobody compares what they give.
    """
    made: list[Buffer] = []
    for i, layout in zip(problem.body.dynamic_inputs, tactic.inputs, strict=True):
        array = drawn[i.name]
        buffer = problem.device.allocate(stored_bytes(i.type, layout))
        own = layout.pack(array[-1:])
        if array.nbytes == buffer.nbytes == len(array) * own.nbytes:
            problem.device.upload(array, buffer)
            last = buffer.slice(buffer.nbytes - own.nbytes, own.nbytes)
            problem.device.upload(own, last)
        else:  # padded, or several elements a byte
            problem.device.upload(layout.pack(array), buffer)
        made.append(buffer)
    return tuple(made)


def run_last(
    call: Call, tactic: Tactic, problem: Problem, inputs: tuple[Buffer, ...]
) -> dict[str, Array]:
    """Run a Call on these operands; gives the last item of each output, linear, by name.

    What is given holds NaN bit patterns (0xFF bytes) before the launch, so that an element which
    the kernel leaves unwritten is seen.
    """
    device, body = problem.device, problem.body
    stream = device.stream()
    bound = bind(call, tactic, problem, stream, inputs)
    lasts: list[Buffer] = []
    for buffer, t in zip(bound.outputs, body.output_types, strict=True):
        size = buffer.nbytes // t.shape[0]
        lasts.append(buffer.slice(buffer.nbytes - size, size))
        device.upload(np.full(size, 0xFF, np.uint8), lasts[-1], stream)
    bound.launch()
    device.synchronize(stream)
    found: dict[str, Array] = {}
    outputs = zip(body.outputs, body.output_types, tactic.outputs, lasts, strict=True)
    for name, t, layout, last in outputs:
        shape = (1, *t.shape[1:])
        stored = device.download(last, t.dtype, layout.physical_shape(shape), stream)
        found[name] = layout.unpack(stored, shape)
    return found
