"""The session's model and data as PrecisionTrials, for panels that measure what precision costs."""

from __future__ import annotations

from typing import Any

from workbench.body import Array
from workbench.config import WEAK_FLAGS, BuilderConfig
from workbench.datatypes import DataType
from workbench.errors import SessionError
from workbench.lab import PrecisionTrials
from workbench.records import ProgressMonitor
from workbench.session import Session

OUTDATED = "This was measured with other settings or data than the present ones: measure it again."


def trials_of(
    session: Session,
    *,
    samples: Any = None,
    labels: Array | None = None,
    monitor: ProgressMonitor | None = None,
) -> PrecisionTrials:
    """Trials on the session's calibration data, or on ``samples``; every layer may be lowered.

    monitor: may cancel each of their builds and runs. Raises SessionError where there is no data.
    """
    data = session.calibration
    if data is None and samples is None:
        raise SessionError(
            "there are no samples to measure on",
            place=session.name,
            remedy="give the session calibration data, in the Calibration panel or by code",
        )
    config = without_requests(session.config)
    if monitor is not None:
        config.progress_monitor = monitor
    return PrecisionTrials(
        session.model,
        config,
        device=session.device,
        calibration=data.batches if data is not None else None,
        samples=samples,
        labels=labels,
        name=session.name,
    )


def settings_of(session: Session) -> tuple[str, str]:
    """What decides the trials of a session: its settings but for requests, and its data."""
    data = session.calibration
    return str(without_requests(session.config).to_json()), data.digest if data is not None else ""


def without_requests(config: BuilderConfig) -> BuilderConfig:
    """The same config, all layers in FP32 unless told: by no request, nor by weak typing."""
    plain = config.clone()
    plain.default_precision, plain.precisions = DataType.FLOAT, ()
    plain.flags = plain.flags - WEAK_FLAGS
    return plain
