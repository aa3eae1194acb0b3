"""TacticSource, Tactic, Call: how a layer is run, and who offers to run it.

A source looks at a Problem (a Body with every size bound) and offers Tactics, or a Refusal with
its reason. A Tactic is plain data: it is timed, stored in the plan, and prepared again by the
runtime. ``prepare`` turns it into a Call: compiled, weights packed, ready to be bound to addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

from workbench.body import Array, Body, TensorType
from workbench.datatypes import DataType
from workbench.devices import Buffer, Device
from workbench.formats import LINEAR, Format, format_named
from workbench.gpu_targets import HardwareCompatibilityLevel
from workbench.records import Refusal


@dataclass(frozen=True, eq=False)
class Problem:
    """One layer to run.

    body: with every size a number. constants: values of its constant inputs, by input name.
    workspace_limit: bytes that a Call may ask for. threads: what a CPU kernel may use.
    tf32: whether tactics may be offered that round float32 factors to TF32.
    compatibility: on which other GPUs its kernels must run.
    code: machine code that a plan brings, by key; see ``machine_code``.
    prepacked: constants that a plan brings as this layer's Call of another process packed them.
    """

    body: Body
    constants: Mapping[str, Array]
    device: Device
    threads: int = 1
    workspace_limit: int = 1 << 30
    tf32: bool = False
    compatibility: HardwareCompatibilityLevel = HardwareCompatibilityLevel.NONE
    code: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))
    prepacked: Mapping[str, Array] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class Tactic:
    """One way to run a Body: a recipe, not a compiled thing. JSON in and out.

    parameters: what distinguishes it within its source (implementation, tile sizes).
    inputs, outputs: the layout of each dynamic input and each output.
    precision: type in which its kernel multiplies; emulated when that is not what was asked
    for, or the device has no such arithmetic. FLOAT with the parameter ``TF32``: float32 factors
    are rounded to TF32, which the builder's flag allows.
    version: of the source's code and library: a timing belongs to it.
    """

    source: str
    name: str
    inputs: tuple[Format, ...]
    outputs: tuple[Format, ...]
    precision: DataType
    parameters: tuple[tuple[str, Any], ...] = ()
    version: str = ""
    emulated: bool = False
    deterministic: bool = True

    def parameter(self, name: str) -> Any:
        """The value of a parameter. KeyError if it has none of that name."""
        return dict(self.parameters)[name]

    @property
    def arithmetic(self) -> str:
        """What it multiplies in, for tables: TF32, or its precision's label."""
        return "TF32" if self.tf32 else self.precision.info.label

    @property
    def tf32(self) -> bool:
        """Whether it rounds float32 factors to TF32."""
        return TF32 in self.parameters

    @property
    def overwrites(self) -> int | None:
        """The dynamic input whose memory is to be its first output's, or None.

        Only the last layer that reads a tensor may take its memory. Bound to separate memory, the
        Call copies that input first.
        """
        return dict(self.parameters).get(OVERWRITES)

    @property
    def title(self) -> str:
        """Source and name, and layouts where they are not linear."""
        layouts = [f for f in (*self.inputs, *self.outputs) if f != LINEAR]
        suffix = f" [{'>'.join(str(f) for f in dict.fromkeys(layouts))}]" if layouts else ""
        return f"{self.source} {self.name}{suffix}"


TF32 = ("math", "TF32")
"""The parameter of tactics that round float32 factors to TF32."""

OVERWRITES = "overwrites"
"""The parameter of tactics that write their output over an input: the input's position."""

Launch = Callable[[], None]
"""Runs one prepared, bound kernel (CPU), or enqueues it on the stream it was bound to (GPU)."""


