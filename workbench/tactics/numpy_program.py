"""A Body lowered to NumPy kernels that write into prepared buffers.

Half types are widened to float32 where they come in and rounded where they go out; what depends on
constants alone is computed once. Values between kernels lie in the workspace.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from workbench.body import CONSTANT, Array, Body, Node, TensorType, computed
from workbench.datatypes import DataType
from workbench.devices import Buffer
from workbench.errors import ExecutionError, NetworkError
from workbench.records import Refusal
from workbench.tactics.arithmetic import is_reduced
from workbench.tactics.blas_threads import blas_threads, on_threads
from workbench.tactics.protocol import Call, Launch, Problem
from workbench.tactics.workspace import Lease, lay_out, over_limit

BindKernel = Callable[[Sequence[Any], Sequence[Array], "Array | None"], Launch]


@dataclass(frozen=True, eq=False)
class Kernel:
    """One NumPy kernel. bind(inputs, outputs, scratch) gives what runs it on these arrays.

    scratch: a uint8 array of ``scratch_bytes``. inplace: an output may be stored over an input of
    the same type. packed: constants that it keeps. name: shown to people.
    """

    name: str
    bind: BindKernel
    scratch_bytes: int = 0
    inplace: bool = False
    packed: Mapping[str, Array] = field(default_factory=dict[str, Array])


@dataclass(frozen=True, eq=False)
class Work:
    """A kernel applied to values, by name. The empty name is an absent input."""

    kernel: Kernel
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Quantized:
    """A value seen through DequantizeLinear: real = scale * (stored - zero_point).

    stored: the integer value's name. scale, zero_point: float64 and int64, of rank 0, or rank 1
    along ``axis``.
    """

    stored: str
    scale: Array
    zero_point: Array
    axis: int


class Lowering:
    """What a kernel maker sees: types, constants, and which values are dequantized integers."""

    def __init__(self, body: Body, constants: Mapping[str, Array]) -> None:
        self.body = body
        self.types: dict[str, TensorType] = dict(body.types)
        self.known: dict[str, Array] = {
            i.name: np.asarray(constants[i.name]) for i in body.inputs if i.constant
        }
        self.producers = {o: n for n in body.nodes for o in n.outputs if o}
        self.work: list[Work] = []
        self._widened: dict[str, str] = {}
        self._dynamic_inputs = {i.name for i in body.dynamic_inputs}

    def value(self, name: str) -> Array | None:
        """A constant's value in its working type, or None."""
        v = self.known.get(name)
        return None if v is None else v.astype(working_type(DataType.of(v)), copy=False)

    def dequantized(self, name: str) -> Quantized | None:
        """The integers behind a DequantizeLinear of 8 bits or less with constant scales."""
        n = self.producers.get(name)
        if n is None or n.op != "DequantizeLinear" or n.attributes.get("block_size"):
            return None
        integers, scale_name, *rest = n.inputs
        stored = self.types[integers]
        scale = self.known.get(scale_name)
        absent = not rest or not rest[0]
        point = None if absent else self.known.get(rest[0])
        if scale is None or (point is None and not absent) or stored.dtype.info.bits > 8:
            return None
        if scale.ndim > 1 or not stored.dtype.is_integer:
            return None
        scales = scale.astype(np.float64)
        if scales.size == 1:
            scales = np.array(scales.item())
        points = np.zeros(scales.shape, np.int64) if point is None else point.astype(np.int64)
        axis = n.attributes.get("axis", 1) % max(1, len(stored.shape))
        return Quantized(integers, scales, points.reshape(scales.shape), axis)

    def operand(self, name: str) -> str:
        """The value to read for ``name``: itself, or a widened copy of a half or 4-bit input."""
        if name not in self._dynamic_inputs:
            return name
        stored = self.types[name]
        dtype = working_type(stored.dtype)
        if dtype == stored.dtype.numpy:
            return name
        if name not in self._widened:
            wide = f"{name}\0wide"
            self.types[wide] = TensorType(DataType.of(dtype), stored.shape)
            self.work.append(Work(COPY, (name,), (wide,)))
            self._widened[name] = wide
        return self._widened[name]


