"""FigureWidgets that share one copy of plotly.js on a page.

Plotly's own FigureWidget sends its 5 MB of JavaScript with every figure. Here one Loader widget
a kernel sends it, and each Figure's own module, a few lines, waits for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
import plotly
import plotly.graph_objects as go
import traitlets

from widgets.patience import patient

_BUNDLE = Path(plotly.__file__).parent / "package_data" / "widgetbundle.js"
_GATE = """
const page = globalThis;
if (!page.workbenchPlotly) {
  const gate = {};
  gate.close = () => {
    gate.module = new Promise((resolve, reject) => { gate.open = resolve; gate.refuse = reject; });
    gate.refused = false;
  };
  gate.close();
  page.workbenchPlotly = gate;
}
const gate = page.workbenchPlotly;
"""
_LOADER = (
    _GATE
    + """
// plotly.js keeps the page busy for a second, or many on a small machine: what is starting now
// goes first.
const LONGEST_WAIT_MS = 5000;
const idle = () => new Promise((resolve) => {
  if (!globalThis.requestIdleCallback) { setTimeout(resolve, 200); return; }
  requestIdleCallback(resolve, { timeout: LONGEST_WAIT_MS });
});

// Plotly measures a figure before it is on the page: fit it once it is, and when its room changes.
function fit(view) {
  let width = 0;
  const check = () => {
    const room = view.el.clientWidth;
    if (!room || room === width) return;
    if (!view.el._fullLayout) { requestAnimationFrame(check); return; }
    width = room;
    view.autosizeFigure();
  };
  view.watcher = new ResizeObserver(check);
  view.watcher.observe(view.el);
}

// A removed view stays subscribed to its model, and then fails on every update: unsubscribe it.
// A figure that was closed while it was drawn has nobody to tell its size.
function subscribing(view) {
  const model = view.model;
  const heard = [];
  const on = (event, callback) => { heard.push([event, callback]); model.on(event, callback); };
  const save = () => {
    try { model.save_changes(); } catch (error) {
      if (!String(error).includes("no comm channel")) throw error;
    }
  };
  view.model = Object.create(model, { on: { value: on }, save_changes: { value: save } });
  view.unsubscribe = () => heard.forEach(([event, callback]) => model.model.off(event, callback));
}

// A drawing goes on after its view was removed, and would find its figure purged.
const DRAWN_MS = 10000;

function mended(module) {
  const view = module.FigureView.prototype;
  const { perform_render: draw, remove } = view;
  view.perform_render = function performRender() {
    subscribing(this);
    draw.call(this);
    fit(this);
  };
  view.remove = function removeView() {
    this.watcher.disconnect();
    this.unsubscribe();
    setTimeout(() => remove.call(this), DRAWN_MS);
  };
  return module.default;
}

export default {
  initialize({ model }) {
    const load = async () => {
      if (gate.loading || !model.get("source")) return;
      gate.loading = true;
      if (gate.refused) gate.close();
      await idle();
      const source = new Blob([model.get("source")], { type: "text/javascript" });
      const address = URL.createObjectURL(source);
      import(address).then((module) => gate.open(mended(module))).catch((error) => {
        gate.loading = false;
        gate.refused = true;
        gate.refuse(new Error(`plotly.js cannot be loaded: ${error.message}`, { cause: error }));
      }).finally(() => URL.revokeObjectURL(address));
    };
    model.on("change:source", load);
    load();
  },
};
"""
)
_FIGURE = (
    _GATE
    + """
// anywidget gives a module 2 s, and then drops all that Python sends; plotly.js may take longer on
// a busy page. So the figure answers at once, and hears what it missed when plotly.js is there.
const MESSAGES = [
  "addTraces", "deleteTraces", "moveTraces", "restyle", "relayout", "update", "animate",
  "removeLayoutProps", "removeTraceProps",
].map((name) => `_py2js_${name}`);

function recorder(model) {
  const missed = [];
  const heard = MESSAGES.map((name) => {
    const note = () => missed.push([name, model.get(name)]);
    model.on(`change:${name}`, note);
    return () => model.off(`change:${name}`, note);
  });
  return () => { heard.forEach((stop) => stop()); return missed; };
}

async function drawn(model) {
  const recorded = recorder(model);
  const module = await gate.module;
  const widget = typeof module === "function" ? await module() : module;
  const callbacks = {};
  let told = null;
  const own = Object.create(model, {
    get: { value: (name) => (told && told[0] === name ? told[1] : model.get(name)) },
    on: { value: (event, callback) => {
      (callbacks[event] ??= []).push(callback);
      model.on(event, callback);
    } },
  });
  const missed = recorded();
  widget.initialize({ model: own });
  for (told of missed) callbacks[`change:${told[0]}`]?.forEach((callback) => callback());
  told = null;
  return widget;
}

export default () => {
  let widget;
  return {
    initialize({ model }) { widget = drawn(model); },
    async render(context) {
      const say = (error) => { context.el.textContent = error.message; };
      return (await widget.catch(say))?.render(context);
    },
  };
};
"""
)


class Loader(anywidget.AnyWidget):
    """Brings plotly.js to the page once; shows nothing."""

    _esm = patient(_LOADER)
    source = traitlets.Unicode().tag(sync=True)


class Figure(go.FigureWidget):
    """A FigureWidget without a plotly.js of its own.

    movable_shapes: whether the pointer takes shapes along, instead of zooming, where it meets one.
    """

    _esm = _FIGURE

    def __init__(
        self, figure: go.Figure, *, scroll_zoom: bool = False, movable_shapes: bool = False
    ) -> None:
        _load()
        self._filled = False
        super().__init__(figure)
        self._config = {
            "responsive": True,
            "displaylogo": False,
            "scrollZoom": scroll_zoom,
            "edits": {"shapePosition": movable_shapes},
            "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
        }
        self._filled = True
        self.open()

    def open(self) -> None:
        """Go to the page with traces and layout.

        A FigureWidget goes there empty and sends them after; a page that is busy draws it before
        they arrive, and it stays empty.
        """
        if self._filled:
            super().open()


_loaders: list[Any] = []


def _load() -> None:
    """Open the kernel's one Loader, again if it was closed."""
    if not _loaders or _loaders[0].comm is None:
        _loaders[:] = [Loader()]
        # After it is open: so that nothing waits behind 5 MB.
        _loaders[0].source = _BUNDLE.read_text(encoding="utf-8")
