"""Trial: a configuration, built and judged; TrialRecord: those of a search, kept in a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

from workbench.datatypes import DataType
from workbench.errors import ConfigError
from workbench.files import read_file, write_atomically
from workbench.lab.quality import Quality

FORMAT = "inference-workbench trials 1"


@dataclass(frozen=True, eq=False)
class Trial:
    """One configuration, built and run.

    config: as BuilderConfig.to_json gives it; reproduces the trial. latency_us: sum of the chosen
    kernels' medians at the profile's opt shape; None at level 0, which times nothing. executed,
    products: layers that multiply, and how many of them run in ``precision``; emulated: of those.
    sha256: of the plan. inner: the value of the layer that was tapped beside its float value; None
    where none was asked for, or it no longer exists in the plan.
    """

    config: Mapping[str, Any]
    precision: DataType
    quality: Quality
    latency_us: float | None
    executed: int
    products: int
    emulated: int
    sha256: str
    inner: Quality | None = None

    @property
    def coverage(self) -> str:
        """``12 of 14 products in INT8``, to be printed beside every accuracy."""
        text = f"{self.executed} of {self.products} products in {self.precision.info.label}"
        return f"{text} ({self.emulated} emulated)" if self.emulated else text

    def to_json(self) -> dict[str, Any]:
        return {
            **{k: getattr(self, k) for k in ("latency_us", "executed", "products", "emulated")},
            "config": dict(self.config),
            "precision": self.precision.value,
            "quality": self.quality.to_json(),
            "sha256": self.sha256,
            "inner": self.inner.to_json() if self.inner else None,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Trial:
        values = dict(data)
        values["precision"] = DataType(values["precision"])
        values["quality"] = Quality.from_json(values["quality"])
        values["inner"] = Quality.from_json(values["inner"]) if values["inner"] else None
        return cls(**values)


class TrialRecord:
    """Trials by configuration; written after each one, atomically, where there is a file.

    identity: what they belong to (workbench, model, data, device). A file of another identity is
    refused with what differs. resumed: trials that were read from the file and asked for again.
    """

    def __init__(self, path: str | Path | None, identity: Mapping[str, str]) -> None:
        self.path = Path(path) if path is not None else None
        self.identity = dict(identity)
        self.resumed = 0
        self._trials: dict[str, Any] = {}
        self._read: set[str] = set()
        if self.path is not None and self.path.exists():
            self._load(self.path)

    def __len__(self) -> int:
        return len(self._trials)

    def get(self, key: str) -> Any:
        """The trial of a configuration, or None."""
        short = _short(key)
        if short in self._read:
            self._read.discard(short)
            self.resumed += 1
        return self._trials.get(short)

    def put(self, key: str, trial: Mapping[str, Any]) -> None:
        """Keep a trial, and write the file. Raises FileError."""
        self._trials[_short(key)] = dict(trial)
        if self.path is not None:
            data = {"format": FORMAT, "identity": self.identity, "trials": self._trials}
            write_atomically(self.path, json.dumps(data, indent=1, sort_keys=True).encode() + b"\n")

    def _load(self, path: Path) -> None:
        try:
            data = json.loads(read_file(path))
            found, trials = data["identity"], data["trials"]
            right = data["format"] == FORMAT
        except (ValueError, KeyError, TypeError) as e:
            raise ConfigError(
                f"it is no record of trials: {e}", place=str(path), remedy="name another file"
            ) from None
        if not right:
            raise ConfigError(f"it is {data['format']!r}, not {FORMAT!r}", place=str(path))
        differs = [k for k, v in self.identity.items() if found.get(k) != v]
        if differs:
            raise ConfigError(
                f"it is of another {', '.join(differs)}",
                place=str(path),
                remedy="name another file, or remove this one to begin anew",
            )
        self._trials = dict(trials)
        self._read = set(self._trials)


def _short(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def told_by(function: object) -> str:
    """What a record knows a function by: its name, and a digest of its code.

    What it closes over is not in it; a callable object is known by its class's name alone.
    """
    code = getattr(function, "__code__", None)
    name = str(getattr(function, "__qualname__", type(function).__name__))
    return f"{name} {_short(_told(code))}" if isinstance(code, CodeType) else name


def _told(code: CodeType) -> str:
    """Instructions, names and constants: neither file nor line, which change with each kernel."""
    constants = [_told(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {constants}"
