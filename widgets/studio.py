"""Studio: a model, driven through the nine stages of a build, one click each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ipywidgets as ipw

from widgets.panels import (
    AccuracyPanel,
    CalibrationPanel,
    GraphPanel,
    LedgerPanel,
    MemoryPanel,
    ModelPanel,
    Panel,
    PrecisionPanel,
    ProfilePanel,
    QuantizationPanel,
    RunBar,
    RunPanel,
    TacticPanel,
)
from widgets.panels.base import within
from widgets.parts import Code, button, failure_html, note, row, stylesheet, text_of
from widgets.runner import ORDER, Failure, Progress, Runner
from workbench.builder import BuildState
from workbench.errors import ParserError, SessionError, WorkbenchError
from workbench.network import NetworkDefinition
from workbench.records import Stage
from workbench.session import Action, Session
from workbench.timing import TimingCache

SENTENCES = {
    Stage.PARSE: "The model as it was read: ONNX nodes, upgraded to one opset.",
    Stage.FOLD: "Constants, batch norm and no-op shuffles folded away; weights carry a recipe.",
    Stage.PROFILES: "The range of every dynamic size.",
    Stage.PRECISION: "What each layer is asked for; the request is written into the graph.",
    Stage.CALIBRATE: "Ranges from real data; then QuantizeLinear and DequantizeLinear are written.",
    Stage.FUSE: "Layers that run as one kernel; each attempt applied, or refused with its reason.",
    Stage.TUNE: "Every tactic tried, checked against the reference and timed on this device.",
    Stage.MEMORY: "One arena for all inner tensors.",
    Stage.SERIALIZE: "The plan: a file that the runtime loads in a bare process.",
}
GROUPS: dict[Stage, tuple[tuple[type[Panel], dict[str, Any]], ...]] = {
    Stage.PARSE: ((ModelPanel, {}), (GraphPanel, {"after": Stage.PARSE})),
    Stage.FOLD: (
        (GraphPanel, {"before": Stage.PARSE, "after": Stage.FOLD}),
        (LedgerPanel, {"only": Stage.FOLD}),
    ),
    Stage.PROFILES: ((ProfilePanel, {}),),
    Stage.PRECISION: ((PrecisionPanel, {}),),
    Stage.CALIBRATE: ((CalibrationPanel, {}),),
    Stage.FUSE: (
        (GraphPanel, {"before": Stage.CALIBRATE, "after": Stage.FUSE}),
        (QuantizationPanel, {}),
        (LedgerPanel, {"only": Stage.FUSE}),
    ),
    Stage.TUNE: ((TacticPanel, {}),),
    Stage.MEMORY: ((MemoryPanel, {}),),
    Stage.SERIALIZE: ((RunPanel, {}), (AccuracyPanel, {})),
}
"""What each stage shows."""


class Studio(ipw.VBox):
    """The stepper, the panel of the stage at hand, and the code that does the same.

    Another model is opened in its first panel; a model that is refused is explained there.

    model: an ONNX path, bytes, or a NetworkDefinition. calibration: an npz path, arrays, batches,
    or ``"random"`` (labelled so). An error is shown here and leaves the kernel alive.
    """

    def __init__(
        self,
        model: str | Path | bytes | NetworkDefinition,
        *,
        calibration: Any = None,
        device: str = "cpu",
        timing_cache: TimingCache | None = None,
        name: str = "",
    ) -> None:
        super().__init__(layout={"width": "100%", "overflow": "visible"})
        self.add_class("wb-studio")
        self._session: Session | None = None
        self._error: WorkbenchError | None = None
        try:
            session = Session(
                model,
                device=device,
                calibration=calibration,
                timing_cache=timing_cache,
                name=name,
            )
        except ParserError as error:
            self._error = error
            self._door = ModelPanel(
                model,
                device=device,
                calibration=calibration,
                timing_cache=timing_cache,
                name=name,
            )
            self._door.on_open = self.use
            self.children = (self._door,)
            return
        except WorkbenchError as error:
            self._error = error
            self.children = (stylesheet(), ipw.HTML(failure_html(Failure(error))))
            return
        self.use(session)

    def use(self, session: Session) -> None:
        """Drive this session from now on, from its first stage."""
        old = self.children
        self._session, self._error = session, None
        self.stage = Stage.PARSE
        self._drawn: tuple[Stage, tuple[Action, ...], tuple[Stage, ...]] | None = None
        self.runner = Runner(session)
        self.runner.listen(self)
        self._panels: dict[Stage, tuple[Panel, ...]] = {}
        self._assemble(session)
        self.show(Stage.PARSE)
        for widget in (w for c in old for w in within(c)):
            widget.close()

    # -- for scripts and tests ------------------------------------------------------------
    @property
    def session(self) -> Session:
        """What the panels append Actions to. Raises the error that kept the model from opening."""
        if self._session is None:
            assert self._error is not None
            raise self._error
        return self._session

    def build(self, until: Stage = Stage.SERIALIZE) -> BuildState:
        """Run the stages up to ``until`` here and now, and show the last. Raises WorkbenchError."""
        session = self.session
        if self.runner.busy:
            raise SessionError(
                "a build is running in the panel",
                place="Studio",
                remedy="wait for it, or cancel it, then run this again",
            )
        state = session.run(until)
        self.show(until)
        return state

    def show(self, stage: Stage) -> tuple[Panel, ...]:
        """Show a stage's panels, as far as it has run; returns them."""
        self.stage = stage
        panels = self._panels_of(stage)
        for panel in panels:
            panel.refresh()
        self._redraw(panels)
        self._drawn = (stage, self.session.actions, self._done())
        return panels

    def panel(self, kind: type[Panel]) -> Panel:
        """The first panel of this kind in the stage that is shown. Raises SessionError."""
        for panel in self._panels_of(self.stage):
            if isinstance(panel, kind):
                return panel
        raise SessionError(f"{self.stage.value} has no {kind.__name__}", place="Studio")

    def __repr__(self) -> str:
        name = self._session.name if self._session is not None else "nothing"
        return f"Studio({name})"

    # -- what the controls do -------------------------------------------------------------
    def step(self, stage: Stage) -> None:
        """What a click on a stage does: show it, and run up to it where it has not run."""
        if self.runner.busy:
            self.bar.say("a build is running; wait for it, or cancel it")
            return
        stage = self._reachable(stage)
        if self._drawn != (stage, self.session.actions, self._done()):
            self.show(stage)  # else it would replace the very controls that are being clicked
        if stage not in self._done() and not self._asks(stage):
            self.runner.build(stage)

    def build_all(self) -> None:
        """Run every stage that is left."""
        if self._reachable(Stage.SERIALIZE) is Stage.PROFILES:
            self.step(Stage.PROFILES)
            return
        self._follow = True
        self.runner.build(Stage.SERIALIZE)

    def cancel(self) -> None:
        """Stop the build at its next step."""
        self.runner.cancel()

    def undo(self) -> None:
        """Take the last action back; what was built before is recalled."""
        self._try(self.session.undo)

    def redo(self) -> None:
        """Bring the last undone action back."""
        self._try(self.session.redo)

    def show_code(self) -> str:
        """Open or close the Python that does the same; returns it."""
        self.code.code = self.session.code()
        hidden = self.code_box.layout.display == "none"
        self.code_box.layout.display = "" if hidden else "none"
        self.code_button.description = "Hide the code" if hidden else "Show the code"
        return str(self.code.code)

    def save_script(self) -> None:
        """Write the script and what it needs beside the notebook."""

        def write() -> str:
            path = self.session.save_script(f"{self.session.name}_script")
            return f"{path.resolve()} and the files it needs are written; run it in its folder"

        self._try(write)

    # -- the runner tells -----------------------------------------------------------------
    def started(self) -> None:
        self._follow = getattr(self, "_follow", False)
        for control in self._controls:
            control.disabled = True
        for panel in self._panels_of(self.stage):
            panel.hold()

    def progressed(self, progress: Progress) -> None:
        """The bar shows it."""

    def finished(self) -> None:
        for control in self._controls:
            control.disabled = False
        done = self._done()
        if self._follow and done:
            failed = self.runner.failure is not None and not self.runner.failure.cancelled
            self.stage = ORDER[min(len(done) - (not failed), len(ORDER) - 1)]
        self._follow = False
        self.show(self.stage)

    # -- inner ----------------------------------------------------------------------------
    def _assemble(self, session: Session) -> None:
        device = ipw.HTML(
            f'<div class="wb-head"><b>{text_of(session.name)}</b>'
            f"<span>{text_of(session.device)}</span></div>"
        )
        self.steps = {s: button(s.value, self._stepper(s)) for s in ORDER}
        for made in self.steps.values():
            made.add_class("wb-step")
        stepper = ipw.Box(list(self.steps.values()))
        stepper.add_class("wb-steps")
        self.all = button("Build all", self.build_all, primary=True)
        self.undo_button = button("Undo", self.undo, tooltip="take the last request back")
        self.redo_button = button("Redo", self.redo, tooltip="bring it back")
        self.code_button = button("Show the code", self.show_code)
        tools = (self.all, self.undo_button, self.redo_button, self.code_button)
        self._controls = (*tools, *self.steps.values())
        self.bar = RunBar(self.runner, *tools)
        self.code = Code()
        save = button("Save script, cache and data", self.save_script)
        self.code_box = ipw.VBox([self.code, row(save)], layout={"display": "none"})
        self.view = ipw.VBox(layout={"width": "100%", "overflow": "visible"})
        self.sentence = note("")
        self.children = (
            *(stylesheet(), device, stepper, self.bar, self.code_box),
            *(self.sentence, self.view),
        )

    def _stepper(self, stage: Stage) -> Any:
        return lambda: self.step(stage)

    def _panels_of(self, stage: Stage) -> tuple[Panel, ...]:
        if stage not in self._panels:
            made = tuple(
                kind(self.session, runner=self.runner, **how) for kind, how in GROUPS[stage]
            )
            for panel in made:
                panel.on_request = self._requested
                panel.on_failure = self.bar.fail
                if isinstance(panel, ModelPanel):
                    panel.on_open = self.use
            self._panels[stage] = made
        return self._panels[stage]

    def _redraw(self, panels: tuple[Panel, ...]) -> None:
        done = self._done()
        self.sentence.value = note(SENTENCES[self.stage]).value
        if [id(p) for p in self.view.children] != [id(p) for p in panels]:
            self.view.children = panels
        failure = self.runner.failure
        failed = None
        if failure is not None and not failure.cancelled and len(done) < len(ORDER):
            failed = ORDER[len(done)]
        for stage, made in self.steps.items():
            made.description = f"{'✓' if stage in done else ORDER.index(stage) + 1}\n{stage.value}"
            made.tooltip = self._tooltip(stage, stage in done)
            for name, on in (
                ("wb-done", stage in done),
                ("wb-shown", stage is self.stage),
                ("wb-failed", stage is failed),
            ):
                (made.add_class if on else made.remove_class)(name)
        if not self.runner.busy:
            self.undo_button.disabled = not self.session.actions
            self.redo_button.disabled = not self.session.undone
        self.code.code = self.session.code()

    def _reachable(self, stage: Stage) -> Stage:
        """``stage``, or Profiles where the person has yet to give the dynamic sizes a range."""
        after = ORDER.index(stage) > ORDER.index(Stage.PROFILES)
        return Stage.PROFILES if after and self._asks(Stage.PROFILES) else stage

    def _asks(self, stage: Stage) -> bool:
        """Whether the stage waits for the person instead of being run; says so."""
        waits = stage is Stage.PROFILES and bool(self.session.unbound_sizes)
        if waits:
            sizes = ", ".join(self.session.unbound_sizes)
            self.bar.say(f"the dynamic size {sizes} needs a range: confirm or change it below")
        return waits

    def _tooltip(self, stage: Stage, done: bool) -> str:
        return f"{stage.value}: " + ("done; show it" if done else "run up to it and show it")

    def _done(self) -> tuple[Stage, ...]:
        state = self.session.state()
        return state.done if state is not None else ()

    def _requested(self) -> None:
        """A panel appended actions: what comes after is not built for them."""
        self._redraw(self._panels_of(self.stage))

    def _try(self, act: Any) -> None:
        try:
            said = act()
        except (WorkbenchError, OSError) as error:
            self.bar.fail(Failure(error))
            return
        self.bar.fail(None)
        if isinstance(said, str):
            self.bar.say(said)
        self.show(self.stage)
