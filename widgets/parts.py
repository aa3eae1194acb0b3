"""Small pieces that panels are made of: notes, tiles, errors, code, figures in place."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets as ipw
import plotly.graph_objects as go
import traitlets

from widgets.patience import patient
from widgets.plotly_once import Figure
from widgets.runner import Failure
from workbench.errors import WorkbenchError

_CSS = Path(__file__).parent / "studio.css"


class Keyboard(anywidget.AnyWidget):
    """Lets lists, sliders and rows of panels hear their own keys; shows nothing.

    JupyterLab takes arrow keys, Enter and letters for commands to the notebook wherever no text is
    edited; Lumino leaves those alone whose target has this attribute.
    """

    _esm = patient("""
const KEYED = 'select, tr, button, [role="slider"]';
export default { render() {
  if (globalThis.workbenchKeyboard) return;
  globalThis.workbenchKeyboard = true;
  document.addEventListener("focusin", ({ target }) => {
    if (target.closest(".wb-panel, .wb-studio") && target.matches(KEYED)) {
      target.setAttribute("data-lm-suppress-shortcuts", "true");
    }
  });
} };
""")


def stylesheet() -> ipw.VBox:
    """The panels' styles, and their keys, as a widget that takes no room."""
    style = ipw.HTML(f"<style>{_CSS.read_text()}</style>")
    return ipw.VBox([style, Keyboard()], layout={"display": "none"})


def text_of(value: object) -> str:
    """Escaped for HTML."""
    return html.escape(str(value))


def title(text: str) -> ipw.HTML:
    """A heading inside a panel."""
    return ipw.HTML(f'<div class="wb-title" role="heading" aria-level="4">{text_of(text)}</div>')


def note(text: str) -> ipw.HTML:
    """A sentence in muted ink."""
    return ipw.HTML(f'<div class="wb-note">{text_of(text)}</div>')


def tiles(pairs: Iterable[tuple[str, str]]) -> ipw.HTML:
    """Large values with what they are: (value, meaning)."""
    cells = "".join(
        f'<div class="wb-tile"><b>{text_of(v)}</b><span>{text_of(m)}</span></div>' for v, m in pairs
    )
    return ipw.HTML(f'<div class="wb-tiles">{cells}</div>')


def row(*children: ipw.Widget) -> ipw.Box:
    """Controls side by side; they wrap where there is no room."""
    box = ipw.Box(children)
    box.add_class("wb-row")
    return box


def plot(
    figure: go.Figure, *, scroll_zoom: bool = False, movable_shapes: bool = False
) -> tuple[ipw.VBox, Figure]:
    """A figure in its place, and the figure widget itself."""
    widget = Figure(figure, scroll_zoom=scroll_zoom, movable_shapes=movable_shapes)
    box = ipw.VBox([widget], layout={"width": "100%"})
    box.add_class("wb-plot")
    return box, widget


def button(label: str, on_click: Any, *, tooltip: str = "", primary: bool = False) -> ipw.Button:
    """A button that calls ``on_click()``."""
    made = ipw.Button(
        description=label, tooltip=tooltip or label, button_style="primary" if primary else ""
    )
    made.on_click(lambda _: on_click())
    return made


def dropdown(
    label: str, options: Sequence[Any], value: Any, on_change: Any, *, width: str = "auto"
) -> ipw.Dropdown:
    """A labelled choice; ``on_change(value)`` hears the person's choice."""
    made = ipw.Dropdown(
        description=label,
        options=options,
        value=value,
        style={"description_width": "initial"},
        layout={"width": width},
    )
    made.observe(lambda change: on_change(change["new"]), "value")
    return made


def failure_html(failure: Failure | None) -> str:
    """An error with its class, place, what is wrong and what would mend it; empty for None."""
    if failure is None:
        return ""
    error = failure.error
    if failure.cancelled:
        return f'<div class="wb-message" role="status">Stopped: {text_of(error)}</div>'
    facts: list[tuple[str, str]] = []
    trace = ""
    if isinstance(error, WorkbenchError):
        facts = [("place", error.place), ("problem", error.problem), ("remedy", error.remedy)]
        each = [*getattr(error, "errors", ()), *getattr(error, "refusals", ())]
        facts += [("reason", "\n".join(str(e) for e in each if error.problem not in str(e)))]
    else:
        facts = [
            ("problem", str(error)),
            ("remedy", "this is a defect of the workbench: report it"),
        ]
        trace = (
            f"<details><summary>traceback</summary><pre>{text_of(failure.trace)}</pre></details>"
        )
    lines = "".join(f"<b>{k}</b><span>{text_of(v)}</span>" for k, v in facts if v)
    return (
        f'<div class="wb-error" role="alert"><b>{text_of(type(error).__name__)}</b>'
        f'<div class="wb-facts">{lines}</div>{trace}</div>'
    )


class Code(anywidget.AnyWidget):
    """Python to read, select and copy."""

    _esm = patient("""
export default { render({ model, el }) {
  el.classList.add("wb-code");
  const pre = document.createElement("pre");
  pre.tabIndex = 0;
  pre.setAttribute("aria-label", "Python that does the same");
  const copy = document.createElement("button");
  copy.type = "button";
  copy.textContent = "Copy";
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(model.get("code"));
    copy.textContent = "Copied";
    setTimeout(() => { copy.textContent = "Copy"; }, 1200);
  });
  const draw = () => { pre.textContent = model.get("code"); };
  model.on("change:code", draw);
  draw();
  el.append(pre, copy);
  return () => model.off("change:code", draw);
} };
""")
    code = traitlets.Unicode().tag(sync=True)
