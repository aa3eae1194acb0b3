"""Quality: how near outputs come to a reference's, summed up over batches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from workbench.body import Array
from workbench.errors import ConfigError

METRICS = ("accuracy", "agreement", "cosine", "relative_l2", "task")
"""What a tolerance can be about; see ``Quality.loss``."""


@dataclass(frozen=True)
class Quality:
    """Values beside the reference's, on the same samples.

    cosine: mean over samples. sqnr_db: signal to noise, in decibels; inf where nothing differs.
    relative_l2: norm of the difference over the norm of the reference. agreement: percent of
    samples with the largest output at the same place; None where outputs are no scores. accuracy:
    percent right, where labels were given. task: mean of the caller's own score. not_finite: values
    that are NaN or infinite where the reference's are finite; one makes relative_l2 infinite.
    """

    cosine: float
    sqnr_db: float
    relative_l2: float
    samples: int
    agreement: float | None = None
    accuracy: float | None = None
    task: float | None = None
    not_finite: int = 0

    def loss(self, metric: str, reference: Quality) -> float:
        """What is lost against the float model's own quality; 0 or less where nothing is.

        accuracy: points. agreement: points short of 100. cosine: 1 - mean cosine. relative_l2: as
        it is. task: the score's drop. Raises ConfigError for a metric that was not measured.
        """
        if metric == "cosine":
            return 1.0 - self.cosine
        if metric == "relative_l2":
            return self.relative_l2
        if metric not in METRICS:
            raise ConfigError(f"no metric is called {metric!r}", remedy=f"use {', '.join(METRICS)}")
        own: float | None = getattr(self, metric)
        base: float | None = 100.0 if metric == "agreement" else getattr(reference, metric)
        if own is None or base is None:
            remedy = {
                "accuracy": "give labels",
                "task": "give task=...",
                "agreement": "the model needs one output of scores; use 'cosine'",
            }[metric]
            raise ConfigError(f"{metric} was not measured", remedy=remedy)
        return base - own

    def to_json(self) -> dict[str, Any]:
        """Numbers; what JSON has no number for (inf, NaN) as text."""
        return {k: _plain(v) for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Quality:
        """What ``to_json`` wrote."""
        values: dict[str, Any] = {k: float(v) if isinstance(v, str) else v for k, v in data.items()}
        return cls(**values)


def _plain(value: Any) -> Any:
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value


class QualityMeter:
    """Adds up batch after batch; memory does not grow with them."""

    def __init__(self) -> None:
        self._cosines = self._signal = self._noise = 0.0
        self._samples = self._agree = self._right = self._not_finite = 0
        self._task = 0.0
        self._scores, self._labelled, self._tasked = True, False, False

    def add(
        self,
        reference: Mapping[str, Array],
        found: Mapping[str, Array],
        *,
        labels: Array | None = None,
        task: Array | None = None,
    ) -> None:
        """The next batch: every floating-point value of the reference, sample by sample.

        labels: of these samples. task: these samples' scores. The first axis counts samples.
        Raises ConfigError where nothing can be compared so.
        """
        names = _comparable(reference)
        exact = np.concatenate([_rows(reference[n]) for n in names], axis=1)
        given = np.concatenate([_rows(found[n]) for n in names], axis=1)
        bad = ~np.isfinite(given) & np.isfinite(exact)
        self._not_finite += int(bad.sum())
        self._samples += len(exact)
        self._signal += float((exact**2).sum())
        if bad.any():
            self._noise = math.inf
            given = np.where(bad.any(axis=1, keepdims=True), 0.0, given)
        else:
            self._noise += float(((exact - given) ** 2).sum())
        norms = np.linalg.norm(exact, axis=1) * np.linalg.norm(given, axis=1)
        same = (exact == given).all(axis=1)
        cosine = (exact * given).sum(axis=1) / np.maximum(norms, 1e-300)
        self._cosines += float(np.where(same, 1.0, cosine).sum())
        single = len(names) == 1 and reference[names[0]].ndim == 2 and exact.shape[1] > 1
        self._scores = self._scores and single
        if single:
            best = given.argmax(axis=1)
            self._agree += int(np.sum(exact.argmax(axis=1) == best))
            if labels is not None:
                self._labelled = True
                self._right += int(np.sum(best == labels))
        if task is not None:
            self._tasked = True
            self._task += float(np.sum(task))

    def result(self) -> Quality:
        """The quality over all batches so far. Raises ConfigError before the first."""
        n = self._samples
        if not n:
            raise ConfigError("there are no samples to compare on", remedy="give samples=...")
        ratio = self._noise / self._signal if self._signal else (0.0 if not self._noise else np.inf)
        sqnr = math.inf if ratio == 0 else (-10 * math.log10(ratio) if ratio < np.inf else -np.inf)
        return Quality(
            self._cosines / n,
            sqnr,
            math.sqrt(ratio),
            n,
            100.0 * self._agree / n if self._scores else None,
            100.0 * self._right / n if self._scores and self._labelled else None,
            self._task / n if self._tasked else None,
            self._not_finite,
        )


def _comparable(reference: Mapping[str, Array]) -> list[str]:
    """The floating-point values. Raises ConfigError where there are none, or samples do not fit."""
    names = [n for n, a in reference.items() if a.dtype.kind in "fV"]
    if len({a.shape[:1] for n, a in reference.items() if n in names}) == 1:
        return names
    said = ", ".join(f"{n} {a.dtype}{list(a.shape)}" for n, a in reference.items())
    problem = "first axes do not count the same samples" if names else "none is floating-point"
    raise ConfigError(
        f"{problem}: {said}",
        place="outputs to compare",
        remedy="mark float tensors as the model's outputs, with samples along their first axis",
    )


def _rows(array: Array) -> Array:
    wide = np.asarray(array).astype(np.float64)
    return wide.reshape(wide.shape[0] if wide.ndim else 1, -1)
