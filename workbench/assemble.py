"""From a tuned network to a Plan: steps with their reformats, and the arena of each profile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from workbench import __version__
from workbench.body import Array
from workbench.config import BuilderConfig, OptimizationProfile
from workbench.devices import Device
from workbench.dimensions import interval
from workbench.errors import BuildError
from workbench.formats import LINEAR, Format, formats_on
from workbench.memory import Lifetime, MemoryPlan, plan_memory
from workbench.network import Layer, NetworkDefinition, Tensor
from workbench.optimization_profile import pinned_sizes
from workbench.plan import Plan, PlanProfile, PlanStep, PlanTensor
from workbench.selection import Candidate, ReformatChoice, Tuned
from workbench.selection.choice import LayerChoice
from workbench.storage import Storage
from workbench.streams import Work, schedule
from workbench.tactics import source_named
from workbench.tactics.launch import reformat_body
from workbench.tactics.view import VIEW


def assemble(
    name: str,
    network: NetworkDefinition,
    tuned: Tuned,
    config: BuilderConfig,
    device: Device,
) -> Plan:
    """The plan before its memory is laid out (profiles have no offsets)."""
    return _Assembly(name, network, tuned, config, device).plan()


class _Assembly:
    def __init__(
        self,
        name: str,
        network: NetworkDefinition,
        tuned: Tuned,
        config: BuilderConfig,
        device: Device,
    ) -> None:
        self.name, self.network, self.tuned = name, network, tuned
        self.config, self.device = config, device
        self.profiles = config.optimization_profiles or (OptimizationProfile(),)
        self.choices = {c.layer: c for c in tuned.layers}
        self.reformats: dict[str, list[ReformatChoice]] = {}
        for r in tuned.reformats:
            self.reformats.setdefault(r.tensor, []).append(r)
        self.tensors: dict[str, PlanTensor] = {}
        self.weights: dict[str, Array] = {}

    def plan(self) -> Plan:
        made = self._steps()
        steps = [s for s, _ in made]
        for t in self.network.outputs:
            # Last, in the model's order.
            self.tensors[t.name] = self.tensors.pop(t.name)
        self._share_memory()
        self._overwrite(steps)
        winners = [c.winner for c in (*self.tuned.layers, *self.tuned.reformats)]
        workspace = max((c.workspace_bytes for c in winners), default=0)
        versions = {s: source_named(s).version for s in sorted({x.tactic.source for x in steps})}
        plan = Plan(
            self.name,
            self.device.fingerprint,
            self.config.num_threads or getattr(self.device, "threads", 1),
            tuple(self.tensors.values()),
            tuple(steps),
            tuple(PlanProfile(dict(p.shapes), {}, 0, workspace) for p in self.profiles),
            self.weights,
            dict(self.network.absorbed),
            self.config.to_json(),
            {"inference-workbench": __version__, **versions},
        )
        return self._on_streams(plan, [_time_us(c) for _, c in made])

    def _steps(self) -> list[tuple[PlanStep, Candidate]]:
        """Every step in order, with what was chosen for it."""
        steps: list[tuple[PlanStep, Candidate]] = []
        for t in self.network.inputs:
            self._tensor(t, LINEAR)
            steps += self._reformats(t)
        for layer in self.network.layers:
            choice = self.choices[layer.name]
            steps.append((self._step(layer, choice), choice.winner))
            for t in layer.outputs:
                steps += self._reformats(t)
        return steps

    def _reformats(self, tensor: Tensor) -> list[tuple[PlanStep, Candidate]]:
        wanted = self.reformats.get(tensor.name, ())
        return [(self._reformat(r, tensor), r.winner) for r in wanted]

    def _on_streams(self, plan: Plan, times_us: Sequence[float]) -> Plan:
        """Branches on streams of their own, as many as the config allows."""
        most = self.config.max_aux_streams
        if self.device.kind != "gpu" or plan.is_late or not most:
            return plan
        timed = zip(plan.steps, times_us, strict=True)
        found = schedule([Work(s.inputs, s.outputs, t) for s, t in timed], most)
        steps = zip(plan.steps, found.streams, strict=True)
        return replace(plan, steps=tuple(replace(s, stream=k) for s, k in steps))

    def _share_memory(self) -> None:
        """Give the tensors of views their places. Raises BuildError where one is not possible."""
        pinned = pinned_sizes(self.profiles, self.network)
        storages = {f: Storage(self.network, f, pinned) for f in formats_on(self.device.kind)}
        for layer in self.network.layers:
            tactic = self.choices[layer.name].winner.tactic
            if tactic is None or tactic.source != VIEW.name:
                continue
            if reason := storages[tactic.outputs[0]].why_no_view(layer):
                raise BuildError(f"it was chosen as a view, but {reason}", place=layer.name)
        for layout, storage in storages.items():
            for name in self.network.tensors:
                place, stored = storage.place(name), _stored(name, layout)
                if place.root != name and stored in self.tensors:
                    root = _stored(place.root, layout)
                    moved = replace(self.tensors[stored], root=root, offset=place.offset)
                    self.tensors[stored] = moved

    def _overwrite(self, steps: Sequence[PlanStep]) -> None:
        """Give what is written over an input that input's memory."""
        for step in steps:
            index = step.tactic.overwrites
            if index is not None:
                given, made = self.tensors[step.inputs[index]], step.outputs[0]
                root = given.root or given.name
                self.tensors[made] = replace(self.tensors[made], root=root, offset=given.offset)

    def _step(self, layer: Layer, choice: LayerChoice) -> PlanStep:
        tactic = choice.winner.tactic
        assert tactic is not None
        dynamic: list[str] = []
        constants: list[str] = []
        layouts = iter(tactic.inputs)
        for i, t in zip(layer.body.inputs, layer.operands, strict=True):
            if t.weight is not None and i.constant:
                self.weights[t.weight.name] = t.weight.array
                constants.append(t.weight.name)
            else:
                dynamic.append(self._tensor(t, next(layouts)))
        outputs = [
            self._tensor(t, layout) for t, layout in zip(layer.outputs, tactic.outputs, strict=True)
        ]
        return PlanStep(
            layer.name,
            layer.type,
            layer.body,
            tactic,
            tuple(dynamic),
            tuple(constants),
            tuple(outputs),
            layer.origin,
            f"{layer.cause.stage}: {layer.cause.reason}" if layer.cause else "",
            choice.requested,
            choice.built,
            choice.executed,
        )

    def _reformat(self, r: ReformatChoice, tensor: Tensor) -> PlanStep:
        tactic = r.winner.tactic
        assert tactic is not None
        source, target = self._tensor(tensor, r.source), self._tensor(tensor, r.target)
        return PlanStep(
            f"reformat {source} to {r.target}",
            "REFORMAT",
            reformat_body(tensor.type),
            tactic,
            (source,),
            (),
            (target,),
            (),
            f"Tune: {r.reason}",
            tensor.dtype,
            tensor.dtype,
            tactic.precision,
        )

    def _tensor(self, tensor: Tensor, layout: Format) -> str:
        """The PlanTensor of a network tensor in a layout; made on first use."""
        public = tensor.is_network_input or tensor.is_network_output
        name = _stored(tensor.name, layout)
        kind = "inner"
        if public and layout == LINEAR:
            kind = "input" if tensor.is_network_input else "output"
        self.tensors.setdefault(name, PlanTensor(name, tensor.type, layout, kind))
        return name