KernelMaker = Callable[[Node, Lowering], "tuple[Kernel, tuple[str, ...]] | None"]
"""Gives the kernel of a node and the values that it reads, or None to use the reference."""


def working_type(dtype: DataType) -> np.dtype[Any]:
    """NumPy dtype in which a value is kept between kernels."""
    if is_reduced(dtype):
        return np.dtype(np.float32)
    return np.dtype(np.int32) if dtype.is_integer and dtype.info.bits < 8 else dtype.numpy


def _bind_copy(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array | None) -> Launch:
    (x,), (y,) = inputs, outputs
    if is_reduced(DataType.of(y)):

        def launch() -> None:
            with np.errstate(over="ignore"):  # beyond a half's range lies infinity
                np.copyto(y, x, casting="unsafe")

        return launch
    return lambda: np.copyto(y, x, casting="unsafe")


COPY = Kernel("copy", _bind_copy)


def reference_kernel(node: Node, bindings: Mapping[str, int] | None = None) -> Kernel:
    """The operator's own reference, its result copied into place."""

    def bind(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array | None) -> Launch:
        def launch() -> None:
            try:
                results = computed(node, node.operator.reference, inputs, checked=True)
            except NetworkError as e:
                raise ExecutionError(e.problem, place=e.place, remedy=e.remedy) from None
            for y, r in zip(outputs, results, strict=False):
                np.copyto(y, r, casting="unsafe")

        return launch

    return Kernel(f"reference {node.op}", bind)


@dataclass(frozen=True, eq=False)
class Program:
    """Work in order, over named values. ``slots`` names the value stored in each output buffer."""

    body: Body
    work: tuple[Work, ...]
    types: Mapping[str, TensorType]
    known: Mapping[str, Array]
    slots: tuple[str, ...]

    @property
    def kernels(self) -> tuple[str, ...]:
        """Names of the kernels, in order."""
        return tuple(w.kernel.name for w in self.work)

    def call(self, problem: Problem) -> Call | Refusal:
        """The Call that runs it, or a refusal if it needs more workspace than allowed."""
        homes, leases = self._leases()
        offsets, total = lay_out(leases)
        hungry = over_limit(total, problem.workspace_limit)
        if hungry is not None:
            return hungry
        sizes = {v.name: v.nbytes for v in leases}
        threads = blas_threads(problem.threads)

        def limited(kernel: Kernel, launch: Launch) -> Launch:
            return on_threads(launch, threads) if kernel.name.startswith("blas") else launch

        def bind(
            inputs: Sequence[Buffer],
            outputs: Sequence[Buffer],
            workspace: Buffer | None,
            stream: Any,
        ) -> Launch:
            # Without a workspace every inner value is empty.
            memory = np.zeros(0, np.uint8) if workspace is None else workspace.memory

            def inner(name: str) -> Array:
                offset = offsets[name]
                return memory[offset : offset + sizes[name]]

            arrays: dict[str, Any] = {"": None, **self.known}
            for i, b in zip(self.body.dynamic_inputs, inputs, strict=True):
                arrays[i.name] = b.view(i.type.dtype, i.type.shape)
            for name, b in zip(self.slots, outputs, strict=True):
                arrays[name] = b.view(self.types[name].dtype, self.types[name].shape)
            for name, home in homes.items():
                t = self.types[name]
                dtype = working_type(t.dtype)
                if home in arrays:
                    arrays[name] = arrays[home]
                    continue
                count = int(np.prod(t.shape, dtype=np.int64)) * dtype.itemsize
                arrays[name] = inner(home)[:count].view(dtype).reshape(t.shape)
            launches = [
                limited(
                    w.kernel,
                    w.kernel.bind(
                        [arrays[v] for v in w.inputs],
                        [arrays[v] for v in w.outputs if v],
                        inner(f"\0scratch{k}") if w.kernel.scratch_bytes else None,
                    ),
                )
                for k, w in enumerate(self.work)
            ]
            if len(launches) == 1:
                return launches[0]

            def launch() -> None:
                for run in launches:
                    run()

            return launch

        packed = {
            f"{k}.{n}": a for k, w in enumerate(self.work) for n, a in w.kernel.packed.items()
        }
        return Call(" + ".join(self.kernels), bind, total, packed=packed)

    def _leases(self) -> tuple[dict[str, str], list[Lease]]:
        """Where each inner value lives (itself, or the value that it overwrites), and how long."""
        last = {v: k for k, w in enumerate(self.work) for v in w.inputs}
        fixed = {"", *self.known, *(i.name for i in self.body.dynamic_inputs), *self.slots}
        homes: dict[str, str] = {}
        spans: dict[str, list[int]] = {}
        for k, w in enumerate(self.work):
            for o in w.outputs:
                if o in fixed or not o:
                    continue
                donor = self._donor(w, o, last, k, homes)
                homes[o] = homes[donor] if donor else o
                span = spans.setdefault(homes[o], [k, k])
                span[1] = max(span[1], last.get(o, k))
        leases = [
            Lease(home, self._nbytes(home), first, end) for home, (first, end) in spans.items()
        ]
        leases += [
            Lease(f"\0scratch{k}", w.kernel.scratch_bytes, k, k)
            for k, w in enumerate(self.work)
            if w.kernel.scratch_bytes
        ]
        return homes, leases

    def _donor(
        self, work: Work, output: str, last: Mapping[str, int], step: int, homes: Mapping[str, str]
    ) -> str | None:
        if not work.kernel.inplace:
            return None
        same = (v for v in work.inputs if v in homes and last[v] == step)
        t = self.types[output]
        return next(
            (
                v
                for v in same
                if self.types[v].shape == t.shape
                and working_type(self.types[v].dtype) == working_type(t.dtype)
            ),
            None,
        )

    def _nbytes(self, name: str) -> int:
        t = self.types[name]
        return int(np.prod(t.shape, dtype=np.int64)) * working_type(t.dtype).itemsize