@dataclass(frozen=True, eq=False)
class Call:
    """A prepared tactic.

    bind(inputs, outputs, workspace, stream) gives a Launch over those addresses. inputs are the
    Body's dynamic inputs in order, outputs its outputs, each laid out as the tactic says.
    workspace has at least ``workspace_bytes``; it is None when that is 0.
    kernel: the implementation's own name, shown by the profiler.
    capturable: whether a CUDA graph may record the Launch.
    packed: derived constants that it keeps (bytes are counted as weights).
    code: machine code that it runs, by key: a plan carries it, so that loading compiles nothing.
    prepacked: bytes of constants that took work to pack, by a key that names their layout and the
    kernel's library: a plan carries them to ``Problem.prepacked``, so that loading packs nothing.
    """

    kernel: str
    bind: Callable[[Sequence[Buffer], Sequence[Buffer], Buffer | None, Any], Launch]
    workspace_bytes: int = 0
    capturable: bool = True
    packed: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    code: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))
    prepacked: Mapping[str, Array] = field(default_factory=lambda: MappingProxyType({}))


class TacticSource(Protocol):
    """A family of kernels. Stateless but for caches; importing its module loads no library."""

    name: str
    device_kind: str

    def unavailable(self) -> Refusal | None:
        """Why this source cannot be used on this machine, or None."""
        ...

    @property
    def version(self) -> str:
        """Code and library version; part of every timing's key."""
        ...

    def candidates(self, problem: Problem) -> Sequence[Tactic | Refusal]:
        """Every tactic worth timing for this Body, best guess first, or the reasons for none.

        They are shared by layers of one signature: of the constants' values they may depend on
        those alone that ``deciding`` digests.
        """
        ...

    def prepare(self, tactic: Tactic, problem: Problem) -> Call | Refusal:
        """Compile, pack weights, and give the Call. Only for this source's own tactics."""
        ...

    def reformat(self, type_: TensorType, source: Format, target: Format) -> Tactic | Refusal:
        """A tactic for the Body ``Identity`` that rewrites a tensor from one layout to another."""
        ...


@runtime_checkable
class CompilesAhead(Protocol):
    """A source whose kernels can be compiled in parallel beforehand.

    slow: a kernel takes seconds: all layers' are compiled at once, none for pieces of fused ones.
    For which layers one is worth it is another question: see COMPILED_FOR_LONG_LAYERS.
    """

    name: str
    slow: bool

    def precompile(self, problem: Problem, tactics: Sequence[Tactic]) -> Sequence[Future[bytes]]:
        """Start compiling what ``prepare`` of these tactics needs, where it is not known yet."""
        ...


@runtime_checkable
class Settles(Protocol):
    """A source that holds memory while it prepares."""

    def settle(self) -> None:
        """Give it back: preparing is over for now."""
        ...


def format_to_json(layout: Format) -> Any:
    """A layout's name, or all of an opaque one."""
    if not layout.owner:
        return layout.name
    return [layout.name, layout.channels_last, layout.block, layout.owner, layout.digest]


def format_from_json(data: Any) -> Format:
    """What ``format_to_json`` wrote."""
    return format_named(data) if isinstance(data, str) else Format(*data)


def tactic_to_json(tactic: Tactic) -> dict[str, Any]:
    """A tactic as JSON values. Parameters must be JSON values themselves (tuples become lists)."""
    return {
        "source": tactic.source,
        "name": tactic.name,
        "inputs": [format_to_json(f) for f in tactic.inputs],
        "outputs": [format_to_json(f) for f in tactic.outputs],
        "precision": tactic.precision.value,
        "parameters": [[k, _plain(v)] for k, v in tactic.parameters],
        "version": tactic.version,
        "emulated": tactic.emulated,
        "deterministic": tactic.deterministic,
    }


def tactic_from_json(data: Mapping[str, Any]) -> Tactic:
    """What ``tactic_to_json`` wrote."""
    return Tactic(
        data["source"],
        data["name"],
        tuple(format_from_json(f) for f in data["inputs"]),
        tuple(format_from_json(f) for f in data["outputs"]),
        DataType(data["precision"]),
        tuple((k, _tupled(v)) for k, v in data["parameters"]),
        data["version"],
        data["emulated"],
        data["deterministic"],
    )


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def _tupled(value: Any) -> Any:
    return tuple(_tupled(v) for v in value) if isinstance(value, list) else value
