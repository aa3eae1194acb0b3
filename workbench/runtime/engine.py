"""Runtime and Engine: a plan made ready on a device, shared by its contexts."""

from __future__ import annotations

import enum
import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.body import Array, HostType, TensorType
from workbench.datatypes import DataType
from workbench.devices import Device, open_device
from workbench.dimensions import SymbolicDim, evaluate, is_static, is_symbol, symbols_of
from workbench.errors import ExecutionError, NetworkError, PlanError
from workbench.formats import Format
from workbench.gpu_targets import HardwareCompatibilityLevel, why_not_here
from workbench.plan import Plan, PlanStep, PlanTensor
from workbench.records import Refusal
from workbench.tactics import settle, source_named
from workbench.tactics.protocol import Call, Problem

if TYPE_CHECKING:
    from workbench.runtime.context import ExecutionContext
    from workbench.runtime.inspector import EngineInspector


class TensorIOMode(enum.Enum):
    """Whether an engine reads or writes a tensor."""

    INPUT = "INPUT"
    OUTPUT = "OUTPUT"


@dataclass(frozen=True)
class Preparation:
    """One preparation of every step for one set of sizes: seconds, and whether it was extra.

    Sizes other than a profile's opt prepare once, on first use.
    """

    sizes: tuple[tuple[str, int], ...]
    seconds: float


class Runtime:
    """Deserializes plans onto one device (``cpu``, ``gpu``, ``gpu:1``). Never falls back."""

    def __init__(self, device: str | Device = "cpu") -> None:
        self.device = device

    def deserialize_cuda_engine(
        self, plan: bytes | memoryview | str | Path | Plan, *, verify: str = "full"
    ) -> Engine:
        """An Engine from plan bytes, a plan file's path, or a Plan.

        Raises PlanError: damaged, of another version, for another kind of device, or with
        tactics that do not prepare here (all of them are named).
        """
        if isinstance(plan, str | Path):
            plan = Plan.load(plan, verify=verify)
        elif not isinstance(plan, Plan):
            plan = Plan.from_bytes(plan, verify=verify)
        device = (
            open_device(self.device, threads=plan.threads)
            if isinstance(self.device, str)
            else self.device
        )
        return Engine(plan, device)

    deserialize = deserialize_cuda_engine