def _stored(name: str, layout: Format) -> str:
    """The name in the plan of a network tensor in a layout."""
    return name if layout == LINEAR else f"{name}@{layout}"


def _time_us(candidate: Candidate) -> float:
    return 1.0 if candidate.timing is None else candidate.timing.median_us


def memory_stage(draft: Plan) -> tuple[Plan, tuple[MemoryPlan, ...]]:
    """The plan with its arenas, and each profile's memory plan."""
    plans: list[MemoryPlan] = []
    profiles: list[PlanProfile] = []
    conflict = _conflicts(draft) if draft.num_aux_streams else Lifetime.overlaps
    for p in draft.profiles:
        bounds = _bounds(draft, p)
        memory = plan_memory(lifetimes(draft, bounds), conflict)
        plans.append(memory)
        profiles.append(replace(p, offsets=memory.offsets, arena_bytes=memory.arena_bytes))
    return replace(draft, profiles=tuple(profiles)), tuple(plans)


def lifetimes(plan: Plan, bounds: Mapping[str, tuple[int, int]]) -> list[Lifetime]:
    """When each inner tensor is written and last read, and its bytes at the largest sizes.

    Of tensors that share memory the root alone: from the first that is written to the last read.
    """
    root = {t.name: t.root or t.name for t in plan.tensors}
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for index, step in enumerate(plan.steps):
        for name in step.outputs:
            first.setdefault(root[name], index)
            last[root[name]] = index
        for name in step.inputs:
            last[root[name]] = index
    return [
        Lifetime(t.name, first[t.name], last[t.name], largest_bytes(t, bounds))
        for t in plan.tensors
        if t.kind == "inner" and t.name not in plan.late and not t.root
    ]


def _conflicts(plan: Plan) -> Callable[[Lifetime, Lifetime], bool]:
    """Whether two tensors may be alive at once, where steps run side by side.

    They may not be only if every step that uses the one has surely ended when the other is written.
    """
    order = plan.schedule()
    root = {t.name: t.root or t.name for t in plan.tensors}
    users: dict[str, list[int]] = {}
    writers: dict[str, list[int]] = {}
    for index, step in enumerate(plan.steps):
        for name in step.outputs:
            writers.setdefault(root[name], []).append(index)
        for name in (*step.inputs, *step.outputs):
            users.setdefault(root[name], []).append(index)

    def conflict(a: Lifetime, b: Lifetime) -> bool:
        return not (
            order.ends_before(users[a.name], writers[b.name])
            or order.ends_before(users[b.name], writers[a.name])
        )

    return conflict


def largest_bytes(tensor: PlanTensor, bounds: Mapping[str, tuple[int, int]]) -> int:
    """Stored bytes at the largest sizes, by interval arithmetic."""
    volume = tensor.format.volume(tensor.type.shape)
    return max(1, interval(volume, bounds)[1]) * tensor.type.dtype.itemsize


def _bounds(plan: Plan, profile: PlanProfile) -> dict[str, tuple[int, int]]:
    bounds: dict[str, tuple[int, int]] = {}
    for t in plan.tensors:
        if t.kind == "input" and t.name in profile.shapes and t.name not in plan.late:
            low, _, high = profile.shapes[t.name]
            for d, a, b in zip(t.type.shape, low, high, strict=True):
                if not isinstance(d, int):
                    bounds[str(d)] = (a, b)
    return bounds
