"""Figures: rows with units to Plotly. No measuring, no logic of the optimizer."""

from widgets.figures.calibration import calibration_figure
from widgets.figures.graph import (
    before_after_figure,
    linked_boxes,
    network_figure,
    set_highlight,
)
from widgets.figures.memory import memory_figure
from widgets.figures.profile import profile_figure, sizes_figure
from widgets.figures.roofline import roofline_figure
from widgets.figures.timing import precision_figure, tactic_figure, timing_figure
from widgets.figures.waterfall import waterfall_figure

__all__ = [
    "before_after_figure",
    "calibration_figure",
    "linked_boxes",
    "memory_figure",
    "network_figure",
    "precision_figure",
    "profile_figure",
    "roofline_figure",
    "set_highlight",
    "sizes_figure",
    "tactic_figure",
    "timing_figure",
    "waterfall_figure",
]
