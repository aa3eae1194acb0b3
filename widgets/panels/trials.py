"""The session's model and data as PrecisionTrials, for panels that measure what precision costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from workbench.body import Array
from workbench.builder import Batch
from workbench.calibration import load_data
from workbench.config import WEAK_FLAGS, BuilderConfig
from workbench.datatypes import DataType
from workbench.errors import SessionError
from workbench.lab import PrecisionTrials
from workbench.session import Session

OUTDATED = "This was measured with other settings or data than the present ones: measure it again."


def trials_of(
    session: Session, *, samples: Any = None, labels: Array | None = None
) -> PrecisionTrials:
    """Trials on the session's calibration data, or on ``samples``; every layer may be lowered.

    Raises SessionError where there is no data.
    """
    data = session.calibration
    if data is None and samples is None:
        raise SessionError(
            "there are no samples to measure on",
            place=session.name,
            remedy="give the session calibration data, in the Calibration panel or by code",
        )
    network = session.parsed.network
    if samples is not None:
        data = load_data(samples, network)
    assert data is not None
    given = session.calibration
    return PrecisionTrials(
        session.model,
        without_requests(session.config),
        device=session.device,
        calibration=_within_profile(session, given.batches) if given is not None else None,
        samples=_within_profile(session, data.batches),
        labels=labels,
        name=session.name,
    )


def _within_profile(session: Session, batches: Sequence[Batch]) -> tuple[Batch, ...]:
    """The same samples, no more in a batch than the profile allows; the last may be smaller."""
    profiles = session.config.optimization_profiles
    shapes = profiles[0].shapes if profiles else {}
    most = min((s[2][0] for n, s in shapes.items() if n in batches[0] and s[2]), default=0)
    if not most:
        return tuple(batches)
    whole = {n: np.concatenate([b[n] for b in batches]) for n in batches[0]}
    count = len(next(iter(whole.values())))
    return tuple({n: a[i : i + most] for n, a in whole.items()} for i in range(0, count, most))


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
