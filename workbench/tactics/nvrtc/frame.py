"""What every kernel text has: its parameters, its launch shape, reading and writing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from workbench.body import Body
from workbench.formats import LINEAR, Format
from workbench.tactics.nvrtc.expressions import C_TYPES, PRELUDE, index_of

THREADS = 128


@dataclass(frozen=True)
class KernelText:
    """CUDA C++ of one kernel ``run`` and its launch shape.

    Arguments: dynamic inputs, outputs, then constant inputs, in the Body's order.
    """

    code: str
    grid: int
    block: int


def elementwise(body: Body, count: int, lines: Sequence[str]) -> KernelText:
    """One thread an element (or tile): ``i`` is its index."""
    parameters: list[str] = []
    for i in body.dynamic_inputs:
        parameters.append(f"const {C_TYPES[i.type.dtype]}* __restrict__ {argument(body, i.name)}")
    for name in body.outputs:
        kind = C_TYPES[body.types[name].dtype]
        parameters.append(f"{kind}* __restrict__ {argument(body, name)}")
    for i in body.inputs:
        if i.constant:
            kind = C_TYPES[i.type.dtype]
            parameters.append(f"const {kind}* __restrict__ {argument(body, i.name)}")
    inner = "\n    ".join(lines)
    code = (
        f'{PRELUDE}\nextern "C" __global__ void run({", ".join(parameters)}) {{\n'
        f"    const i64 i = (i64)blockIdx.x * {THREADS} + threadIdx.x;\n"
        f"    if (i >= {count}) return;\n    {inner}\n}}\n"
    )
    return KernelText(code, max(1, -(-count // THREADS)), THREADS)


def argument(body: Body, name: str) -> str:
    """A value's C name: its position, since model names are not C identifiers."""
    for k, i in enumerate(body.inputs):
        if i.name == name:
            return f"in{k}"
    return f"out{body.outputs.index(name)}"


def load_of(body: Body, name: str, index: str) -> str:
    """C that reads one stored element as a float."""
    return f"load_{body.types[name].dtype.name}({argument(body, name)}, {index})"


def loader(body: Body, layout: Format, names: Sequence[str]) -> Callable[[str], str]:
    """C that reads an input at the output coordinates ``names``, broadcast where it is smaller."""

    def load(name: str) -> str:
        type_ = body.types[name]
        full = len(type_.shape) == len(names) and type_.shape[1:2] != (1,)
        constant = next(i.constant for i in body.inputs if i.name == name)
        own = layout if full and not constant else LINEAR
        return load_of(body, name, index_of(type_, own, names))

    return load


def store_of(body: Body, layout: Format, names: Sequence[str], value: str) -> str:
    """C that writes the output at the coordinates ``names``."""
    name = body.outputs[0]
    type_ = body.types[name]
    at = index_of(type_, layout, names)
    return f"store_{type_.dtype.name}({argument(body, name)}, {at}, {value});"