class Engine:
    """A plan ready to run: packed weights and compiled kernels, shared by every context.

    notes: what differs from the machine that built the plan, for people to read.
    """

    def __init__(self, plan: Plan, device: Device) -> None:
        if plan.device.kind != device.kind:
            raise PlanError(
                f"the plan is for a {plan.device.kind} ({plan.device.name}), "
                f"this is a {device.kind} ({device.fingerprint.name})",
                place=plan.name,
                remedy=f"open it with Runtime('{plan.device.kind}') on such a machine, "
                "or build it for this device",
            )
        if device.kind == "gpu":
            _require_compatible(plan, device)
        self.plan, self.device = plan, device
        self.notes: tuple[str, ...] = ()
        if plan.device != device.fingerprint:
            self.notes = (f"built on {plan.device}; prepared again for {device.fingerprint}",)
        self.preparations: list[Preparation] = []
        self._by_threads: dict[int, Engine] = {}
        self._tensors = {t.name: t for t in plan.tensors}
        # Another machine's kernels may read other layouts, even where the sizes agree.
        self._prepacked = _by_step(plan.packed) if plan.device == device.fingerprint else {}
        self._calls: dict[tuple[tuple[str, int], ...], tuple[Call, ...]] = {}
        self._late_calls: dict[tuple[int, tuple[tuple[str, int], ...]], Call] = {}
        for profile in plan.profiles:
            opt = self.bindings_of({k: v[1] for k, v in profile.shapes.items()})
            if not plan.is_late:
                self.calls(opt)
                continue
            for number, step in enumerate(plan.steps):
                if not step.on_host and set(step.body.symbols) <= set(opt):
                    self.call(number, opt)
        settle()

    # -- TensorRT's queries ---------------------------------------------------------------
    @property
    def name(self) -> str:
        return self.plan.name

    @property
    def num_layers(self) -> int:
        return len(self.plan.steps)

    @functools.cached_property
    def io_tensors(self) -> tuple[PlanTensor, ...]:
        """Inputs, then outputs."""
        return tuple(t for k in ("input", "output") for t in self.plan.tensors if t.kind == k)

    @property
    def num_io_tensors(self) -> int:
        return len(self.io_tensors)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self.plan.profiles)

    def get_tensor_name(self, index: int) -> str:
        return self.io_tensors[index].name

    def __getitem__(self, index: int) -> str:
        return self.get_tensor_name(index)

    def __len__(self) -> int:
        return self.num_io_tensors

    def io(self, name: str) -> PlanTensor:
        """The input or output of this name. Raises ExecutionError listing the known ones."""
        for t in self.io_tensors:
            if t.name == name:
                return t
        known = ", ".join(t.name for t in self.io_tensors)
        raise ExecutionError(
            f"no input or output is named '{name}'", place=self.name, remedy=f"known: {known}"
        )

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if self.io(name).kind == "input" else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return self.io(name).type.dtype

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """Shape with -1 for a dynamic size."""
        type_ = self.io(name).type
        if isinstance(type_, HostType):
            raise ExecutionError(f"a {type_} has no shape of its own", place=f"tensor '{name}'")
        return tuple(-1 if isinstance(d, SymbolicDim) else d for d in type_.shape)

    def get_tensor_format(self, name: str) -> Format:
        return self.io(name).format

    def get_tensor_location(self, name: str) -> str:
        """HOST or DEVICE: where its memory is expected."""
        self.io(name)
        return "HOST" if self.device.kind == "cpu" else "DEVICE"

    def get_tensor_profile_shape(
        self, name: str, profile: int
    ) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """(min, opt, max) of an input in a profile."""
        tensor = self.io(name)
        if isinstance(tensor.type, HostType):
            raise ExecutionError(f"a {tensor.type} has no shape", place=f"tensor '{name}'")
        if is_static(tensor.type.shape):
            shape = tensor.type.shape
            return shape, shape, shape
        return self.plan.profiles[profile].shapes[name]

    @property
    def device_memory_size_v2(self) -> int:
        """Bytes of arena and workspaces that a context takes at most, at the largest profile."""
        spaces = self.num_aux_streams + 1
        return max(p.arena_bytes + spaces * p.workspace_bytes for p in self.plan.profiles)

    @property
    def hardware_compatibility_level(self) -> HardwareCompatibilityLevel:
        """On which other GPUs its plan loads."""
        return self.plan.compatibility

    @property
    def num_aux_streams(self) -> int:
        """Streams beside the caller's on which its contexts run branches."""
        return self.plan.num_aux_streams

    @property
    def weight_bytes(self) -> int:
        """Bytes of the linear execution weights."""
        return sum(w.nbytes for w in self.plan.weights.values())

    def create_execution_context(
        self, profile: int = 0, *, num_threads: int | None = None
    ) -> ExecutionContext:
        """A context of its own: arena, bound launches, current shapes. Weights are shared.

        num_threads: the most that its CPU kernels use, where that is less than what the plan was
        tuned for: every layer is then prepared again, once. Raises ExecutionError.
        """
        from workbench.runtime.context import ExecutionContext

        return ExecutionContext(self._with_threads(num_threads), profile)

    def _with_threads(self, count: int | None) -> Engine:
        if count is None or count == self.plan.threads:
            return self
        if not 1 <= count < self.plan.threads:
            raise ExecutionError(
                f"num_threads is {count}, the plan was tuned for {self.plan.threads}",
                remedy="give no more than that, or build with another num_threads in the config",
            )
        if count not in self._by_threads:
            self._by_threads[count] = Engine(replace(self.plan, threads=count), self.device)
        return self._by_threads[count]

    def create_engine_inspector(self) -> EngineInspector:
        from workbench.runtime.inspector import EngineInspector

        return EngineInspector(self)

    # -- preparation ----------------------------------------------------------------------
    def tensor(self, name: str) -> PlanTensor:
        """Any tensor of the plan."""
        return self._tensors[name]

    def bindings_of(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
        """Values of the size symbols when the inputs have these shapes. Raises ExecutionError."""
        given = [
            (t, tuple(shapes[t.name]))
            for t in self.io_tensors
            if t.kind == "input" and t.name in shapes and not isinstance(t.type, HostType)
        ]
        bound: dict[str, int] = {}
        for t, shape in given:
            _bind(t, shape, bound)
        for t, shape in given:
            _check_shape(t, shape, bound)
        return bound

    def calls(self, bindings: Mapping[str, int]) -> tuple[Call, ...]:
        """The prepared Calls of every step at these sizes, made once. Raises ExecutionError."""
        key = tuple(sorted(bindings.items()))
        if key not in self._calls:
            start = time.perf_counter()
            made = [self._prepare(k, bindings) for k in range(len(self.plan.steps))]
            refused = [
                f"{s.name} ({s.tactic.title}): {c.reason}"
                for s, c in zip(self.plan.steps, made, strict=True)
                if isinstance(c, Refusal)
            ]
            if refused:
                raise PlanError(
                    f"{len(refused)} tactics do not prepare here: {' | '.join(refused)}",
                    place=self.plan.name,
                    remedy="build the plan again on this machine, or run a shape of its profile",
                )
            self._calls[key] = tuple(c for c in made if isinstance(c, Call))
            self.preparations.append(Preparation(key, time.perf_counter() - start))
        return self._calls[key]

    def machine_code(self) -> dict[str, bytes]:
        """Code of every kernel at the smallest, usual and largest sizes of each profile, by key."""
        for profile in self.plan.profiles:
            for which in range(3):
                sizes = self.bindings_of({k: v[which] for k, v in profile.shapes.items()})
                if not self.plan.is_late:
                    self.calls(sizes)
        made = [c for calls in self._calls.values() for c in calls]
        return {k: v for c in (*made, *self._late_calls.values()) for k, v in c.code.items()}

    def prepacked(self) -> dict[str, Array]:
        """Constants of every step as its kernel reads them at the sizes prepared so far, by key."""
        made = [(k, c) for calls in self._calls.values() for k, c in enumerate(calls)]
        made += [(k, c) for (k, _), c in self._late_calls.items()]
        return {f"{k}/{n}": v for k, c in made for n, v in c.prepacked.items()}

    def call(self, index: int, bindings: Mapping[str, int]) -> Call:
        """One step's prepared Call at these sizes, made once. Raises ExecutionError, PlanError.

        Where the plan's tactic has no kernel at these sizes, its source may have another one of
        the same precision and layouts: which one ran, the profile says.
        """
        step = self.plan.steps[index]
        unbound = [s for s in step.body.symbols if s not in bindings]
        if unbound:
            raise ExecutionError(
                f"no value that came before binds its sizes {', '.join(unbound)}",
                place=step.name,
                remedy="give the model values of the ranks that it declares",
            )
        sizes = tuple((s, bindings[s]) for s in step.body.symbols)
        if (index, sizes) not in self._late_calls:
            start = time.perf_counter()
            made = self._prepare(index, bindings)
            if isinstance(made, Refusal):
                made = self._another(step, bindings) or made
            if isinstance(made, Refusal):
                raise PlanError(
                    f"{step.tactic.title} does not prepare here: {made.reason}",
                    place=step.name,
                    remedy="build the plan again on this machine, or run other sizes",
                )
            self._late_calls[index, sizes] = made
            self.preparations.append(Preparation(sizes, time.perf_counter() - start))
        return self._late_calls[index, sizes]

    def _another(self, step: PlanStep, bindings: Mapping[str, int]) -> Call | None:
        wanted = step.tactic
        problem = self._problem(step, bindings)
        for offer in source_named(wanted.source).candidates(problem):
            if isinstance(offer, Refusal) or offer.precision is not wanted.precision:
                continue
            if (offer.inputs, offer.outputs) == (wanted.inputs, wanted.outputs):
                made = source_named(offer.source).prepare(offer, problem)
                if isinstance(made, Call):
                    return made
        return None

    def _prepare(self, index: int, bindings: Mapping[str, int]) -> Call | Refusal:
        step = self.plan.steps[index]
        problem = self._problem(step, bindings)
        if index in self._prepacked:
            problem = replace(problem, prepacked=self._prepacked[index])
        return source_named(step.tactic.source).prepare(step.tactic, problem)

    def _problem(self, step: PlanStep, bindings: Mapping[str, int]) -> Problem:
        constants = [i.name for i in step.body.inputs if i.constant]
        try:
            body = step.body.substitute(bindings)
        except NetworkError as e:
            raise ExecutionError(e.problem, place=step.name, remedy=e.remedy) from None
        return Problem(
            body,
            {n: self.plan.weights[w] for n, w in zip(constants, step.constants, strict=True)},
            self.device,
            self.plan.threads,
            compatibility=self.plan.compatibility,
            code=self.plan.code,
        )


def _require_compatible(plan: Plan, device: Device) -> None:
    """Raises PlanError where the plan was not built for a GPU like this one."""
    found = why_not_here(plan.compatibility, plan.device, device.fingerprint)
    if found is not None:
        reason, remedy = found
        raise PlanError(reason, place=plan.name, remedy=remedy)


def _by_step(packed: Mapping[str, Array]) -> dict[int, dict[str, Array]]:
    found: dict[int, dict[str, Array]] = {}
    for key, array in packed.items():
        step, _, name = key.partition("/")
        found.setdefault(int(step), {})[name] = array
    return found


def _bind(tensor: PlanTensor, given: tuple[int, ...], bound: dict[str, int]) -> None:
    """Give the symbols of an input's type their values, where they have none yet."""
    if len(given) != len(tensor.type.shape):
        raise ExecutionError(
            f"shape {given} has rank {len(given)}, the engine has {_text(tensor.type)}",
            place=f"input '{tensor.name}'",
        )
    for want, have in zip(tensor.type.shape, given, strict=True):
        if is_symbol(want):
            bound.setdefault(str(want), have)


def _check_shape(tensor: PlanTensor, given: tuple[int, ...], bound: Mapping[str, int]) -> None:
    """Compare an input's shape with what its type's sizes come to, as far as they are bound."""
    for axis, (want, have) in enumerate(zip(tensor.type.shape, given, strict=True)):
        if symbols_of(want) <= set(bound) and (expected := evaluate(want, bound)) != have:
            raise ExecutionError(
                f"shape {given} has {have} on axis {axis}, the engine has "
                f"{_text(tensor.type)} with {want} = {expected}",
                place=f"input '{tensor.name}'",
                remedy="give the shape that the engine was built for",
            )


def _text(type_: TensorType) -> str:
    return f"({', '.join(map(str, type_.shape))})"
