"""Session: a model and a tuple of frozen Actions; its state is their replay.

Panels only append Actions. Undo drops one. Stage results are memoised by the content of what
they depend on, so undo and redo recompute, retime and recalibrate nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from workbench.body import Array
from workbench.builder import STAGES, BuildState, keep_ranges, start, weak_types
from workbench.calibration import (
    CalibrationCache,
    CalibrationData,
    CalibrationResult,
    load_data,
    random_inputs,
)
from workbench.config import BuilderConfig, OptimizationProfile
from workbench.devices import Device, open_device
from workbench.dimensions import evaluate_shape, symbols_of
from workbench.errors import CalibrationError, SessionError
from workbench.files import make_folder, read_file, write_atomically
from workbench.lab import ModelInspection, inspect_model
from workbench.network import NetworkDefinition
from workbench.onnx_export import OPSET, export_onnx
from workbench.precision import quantizable_tensors
from workbench.records import ProgressMonitor, Stage, StageRecord
from workbench.session.actions import Action, SetProfile, UseCalibrationData
from workbench.session.script import script_of
from workbench.session.stage_settings import STAGE_SETTINGS
from workbench.timing import TimingCache


class Session:
    """A model on a device, and what has been asked of it so far.

    model: an ONNX path, bytes, or a network. actions: in order; ``undone`` are those that redo
    would bring back. ``position`` is the last stage that was stepped to, or None. kept: what became
    of an earlier session's calibration; see ``keep_calibration``.
    """

    def __init__(
        self,
        model: str | Path | bytes | NetworkDefinition,
        *,
        device: str | Device = "cpu",
        calibration: Any = None,
        timing_cache: TimingCache | None = None,
        name: str = "",
    ) -> None:
        self.model = model
        self.device = open_device(device) if isinstance(device, str) else device
        self.cache = timing_cache or TimingCache(self.device.fingerprint)
        self.actions: tuple[Action, ...] = ()
        self.undone: tuple[Action, ...] = ()
        self.position: Stage | None = None
        self.kept = ""
        self._data: dict[str, CalibrationData] = {}
        self._states: dict[str, BuildState] = {}
        self._ranges: dict[tuple[str, str], CalibrationResult] = {}
        first = start(model, BuilderConfig(), device=self.device, name=name)
        self.name = first.name
        self._model_digest = _digest_of(model)
        self._inspection: ModelInspection | None = None
        self.parsed = self.run(Stage.PARSE)
        if calibration is not None:
            self.use_calibration(calibration)

    # -- actions --------------------------------------------------------------------------
    def do(self, *actions: Action) -> None:
        """Append actions. Raises, and changes nothing, if one cannot be taken."""
        proposed = (*self.actions, *actions)
        self._config_of(proposed)
        self.actions, self.undone = proposed, ()

    def undo(self) -> Action:
        """Take the last action back. Raises SessionError if there is none."""
        if not self.actions:
            raise SessionError("there is nothing to undo")
        *kept, last = self.actions
        self.actions, self.undone = tuple(kept), (last, *self.undone)
        return last

    def redo(self) -> Action:
        """Bring the last undone action back. Raises SessionError if there is none."""
        if not self.undone:
            raise SessionError("there is nothing to redo")
        first, *rest = self.undone
        self.actions, self.undone = (*self.actions, first), tuple(rest)
        return first

    def use_calibration(self, source: Any) -> None:
        """Digest and keep calibration data, and append the Action that uses it."""
        data = load_data(source, self.parsed.networks[Stage.PARSE])
        self._data[data.digest] = data
        self.do(UseCalibrationData(data.digest, data.label))

    def keep_calibration(self, earlier: Session) -> None:
        """Take over what a session of the same model, opened before, calibrates with.

        The data, where it fits the inputs; the ranges, where all that computes the calibrated
        tensors is as it was. ``kept`` says what became of them.
        """
        data, cache = earlier.calibration, earlier.unscaled_ranges()
        if data is None:
            return
        try:
            found = load_data(data.batches, self.parsed.networks[Stage.PARSE])
        except CalibrationError as error:
            self.kept = f"Its calibration data ({data.label}) is not kept: {error}"
            return
        data = replace(found, label=data.label)
        self._data[data.digest] = data
        self.do(UseCalibrationData(data.digest, data.label))
        self.kept = f"Its calibration data ({data.label}) is kept"
        if cache is None:
            self.kept += "."
            return
        network = self.run(Stage.FOLD).network
        difference = cache.difference(network, quantizable_tensors(network), data.digest)
        if difference:
            self.kept += f"; its ranges are not, and are measured again: {difference}."
        else:
            self._ranges[self._unscaled(data)] = cache.result
            self.kept += f", and so are the ranges of its {len(cache.digests)} tensors."

    def unscaled_ranges(self) -> CalibrationCache | None:
        """Ranges that are known for the data in use, without a channel scaling."""
        key = self._unscaled(self.calibration)
        if key not in self._ranges:
            return None
        return CalibrationCache.of(self._ranges[key], self._states[key[0]].network)

    def _unscaled(self, data: CalibrationData | None) -> tuple[str, str]:
        config = self.config
        config.equalize_channels, config.smooth_alpha = False, None
        return _ranges_key(self._keys(config, data), config, data)

    @property
    def calibration(self) -> CalibrationData | None:
        """The data in use, or None."""
        return self._data_of(self.actions)

    @property
    def unbound_sizes(self) -> tuple[str, ...]:
        """Dynamic sizes to which no profile gives a range; the Profiles stage would refuse."""
        given = {a.input for a in self.actions if isinstance(a, SetProfile)}
        bound = {
            s for t in self.parsed.network.inputs if t.name in given for s in symbols_of(t.shape)
        }
        return tuple(s for s in self.parsed.network.symbols if s not in bound)

    def suggested_profile(self) -> tuple[SetProfile, ...]:
        """Shapes for every dynamic input, to be confirmed by a person: nothing uses them by itself.

        The first axis is taken for a batch: 1, 8, 32; any other dynamic axis: 1, 64, 128.
        """
        network = self.parsed.network
        sizes: dict[str, tuple[int, int, int]] = {}
        for t in network.inputs:
            for axis, d in enumerate(t.shape):
                for symbol in sorted(symbols_of(d)):
                    sizes.setdefault(symbol, (1, 8, 32) if axis == 0 else (1, 64, 128))
        return self.profile_of(sizes)

    def profile_of(self, sizes: Mapping[str, tuple[int, int, int]]) -> tuple[SetProfile, ...]:
        """The Actions that give every size symbol its (min, opt, max). Raises ConfigError."""
        network = self.parsed.network
        profile = OptimizationProfile()
        for t in network.inputs:
            if symbols_of(t.shape):
                at = [{s: v[k] for s, v in sizes.items()} for k in range(3)]
                profile.set_shape(t.name, *(evaluate_shape(t.shape, b) for b in at))
        for which in range(3):
            profile.bindings(network, which)
        return tuple(SetProfile(name, *shapes) for name, shapes in profile.shapes.items())

    def example_inputs(self, which: int = 1) -> tuple[dict[str, Array], str]:
        """Inputs at the profile's min (0), opt (1) or max (2), and what to call them.

        The calibration data's first samples where they fit; else random data, labelled so.
        """
        network = self.parsed.network
        given = self.config.optimization_profiles or (OptimizationProfile(),)
        bound = given[0].bindings(network, which)
        shapes = {t.name: evaluate_shape(t.shape, bound) for t in network.inputs}
        data = self.calibration
        if data is not None:
            stored = {
                t.name: np.concatenate([b[t.name] for b in data.batches]) for t in network.inputs
            }
            taken = {n: a[: shapes[n][0]] if shapes[n] else a for n, a in stored.items()}
            if all(taken[n].shape == shape for n, shape in shapes.items()):
                return taken, f"calibration data ({data.label})"
        return random_inputs(network, shapes), "random data"

    def inspect(self) -> ModelInspection:
        """What the model is made of, and what of it this device runs. Looked at once.

        Raises SessionError where the file is no longer the one that was parsed.
        """
        if self._inspection is None:
            in_file = isinstance(self.model, str | Path)
            if in_file and _digest_of(self.model) != self._model_digest:
                raise SessionError(
                    "the file has changed since it was opened",
                    place=str(self.model),
                    remedy="open it again in a new Session, or put the earlier file back",
                )
            network = self.parsed.networks[Stage.PARSE]
            self._inspection = inspect_model(
                self.model, device=self.device, network=network, name=self.name
            )
        return self._inspection

    @property
    def config(self) -> BuilderConfig:
        """The config that the actions give (a fresh copy)."""
        return self._config_of(self.actions)

    def _data_of(self, actions: tuple[Action, ...]) -> CalibrationData | None:
        used = [a for a in actions if isinstance(a, UseCalibrationData)]
        return self._data[used[-1].digest] if used else None

    def _config_of(self, actions: tuple[Action, ...]) -> BuilderConfig:
        config = BuilderConfig()
        for a in actions:
            a.apply(config)
        config.timing_cache = self.cache
        return config

    # -- building -------------------------------------------------------------------------
    def run(
        self,
        until: Stage = Stage.SERIALIZE,
        *,
        monitor: ProgressMonitor | None = None,
        tell: Callable[[StageRecord], None] = lambda record: None,
    ) -> BuildState:
        """Run (or recall) the stages up to ``until``; ``tell`` hears each stage's record."""
        state, keys, ranges = self._start(monitor)
        for stage, function in STAGES:
            known = self._states.get(keys[stage])
            if known is None:
                if stage is Stage.CALIBRATE:
                    state = self._with_ranges(state, ranges)
                known = function(state)
                self._states[keys[stage]] = known
                if stage is Stage.CALIBRATE and known.calibration is not None:
                    self._ranges[ranges] = known.calibration
            state = _continued(known, state)
            tell(state.log.records[-1])
            if stage is until:
                break
        self.position = until
        return state

    def state(self) -> BuildState | None:
        """What is already built for the present actions, without running anything."""
        start_state, keys, _ = self._start(None)
        latest: BuildState | None = None
        for stage, _ in STAGES:
            known = self._states.get(keys[stage])
            if known is None:
                break
            latest = _continued(known, start_state)
        return latest

    def _start(
        self, monitor: ProgressMonitor | None
    ) -> tuple[BuildState, dict[Stage, str], tuple[str, str]]:
        """Where a build begins, the key of each stage, and that of the ranges.

        All of the same actions: others may be appended while a build runs in another thread.
        """
        actions = self.actions
        config = self._config_of(actions)
        if monitor is not None:
            config.progress_monitor = monitor
        state = start(self.model, config, device=self.device, name=getattr(self, "name", ""))
        data = self._data_of(actions)
        if data is not None:
            state = replace(state, calibration_data=data.batches, calibration_label=data.label)
        keys = self._keys(config, data)
        return state, keys, _ranges_key(keys, config, data)

    def _keys(self, config: BuilderConfig, data: CalibrationData | None) -> dict[Stage, str]:
        settings = config.to_json()
        weak = bool(weak_types(config))
        keys: dict[Stage, str] = {}
        chain = f"{self._model_digest}|{self.device.fingerprint}"
        for stage, _ in STAGES:
            chosen = weak and stage is Stage.PRECISION  # by the tuner
            read = settings if chosen else STAGE_SETTINGS.get(stage, settings)
            own = json.dumps({k: settings[k] for k in read}, sort_keys=True)
            own += json.dumps([e for s, e in settings["network_edits"] if s == stage.value])
            if stage is Stage.CALIBRATE or chosen:
                own += data.digest if data else "no data"
            chain = hashlib.sha256(f"{chain}|{stage.value}|{own}".encode()).hexdigest()
            keys[stage] = chain
        return keys

    def _with_ranges(self, state: BuildState, key: tuple[str, str]) -> BuildState:
        """A changed request or calibrator reuses the histograms of the same data."""
        known = self._ranges.get(key)
        if known is None:
            return state
        config = state.config
        known = known.with_calibrator(config.calibrator, percentile=config.percentile)
        return replace(state, calibration=known)

    # -- show the code --------------------------------------------------------------------
    def code(self) -> str:
        """The Python that does the same; run it beside the files that ``save_script`` writes."""
        return script_of(self)

    def save_script(self, folder: str | Path) -> Path:
        """Write the script, the timing cache, calibration data and ranges; returns the script."""
        target = Path(folder)
        make_folder(target)
        self.cache.save(target / f"{self.name}.timing.json")
        if self.calibration is not None:
            self.calibration.save(target / f"{self.name}.calibration.npz")
            self._save_ranges(target / f"{self.name}.calibration.json")
        if isinstance(self.model, bytes):
            write_atomically(target / f"{self.name}.onnx", self.model)
        script = target / f"{self.name}_build.py"
        write_atomically(script, self.code().encode())
        return script

    def _save_ranges(self, path: Path) -> None:
        """Keep what is calibrated for the present actions; a stale file goes."""
        path.unlink(missing_ok=True)
        state = self.state()
        if state is not None and state.calibration is not None:
            keep_ranges(state, path)

    def export_plan(self, path: str | Path) -> str:
        """Build if need be and write the plan file; returns its SHA-256."""
        state = self.run()
        assert state.plan_bytes is not None
        write_atomically(Path(path), state.plan_bytes)
        return state.sha256

    def export_onnx(
        self,
        path: str | Path,
        *,
        stage: Stage = Stage.CALIBRATE,
        opset: int = OPSET,
        functions: bool = False,
    ) -> Path:
        """Write the network as a stage left it; by default with Cast and Q/DQ, before fusion.

        See ``workbench.export_onnx``.
        """
        stepped_to = self.position
        state = self.run(stage)
        self.position = stepped_to
        export_onnx(state.networks[stage], path, opset=opset, functions=functions)
        return Path(path)


def _ranges_key(
    keys: Mapping[Stage, str], config: BuilderConfig, data: CalibrationData | None
) -> tuple[str, str]:
    """What ranges depend on: the folded network, the data, and how channels are scaled."""
    scaling = f"{config.equalize_channels}, {config.smooth_alpha}"
    return keys[Stage.FOLD], f"{data.digest if data else ''}|{scaling}"


def _continued(known: BuildState, now: BuildState) -> BuildState:
    """A recalled state under the present config and data."""
    return replace(
        known,
        config=now.config,
        cache=now.cache,
        calibration_data=now.calibration_data,
        calibration_label=now.calibration_label,
    )


def _digest_of(model: Any) -> str:
    if isinstance(model, NetworkDefinition):
        digest = hashlib.sha256(str(model).encode())
        for name, t in sorted(model.tensors.items()):
            if t.weight is not None:
                digest.update(name.encode() + t.weight.array.tobytes())
        return digest.hexdigest()
    data = model if isinstance(model, bytes) else read_file(Path(model))
    return hashlib.sha256(data).hexdigest()
