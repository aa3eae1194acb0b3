"""Panels: each a view of a session, alone in a cell or inside the Studio."""

from widgets.panels.accuracy import AccuracyPanel
from widgets.panels.base import Panel, RunBar
from widgets.panels.calibration import CalibrationPanel
from widgets.panels.graph import GraphPanel
from widgets.panels.ledger import LedgerPanel
from widgets.panels.memory import MemoryPanel
from widgets.panels.model import ModelPanel
from widgets.panels.precision import PrecisionPanel
from widgets.panels.profiles import ProfilePanel
from widgets.panels.qdq import QuantizationPanel
from widgets.panels.recorded import RecordedBuild
from widgets.panels.run import RunPanel
from widgets.panels.tactics import TacticPanel

PANELS: tuple[type[Panel], ...] = (
    ModelPanel,
    GraphPanel,
    LedgerPanel,
    ProfilePanel,
    PrecisionPanel,
    CalibrationPanel,
    QuantizationPanel,
    TacticPanel,
    MemoryPanel,
    RunPanel,
    AccuracyPanel,
)
"""Every panel. To add one: a class in a file of its own, its line here, and a headless test."""

__all__ = [
    "PANELS",
    "AccuracyPanel",
    "CalibrationPanel",
    "GraphPanel",
    "LedgerPanel",
    "MemoryPanel",
    "ModelPanel",
    "Panel",
    "PrecisionPanel",
    "ProfilePanel",
    "QuantizationPanel",
    "RecordedBuild",
    "RunBar",
    "RunPanel",
    "TacticPanel",
]
