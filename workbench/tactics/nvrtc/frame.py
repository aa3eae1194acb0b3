"""What every kernel text has: its parameters, its launch shape, and vectors of elements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from workbench.body import Body, TensorType
from workbench.datatypes import DataType
from workbench.formats import Format
from workbench.records import Refusal
from workbench.tactics.nvrtc.elements import Elements, Index
from workbench.tactics.nvrtc.scalars import PRELUDE, STORAGE, loaded, stored
from workbench.tactics.nvrtc.small_types import prelude

LANE_BYTES = 16
"""Bytes that a thread loads or stores at once."""


@dataclass(frozen=True)
class KernelText:
    """CUDA C++ of a kernel ``run`` and its launch shape.

    Arguments: dynamic inputs, outputs, then constant inputs, in the Body's order, the workspace
    where there is one, and whether the next kernel may start (``gpu_launch``). aligned: bytes to
    which every address must be aligned. since: the least compute capability, times ten. later: grid
    and block of ``run1``, ``run2``... which are launched one after the other. workspace: bytes.
    packing: of constants that are not read as they are, by their position among the Body's inputs;
    see ``weight_only``.
    """

    code: str
    grid: int
    block: int
    aligned: int = 1
    since: int = 0
    later: tuple[tuple[int, int], ...] = ()
    workspace: int = 0
    packing: tuple[tuple[int, str], ...] = ()

    def with_packing(self, packing: Sequence[tuple[int, str]], *, aligned: int) -> KernelText:
        """The same kernel, which reads constants packed and its operands ``aligned``."""
        return replace(self, packing=tuple(packing), aligned=aligned)

    @property
    def launches(self) -> tuple[tuple[str, int, int], ...]:
        """Name, grid and block of every kernel, in order."""
        later = ((f"run{k}", *shape) for k, shape in enumerate(self.later, 1))
        return (("run", self.grid, self.block), *later)


@dataclass(frozen=True)
class Stage:
    """One kernel of several. lines: its statements."""

    lines: Sequence[str]
    blocks: int
    threads: int


def kernel_text(
    body: Body,
    lines: Sequence[str],
    tables: Sequence[str],
    *,
    blocks: int,
    threads: int,
    vector: int = 1,
    helpers: str = "",
) -> KernelText:
    """A whole kernel. ``idx`` is the type of positions: 32 bits where every tensor has fewer."""
    stage = Stage(lines, blocks, threads)
    return program_text(body, (stage,), tables, vector=vector, helpers=helpers)


def program_text(
    body: Body,
    stages: Sequence[Stage],
    tables: Sequence[str],
    *,
    vector: int = 1,
    helpers: str = "",
    workspace: int = 0,
) -> KernelText:
    """Kernels that run one after the other and share ``workspace`` bytes."""
    parameters = [_parameter(body, i.name, const=True) for i in body.dynamic_inputs]
    parameters += [_parameter(body, o, const=False, k=k) for k, o in enumerate(body.outputs)]
    parameters += [_parameter(body, i.name, const=True) for i in body.inputs if i.constant]
    if workspace:
        parameters.append("void* workspace")
    parameters.append("u64 lets_next_start")
    conversions, since = prelude(t.dtype for t in body.types.values())
    largest = max((prod(t.shape) for t in body.types.values()), default=1)
    index = "int" if largest < 2**30 else "long long"
    text = f"{PRELUDE}{conversions}typedef {index} idx;\n{helpers}"
    text += "".join(f"{t}\n" for t in tables)
    for k, stage in enumerate(stages):
        text += (
            f'extern "C" __global__ void __launch_bounds__({stage.threads}) run{k or ""}('
            + ", ".join(parameters)
            + ") {\n  WAIT_FOR_EARLIER LET_NEXT_START\n"
            + "".join(f"  {line}\n" for line in stage.lines)
            + "}\n"
        )
    widest = max((t.dtype.itemsize for t in _stored(body)), default=1)
    aligned = widest * vector if vector > 1 else 1
    first, *rest = ((max(1, s.blocks), s.threads) for s in stages)
    return KernelText(text, *first, aligned, since, tuple(rest), workspace)


def _stored(body: Body) -> list[TensorType]:
    return [i.type for i in body.inputs] + list(body.output_types)


def _parameter(body: Body, name: str, *, const: bool, k: int = 0) -> str:
    """Not restricted is what an earlier kernel may still write when this one begins.

    Loads of a restricted pointer to constants may be moved ahead of the wait.
    """
    kind = STORAGE[body.types[name].dtype]
    if not const:
        return f"{kind}* __restrict__ out{k}"
    (position,) = (k for k, i in enumerate(body.inputs) if i.name == name)
    restricted = "__restrict__ " if body.inputs[position].constant else ""
    return f"const {kind}* {restricted}in{position}"


def unstorable(body: Body) -> Refusal | None:
    """Why a Body's inputs and outputs are not what kernels here read and write, or None."""
    for t in _stored(body):
        if t.dtype not in STORAGE:
            return Refusal(f"NVRTC kernels do not store {t.dtype.value}", code="type")
    return None


def vector_widths(kinds: Sequence[DataType], length: int) -> tuple[int, ...]:
    """Elements a thread takes at once, widest first: 16 bytes of the narrowest type, half, one."""
    widest = LANE_BYTES // min((k.itemsize for k in kinds), default=LANE_BYTES)
    widths = [w for w in (min(widest, 16), min(widest, 16) // 2) if w > 1 and length % w == 0]
    return (*widths, 1)


def load_vector(e: Elements, name: str, at: str, vector: int, index: Index) -> str:
    """The line that loads a vector of a Body input; its elements are then ready at ``index``.

    ``index`` holds the coordinates of element ``t`` of the vector.
    """
    k = [i.name for i in e.body.inputs].index(name)
    kind = e.body.types[name].dtype
    pack = f"Pack<{STORAGE[kind]}, {vector}>"
    e.ready[name] = lambda asked: loaded(kind, f"x{k}.v[t]") if asked == index else None
    return f"const {pack} x{k} = *reinterpret_cast<const {pack}*>(in{k} + ({at}));"


def declare_vector(body: Body, k: int, vector: int) -> str:
    """The variable that collects a vector of output ``k``."""
    return f"Pack<{STORAGE[body.output_types[k].dtype]}, {vector}> y{k};"


def store_vector(body: Body, k: int, at: str, vector: int) -> str:
    """The line that stores it."""
    pack = f"Pack<{STORAGE[body.output_types[k].dtype]}, {vector}>"
    return f"*reinterpret_cast<{pack}*>(out{k} + ({at})) = y{k};"


def store_element(body: Body, k: int, text: str) -> str:
    """The line that puts an element into the vector of output ``k``."""
    return f"y{k}.v[t] = {stored(body.output_types[k].dtype, text)};"


def logical(index: Index, layout: Format) -> Index:
    """Coordinates of a tensor from those of how a layout stores it."""
    if layout.block:
        return (index[0], f"({index[1]}) * {layout.block} + {index[-1]}", *index[2:-1])
    return (index[0], index[-1], *index[1:-1]) if layout.channels_last else index
