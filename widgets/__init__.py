"""Panels, figures and the HTML report: what people see of the workbench.

Public names are resolved on first use, so that the report can be written without a notebook.
"""

from __future__ import annotations

import importlib
from typing import Any

_PANELS = (
    "PANELS AccuracyPanel CalibrationPanel GraphPanel LedgerPanel MemoryPanel ModelPanel "
    "PrecisionPanel ProfilePanel QuantizationPanel RecordedBuild RunPanel TacticPanel"
).split()
_PUBLIC = {
    "Studio": "widgets.studio",
    "write_report": "widgets.html_report",
    **dict.fromkeys(_PANELS, "widgets.panels"),
}

__all__ = [*_PUBLIC]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'widgets' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