def lower(problem: Problem, makers: Mapping[str, KernelMaker]) -> Program:
    """Choose a kernel for every node that does not depend on constants alone."""
    body = problem.body
    low = Lowering(body, problem.constants)
    for n in body.nodes:
        if n.operator is CONSTANT:
            low.known[n.outputs[0]] = n.attributes["value"].array({})
        elif n.operator.deterministic and all(v in low.known for v in n.inputs if v):
            _fold(n, low)
        else:
            maker = makers.get(n.op)
            made = maker(n, low) if maker else None
            if made is None:
                reads = tuple(low.operand(v) for v in n.inputs)
                made = reference_kernel(n), reads
            low.work.append(Work(made[0], made[1], n.outputs))
    slots = _store(body, low)
    known = {k: v for k in low.known if (v := low.value(k)) is not None}
    return Program(body, _needed(low.work, slots), low.types, known, slots)


def _fold(node: Node, low: Lowering) -> None:
    args = [low.value(v) if v else None for v in node.inputs]
    results = computed(node, node.operator.reference, args, checked=True)
    for o, r in zip(node.outputs, results, strict=True):
        if o:
            low.known[o] = np.asarray(r).astype(low.types[o].dtype.numpy, copy=False)


def _store(body: Body, low: Lowering) -> tuple[str, ...]:
    """Copies into output buffers, where a kernel cannot write there directly."""
    slots: list[str] = []
    produced = {o for w in low.work for o in w.outputs if o}
    for k, (name, t) in enumerate(zip(body.outputs, body.output_types, strict=True)):
        direct = working_type(t.dtype) == t.dtype.numpy
        if direct and name in produced and name not in slots:
            slots.append(name)
            continue
        slot = f"\0output{k}"
        low.types[slot] = t
        low.work.append(Work(COPY, (name,), (slot,)))
        slots.append(slot)
    return tuple(slots)


def _needed(work: Sequence[Work], outputs: Sequence[str]) -> tuple[Work, ...]:
    """Work that some output depends on."""
    wanted = set(outputs)
    kept: list[Work] = []
    for w in reversed(work):
        if wanted & set(w.outputs):
            wanted |= set(w.inputs)
            kept.append(w)
    return tuple(reversed(kept))
