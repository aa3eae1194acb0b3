"""Session: a model and a tuple of frozen Actions; its state is their replay."""

from workbench.session.actions import (
    Action,
    ClearPrecisions,
    EditNetwork,
    SetCalibrator,
    SetDefaultPrecision,
    SetFlag,
    SetOption,
    SetPrecision,
    SetPrecisions,
    SetProfile,
    SetThreshold,
    SetWorkspace,
    UseCalibrationData,
)
from workbench.session.opening import Opened, open_model
from workbench.session.session import Session

__all__ = [
    "Action",
    "ClearPrecisions",
    "EditNetwork",
    "Opened",
    "Session",
    "SetCalibrator",
    "SetDefaultPrecision",
    "SetFlag",
    "SetOption",
    "SetPrecision",
    "SetPrecisions",
    "SetProfile",
    "SetThreshold",
    "SetWorkspace",
    "UseCalibrationData",
    "open_model",
]
