"""open_model: a session of a model, or why there is none, with what can still be said of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.devices import Device
from workbench.errors import ParserError, WorkbenchError
from workbench.lab import ModelInspection, inspect_model
from workbench.network import NetworkDefinition
from workbench.session.session import Session
from workbench.timing import TimingCache

Model = str | Path | bytes | NetworkDefinition


@dataclass(frozen=True, eq=False)
class Opened:
    """What came of opening a model.

    session: None where it is refused. inspection: None where it cannot even be read. error: why
    there is no session.
    """

    model: Model
    session: Session | None
    inspection: ModelInspection | None
    error: WorkbenchError | None


def open_model(
    model: Model,
    *,
    device: str | Device = "cpu",
    calibration: Any = None,
    timing_cache: TimingCache | None = None,
    name: str = "",
    earlier: Session | None = None,
) -> Opened:
    """A session where the model is imported; otherwise every reason, and what is left.

    The keywords are those of Session. earlier: one of the same model, read before, whose
    calibration is kept where it fits.
    """
    try:
        session = Session(
            model,
            device=device,
            calibration=calibration,
            timing_cache=timing_cache,
            name=name,
        )
        if earlier is not None:
            session.keep_calibration(earlier)
    except ParserError as refused:
        try:
            return Opened(model, None, inspect_model(model, device=device, name=name), refused)
        except ParserError as unreadable:
            return Opened(model, None, None, unreadable)
    except WorkbenchError as error:
        return Opened(model, None, None, error)
    return Opened(model, session, session.inspect(), None)
