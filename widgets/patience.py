"""What every module of ours does first on a page: allow models to start slowly."""

from __future__ import annotations

from pathlib import Path

_PATIENT = """
// anywidget allows a model 2 s of wall clock to start, and a page may be busy with plotly.js for
// longer; a model that misses them never hears of Python again.
if (!globalThis.workbenchPatient) {
  globalThis.workbenchPatient = true;
  const WIDGET_START_MS = 2000;
  const PATIENT_MS = 120000;
  const timeout = AbortSignal.timeout.bind(AbortSignal);
  AbortSignal.timeout = (ms) => timeout(ms === WIDGET_START_MS ? PATIENT_MS : ms);
}
"""


def patient(module: str | Path) -> str:
    """An anywidget module, by its text or its file, that begins with patience.

    Any may be the page's first; what starts beside the first one still has 2 s. Figures need none:
    their Loader comes before them.
    """
    return _PATIENT + (module if isinstance(module, str) else module.read_text(encoding="utf-8"))
