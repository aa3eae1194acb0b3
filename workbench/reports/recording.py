"""Recordings: a build's timing tables as a small file, to be shown where the device is not.

A recording names device, driver and date and carries a checksum; what shows it labels it so.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.builder import BuildState
from workbench.errors import RecordingError
from workbench.files import read_file, write_atomically
from workbench.lab.ceilings import Ceilings
from workbench.records import Stage
from workbench.reports import layers, profile, recorded, roofline, timing
from workbench.runtime import Profile
from workbench.selection import LayerChoice, Tuned

FORMAT = "inference-workbench-recording"
VERSION = 2


@dataclass(frozen=True, eq=False)
class Recording:
    """A build of another day or machine: the same records as a live one, and where they are from.

    device, driver: as the device calls itself. versions: of the libraries. precision: what was
    requested. inputs: what the profile ran. stages: per stage, seconds and what it did. work,
    ceilings: what the roofline is made of.
    """

    device: str
    driver: str
    date: str
    versions: Mapping[str, str]
    model: str
    precision: str
    inputs: str
    level: int
    plan_sha256: str
    stages: Mapping[str, tuple[float, str]]
    tuned: Tuned
    profile: Profile
    work: tuple[roofline.LayerWork, ...]
    ceilings: Ceilings

    @property
    def label(self) -> str:
        """The line that must stand beside every number of it."""
        return f"recorded on {self.device}, {self.date}"

    def choice(self, layer: str) -> LayerChoice:
        """One layer's tactics. Raises RecordingError for a layer that it does not have."""
        for c in self.tuned.layers:
            if c.layer == layer:
                return c
        raise RecordingError(
            f"it has no layer '{layer}'",
            place=self.label,
            remedy=f"its layers: {', '.join(c.layer for c in self.tuned.layers)}",
        )

    # -- the rows of a live build, labelled -------------------------------------------------
    def layer_rows(self) -> pd.DataFrame:
        return self._labelled(layers.layer_rows(self.tuned))

    def tactic_rows(self, layer: str) -> pd.DataFrame:
        return self._labelled(layers.tactic_rows(self.choice(layer)))

    def timing_rows(self) -> pd.DataFrame:
        return self._labelled(timing.timing_rows(self.tuned))

    def profile_rows(self) -> pd.DataFrame:
        return self._labelled(profile.profile_rows(self.profile))

    def waterfall_rows(self) -> pd.DataFrame:
        return self._labelled(profile.waterfall_rows(self.profile))

    def roofline_rows(self) -> pd.DataFrame:
        return self._labelled(roofline.roofline_rows(self.work, self.profile, self.ceilings))

    def _labelled(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The label in the corner of the table, wherever it is shown."""
        return rows.rename_axis(columns=self.label)


def record(
    state: BuildState,
    path: str | Path,
    *,
    precision: str,
    profile: Profile,
    sizes: Mapping[str, int],
    inputs: str,
    ceilings: Ceilings,
    date: str,
) -> int:
    """Write a finished build with its profile and the device's ceilings; the file's size in bytes.

    sizes: values of the plan's symbols in the profiled run. inputs: what ran, in words. date: of
    the measurements, as YYYY-MM-DD.
    """
    assert state.tuned is not None and state.plan is not None
    content: dict[str, Any] = {
        "device": state.device.fingerprint.name,
        "driver": getattr(state.device, "driver", ""),
        "date": date,
        "versions": dict(state.plan.versions),
        "model": state.name,
        "precision": precision,
        "inputs": inputs,
        "level": state.config.builder_optimization_level,
        "plan_sha256": state.sha256,
        "stages": [[r.stage.value, round(r.seconds, 4), r.summary] for r in state.log.records],
        "tuned": recorded.tuned_to_json(state.tuned),
        "profile": recorded.profile_to_json(profile),
        "work": recorded.work_to_json(roofline.layer_work(state.plan, sizes)),
        "ceilings": recorded.ceilings_to_json(ceilings),
    }
    text = _text(content)
    data = {"format": FORMAT, "version": VERSION, "sha256": _digest(text), "content": content}
    packed = gzip.compress(_text(data), 9, mtime=0)
    write_atomically(Path(path), packed)
    return len(packed)


def load_recording(path: str | Path) -> Recording:
    """What ``record`` wrote. Raises RecordingError, naming the file, where it is damaged."""
    content = _content(Path(path))
    try:
        return _recording(content)
    except (ValueError, KeyError, TypeError, IndexError) as e:
        raise _damaged(path, f"a record is not what it should be ({e})") from None


def _recording(content: Mapping[str, Any]) -> Recording:
    stages = {str(Stage(name).value): (s, text) for name, s, text in content["stages"]}
    plain = "device driver date versions model precision inputs level plan_sha256".split()
    return Recording(
        **{name: content[name] for name in plain},
        stages=stages,
        tuned=recorded.tuned_from_json(content["tuned"]),
        profile=recorded.profile_from_json(content["profile"]),
        work=recorded.work_from_json(content["work"]),
        ceilings=recorded.ceilings_from_json(content["ceilings"]),
    )


def _content(path: Path) -> dict[str, Any]:
    """The recording's content, verified."""
    try:
        data = json.loads(gzip.decompress(read_file(path)))
        form, version, content = data["format"], data["version"], data["content"]
        stated = data["sha256"]
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as e:
        raise _damaged(path, f"it cannot be read ({e})") from None
    if form != FORMAT:
        raise _damaged(path, f"its format is {form!r}, not {FORMAT!r}")
    if version != VERSION:
        raise RecordingError(
            f"its version is {version}, this workbench reads {VERSION}",
            place=str(path),
            remedy="record it again: workbench record",
        )
    found = _digest(_text(content))
    if found != stated:
        raise _damaged(path, f"its content has the checksum {found[:16]}, not {str(stated)[:16]}")
    return content


def _damaged(path: str | Path, problem: str) -> RecordingError:
    remedy = "restore the file as it was recorded, or record it again: workbench record"
    return RecordingError(problem, place=str(path), remedy=remedy)


def _text(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()
