"""Quick sessions of the bundled digits model, for tests of what people see."""

from __future__ import annotations

import numpy as np

from workbench.bundle import bundled
from workbench.datatypes import DataType
from workbench.session import Session, SetDefaultPrecision, SetOption

MODEL = bundled("datasets", "digits_cnn.onnx")
QUICK = (SetOption("tactic_sources", ("NUMPY",)), SetOption("builder_optimization_level", 1))


def samples(count: int = 32) -> dict[str, np.ndarray]:
    """Calibration images by the name of the model's input."""
    images = np.load(bundled("datasets", "digits.npz"))["calibration_images"]
    return {"image": images[:count]}


def quick_session(kind: DataType = DataType.FLOAT) -> Session:
    """A session with data and a profile; nothing after Parse has run."""
    session = Session(MODEL, calibration=samples())
    session.do(*QUICK, *session.suggested_profile(), SetDefaultPrecision(kind))
    return session
