"""Panel: a view of a session that appends Actions to it, and what runs its stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import ipywidgets as ipw

from widgets.parts import button, failure_html, note, row, stylesheet, text_of
from widgets.runner import Failure, Progress, Runner
from workbench.builder import BuildState
from workbench.errors import SessionError, WorkbenchError
from workbench.records import Stage
from workbench.session import Action, Session


class RunBar(ipw.VBox):
    """What runs now: a bar, a message, Cancel; and why the last run failed."""

    def __init__(self, runner: Runner, *tools: ipw.Widget) -> None:
        self.runner = runner
        self.bar = ipw.FloatProgress(
            0.0, min=0.0, max=1.0, description="", bar_style="info", tooltip="progress of the build"
        )
        self.message = ipw.HTML()
        self.cancel = button("Cancel", runner.cancel, tooltip="stop at the next step")
        self.cancel.disabled = True
        self.error = ipw.HTML()
        tools_row = ipw.Box([*tools, self.cancel, self.bar, self.message])
        tools_row.add_class("wb-tools")
        super().__init__([tools_row, self.error])
        runner.listen(self)

    def say(self, text: str) -> None:
        """Show a message beside the bar."""
        self.message.value = f'<span class="wb-message" role="status">{text_of(text)}</span>'

    def fail(self, failure: Failure | None) -> None:
        """Show why something failed; None clears it."""
        self.error.value = failure_html(failure)

    # -- the runner tells -----------------------------------------------------------------
    def started(self) -> None:
        self.cancel.disabled = False
        self.bar.value, self.bar.bar_style = 0.0, "info"
        self.fail(None)

    def progressed(self, progress: Progress) -> None:
        self.bar.value = progress.share
        self.say(progress.message)

    def finished(self) -> None:
        self.cancel.disabled = True
        failure = self.runner.failure
        self.fail(failure)
        if failure is None:
            self.bar.value, self.bar.bar_style = 1.0, "success"
            self.say(self.runner.summary())
        else:
            self.bar.bar_style = "warning" if failure.cancelled else "danger"
            self.say("stopped" if failure.cancelled else "failed; the reason is below")


class Panel(ipw.VBox):
    """One view of a session, alone in a cell or inside the Studio.

    A subclass says which ``stage`` must have run, and draws what it left in ``draw``; ``reruns``
    is the stage that its requests build up to at once, None where that would take long. Given a
    ``runner``, it shares the Studio's; alone it has one of its own, with its bar.
    """

    heading: ClassVar[str] = ""
    stage: ClassVar[Stage] = Stage.PARSE
    reruns: ClassVar[Stage | None] = None

    def __init__(self, session: Session | None, *, runner: Runner | None = None) -> None:
        self._session = session
        self.alone = runner is None
        self.runner = runner or Runner(session)
        self.on_request: Callable[[], None] = lambda: None
        self.on_failure: Callable[[Failure | None], None] = lambda failure: None
        self._content = ipw.VBox(layout={"overflow": "visible"})
        self._run_buttons: tuple[ipw.Button, ...] = ()
        parts: list[ipw.Widget] = [self._content]
        if self.alone:
            self.bar = RunBar(self.runner)
            parts = [stylesheet(), self.bar, self._content]
            self.runner.listen(self)
        super().__init__(parts, layout={"overflow": "visible", "width": "100%"})
        self.add_class("wb-panel")
        self.setup()
        self.refresh()

    @property
    def session(self) -> Session:
        """What the panel shows and appends Actions to. Raises SessionError where there is none."""
        if self._session is None:
            raise SessionError(
                "no model is open", place=self.heading, remedy="drop an ONNX file, or pick one"
            )
        return self._session

    def __repr__(self) -> str:
        name = self._session.name if self._session is not None else "nothing"
        return f"{type(self).__name__}({name})"

    # -- for subclasses -------------------------------------------------------------------
    def setup(self) -> None:
        """Make the controls that live as long as the panel."""

    def draw(self, state: BuildState) -> Sequence[ipw.Widget]:
        """The panel's content for a state in which ``stage`` has run."""
        raise NotImplementedError

    def waiting(self) -> Sequence[ipw.Widget]:
        """The panel's content until ``stage`` has run."""
        name = self.stage.value
        run = button(f"Run up to {name}", lambda: self.runner.build(self.stage), primary=True)
        self._run_buttons = (run,)
        return [note(f"{name} has not run for the present requests."), row(run)]

    def hold(self) -> None:
        """A run begins: what would start one waits until the panel is drawn again."""
        for made in self._run_buttons:
            made.disabled = True

    def request(self, *actions: Action) -> None:
        """Append actions to the session; a refused one is shown, not raised."""
        try:
            self.session.do(*actions)
        except WorkbenchError as error:
            self.show_failure(Failure(error))
            return
        self.requested()

    def requested(self) -> None:
        """Actions were appended: build what is quick, and show the rest as not yet built."""
        self.show_failure(None)
        self.on_request()
        if self.reruns is not None:
            self.runner.rebuild(self.reruns)
        else:
            self.refresh()

    def show_failure(self, failure: Failure | None) -> None:
        """Show an error where the person looks: in the panel's own bar, or the Studio's."""
        if self.alone:
            self.bar.fail(failure)
        else:
            self.on_failure(failure)

    # -- drawing --------------------------------------------------------------------------
    def refresh(self) -> None:
        """Draw what the session has built for the present actions."""
        state = self.session.state()
        ready = state is not None and self.stage in state.done
        self.put(self.draw(state) if ready and state else self.waiting())

    def put(self, parts: Sequence[ipw.Widget]) -> None:
        """Show these, and close what is no longer shown."""
        old = self._content.children
        self._content.children = tuple(parts)
        # By identity: figures compare by content.
        kept = {id(w) for c in (*self._content.children, *self.lasting()) for w in within(c)}
        for widget in (w for c in old for w in within(c)):
            if id(widget) not in kept:
                widget.close()

    def lasting(self) -> Sequence[ipw.Widget]:
        """Controls that outlive a redrawing even while they are not shown."""
        return ()

    # -- the runner tells -----------------------------------------------------------------
    def started(self) -> None:
        self.hold()

    def progressed(self, progress: Progress) -> None:
        """A run goes on."""

    def finished(self) -> None:
        self.refresh()


def within(widget: ipw.Widget) -> list[ipw.Widget]:
    """A widget and everything in it."""
    inner = [w for child in getattr(widget, "children", ()) for w in within(child)]
    return [widget, *inner]
