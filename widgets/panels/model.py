"""ModelPanel: what a model is made of, what of it runs here, and the door for another one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import ipywidgets as ipw

from widgets.drop import Drop
from widgets.panels.base import Panel
from widgets.panels.model_view import ModelView
from widgets.parts import button, failure_html, row, text_of
from widgets.runner import Failure, Runner
from workbench.bundle import bundled
from workbench.devices import Device
from workbench.errors import WorkbenchError
from workbench.lab import ModelInspection, cut_part
from workbench.network import NetworkDefinition
from workbench.records import Stage
from workbench.session import Opened, Session
from workbench.session import open_model as opened_model
from workbench.timing import TimingCache

Model = str | Path | bytes | NetworkDefinition
NOTHING = "(choose a model)"


class ModelPanel(Panel):
    """A model taken apart. Another is dropped, picked, or named by its path.

    model: a session, or what a Session takes, or None. A model that is refused is shown with every
    reason, and one that cannot be read with its error; ``session`` stays that of the last model
    that was imported. calibration and name are that model's, also when it is mended and read again.
    on_open hears the session of each one that is.
    """

    heading: ClassVar[str] = "Model"
    stage: ClassVar[Stage] = Stage.PARSE

    def __init__(
        self,
        model: Session | Model | None = None,
        *,
        device: str | Device = "cpu",
        calibration: Any = None,
        timing_cache: TimingCache | None = None,
        name: str = "",
        runner: Runner | None = None,
    ) -> None:
        self._given, self._data, self._name = model, calibration, name
        session = model if isinstance(model, Session) else None
        self._device = session.device if session is not None else device
        self._cache = session.cache if session is not None else timing_cache
        self.on_open: Callable[[Session], None] = lambda session: None
        self.view: ModelView | None = None
        self.shown: ModelInspection | None = None
        self._model: Model | None = session.model if session is not None else None
        self._after: Callable[[], None] | None = None
        super().__init__(session, runner=runner)
        if self.alone:
            self.bar.layout.display = "none"  # until something runs
        else:
            self.runner.listen(self)
        if model is not None and not isinstance(model, Session):
            self._read_from(model)
            self._take(self._opened(model, name), name)

    def setup(self) -> None:
        self.drop = Drop(
            "Drop an ONNX file here, or click to choose one", suffix=".onnx", on_file=self._dropped
        )
        self.choice = ipw.Dropdown(
            description="or pick", options=[(NOTHING, "")], layout={"width": "290px"}
        )
        self.choice.style.description_width = "initial"
        self.path = ipw.Text(
            placeholder="my/model.onnx, then Enter",
            description="or its path",
            continuous_update=False,
            layout={"width": "320px"},
        )
        self.path.style.description_width = "initial"
        self.path.observe(lambda change: self._typed(change["new"]), "value")
        self.again = button("Read again", self._read_again)
        self.status = ipw.HTML()
        self.back = button("", self._back, tooltip="show the model that is open")
        self._offer()
        self.choice.observe(self._picked, "value")
        drop = ipw.Box([self.drop], layout={"flex": "1 1 320px", "min_width": "260px"})
        self.door = row(drop, self.choice, self.path, self.again)
        self.door.add_class("wb-door")
        self._file: str | Path | None = None
        if self._session is not None:
            self.status.value = _said(self._session.kept)
            self._read_from(self._session.model)
            self._show(self._session.inspect())

    def lasting(self) -> list[ipw.Widget]:
        return [w for w in (self.door, self.status, self.back, self.view) if w is not None]

    def refresh(self) -> None:
        """Draw what is shown; another stage changes nothing in it."""
        parts: list[ipw.Widget] = [self.door, self.status]
        open_name = self._session.name if self._session is not None else ""
        if self.shown is not None and not self.shown.supported and open_name:
            self.back.description = f"Back to {open_name}"
            way_back = row(self.back)
            way_back.layout.margin = "6px 0 2px"
            parts.append(way_back)
        if self.view is not None:
            parts.append(self.view)
        self.put(parts)

    # -- what the controls do -------------------------------------------------------------
    def open_model(self, model: Model, *, name: str = "", earlier: Session | None = None) -> None:
        """Open a model: a path, bytes, or a network. What is wrong is shown, not raised.

        earlier: the session of an earlier reading, whose calibration is kept where it fits.
        """
        found: list[Opened] = []
        label = _label(model, name)
        if not self.runner.busy:
            self._read_from(model)

        def work() -> None:
            found.append(self._opened(model, name, earlier))
            self.runner.outcome = _outcome(found[0], label)

        self._start(work, lambda: self._take(found[0], name), f"reading {label}")

    def open_subgraph(self, index: int) -> None:
        """Open a supported subgraph of the refused model that is shown, as a model of its own."""
        assert self.shown is not None and isinstance(self._model, str | Path | bytes)
        try:
            part = cut_part(self._model, self.shown.parts[index].nodes)
        except WorkbenchError as error:
            self.status.value = failure_html(Failure(error))
            return
        self.open_model(part, name=f"{self.shown.name}_subgraph{index}")

    # -- inner ----------------------------------------------------------------------------
    def _opened(self, model: Model, name: str, earlier: Session | None = None) -> Opened:
        given = self._is_given(model)
        kept = earlier is not None and earlier.calibration is not None
        return opened_model(
            model,
            device=self._device,
            calibration=self._data if given and not kept else None,
            timing_cache=self._cache,
            name=name or (self._name if given else ""),
            earlier=earlier,
        )

    def _is_given(self, model: Model) -> bool:
        """Whether it is the model that this panel was made with, from wherever it is read now."""
        if isinstance(model, str | Path) and isinstance(self._given, str | Path):
            return Path(model).absolute() == Path(self._given).absolute()
        return model is self._given

    def _take(self, opened: Opened, name: str = "") -> None:
        """Show what came of opening a model."""
        self.status.value = ""
        if opened.inspection is None:
            assert opened.error is not None
            said = f"{_label(opened.model, name)} cannot be opened."
            if self._session is not None:
                if self.shown is None or not self.shown.supported:
                    self._back()
                said += f" {self._session.name} is still open."
            said = _refused(said) + failure_html(Failure(opened.error))
            self.status.value = said
            self.refresh()
            return
        self._model = opened.model
        self.path.value = ""
        self._show(opened.inspection)
        if opened.session is None:
            reasons = len(opened.inspection.errors)
            said = (
                f"{opened.inspection.name} is refused, for {reasons} reason{'s' * (reasons > 1)}."
            )
            if self._session is not None:
                said += f" {self._session.name} is still open."
            self.status.value = _refused(said)
        else:
            self._session = opened.session
            self.status.value = _said(opened.session.kept)
            self.runner.use(opened.session)
        self.refresh()
        if opened.session is not None:
            self.on_open(opened.session)

    def _show(self, inspection: ModelInspection) -> None:
        self.shown = inspection
        self.view = ModelView(inspection, open_part=self.open_subgraph, run=self._start)

    def _start(self, work: Callable[[], None], done: Callable[[], None], message: str) -> None:
        if self.runner.busy:
            self.status.value = _said("Something runs; wait for it, or cancel it.")
            return
        self._after = done
        self.runner.run(work, message)

    def _back(self) -> None:
        self.status.value = ""
        self._model = self.session.model
        self._read_from(self.session.model)
        self._show(self.session.inspect())
        self.refresh()

    def _read_from(self, model: Model) -> None:
        """A file on this machine can be read again: it may have changed."""
        self._file = model if isinstance(model, str | Path) else None
        self.again.layout.display = "none" if self._file is None else ""
        self.again.tooltip = f"read {self._file} again: it may have changed"

    def _read_again(self) -> None:
        if self._file is not None:
            self.open_model(self._file, earlier=self._session_of(self._file))

    def _session_of(self, file: str | Path) -> Session | None:
        """The session that is open, where it is one of this file."""
        model = self._session.model if self._session is not None else None
        same = isinstance(model, str | Path) and Path(model).absolute() == Path(file).absolute()
        return self._session if same else None

    def _dropped(self, name: str, data: bytes) -> None:
        self.open_model(data, name=Path(name).stem)

    def _typed(self, text: str) -> None:
        if path := text.strip():
            self.open_model(path)

    def _picked(self, change: dict[str, str]) -> None:
        if path := change["new"]:
            self.open_model(path)
            self._offer()

    def _offer(self) -> None:
        """The models beside the notebook, and those that come with the workbench."""
        here = sorted(str(p) for p in Path().glob("*.onnx"))
        ours = sorted(bundled("datasets").glob("*.onnx"))
        with self.choice.hold_trait_notifications():
            self.choice.options = [
                (NOTHING, ""),
                *((p, p) for p in here),
                *((f"{p.stem} (comes with the workbench)", str(p)) for p in ours),
            ]
            self.choice.value = ""

    # -- the runner tells -----------------------------------------------------------------
    def started(self) -> None:
        if self.alone:
            self.bar.layout.display = ""

    def finished(self) -> None:
        after, self._after = self._after, None
        if self.alone and self.runner.failure is None:
            self.bar.layout.display = "none"
        if after is not None and self.runner.failure is None:
            after()


def _outcome(opened: Opened, label: str) -> str:
    if opened.session is not None:
        return ""
    return f"{label} is refused" if opened.inspection is not None else f"{label} cannot be read"


def _label(model: Model, name: str) -> str:
    """What a person calls it."""
    return name or (Path(model).name if isinstance(model, str | Path) else "the model")


def _refused(text: str) -> str:
    return f'<div class="wb-refused" role="alert">{text_of(text)}</div>'


def _said(text: str) -> str:
    return f'<div class="wb-message" role="status">{text_of(text)}</div>' if text else ""
