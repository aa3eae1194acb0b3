"""Quick sessions of the bundled digits model, for tests of what people see."""

from __future__ import annotations

import functools

import numpy as np

from workbench.bundle import bundled
from workbench.datatypes import DataType
from workbench.devices import open_device
from workbench.session import Session, SetDefaultPrecision, SetOption
from workbench.timing import TimingCache

MODEL = bundled("datasets", "digits_cnn.onnx")
QUICK = (SetOption("tactic_sources", ("NUMPY",)), SetOption("builder_optimization_level", 1))


def samples(count: int = 32) -> dict[str, np.ndarray]:
    """Calibration images by the name of the model's input."""
    images = np.load(bundled("datasets", "digits.npz"))["calibration_images"]
    return {"image": images[:count]}


@functools.cache
def shared_cache() -> TimingCache:
    """One timing cache for the whole run: what a test does not time, it need not wait for."""
    return TimingCache(open_device("cpu").fingerprint)


def quick_session(kind: DataType = DataType.FLOAT, *, cached: bool = True) -> Session:
    """A session with data and a profile; nothing after Parse has run."""
    cache = shared_cache() if cached else None
    session = Session(MODEL, calibration=samples(), timing_cache=cache)
    session.do(*QUICK, *session.suggested_profile(), SetDefaultPrecision(kind))
    return session


def texts(widget) -> str:
    """Everything that a panel says."""
    names = ("value", "description", "code", "label")
    own = " ".join(str(getattr(widget, name, "")) for name in names)
    return " ".join([own, *(texts(c) for c in getattr(widget, "children", ()))])
