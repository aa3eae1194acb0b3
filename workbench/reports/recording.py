"""Recordings: a build's timing tables as a small file, to be shown where the device is not.

A recording names device, driver and date and carries a checksum; what shows it labels it so.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.builder import BuildState
from workbench.errors import WorkbenchError
from workbench.files import read_file, write_atomically
from workbench.reports.layers import layer_rows, tactic_rows
from workbench.reports.profile import profile_rows
from workbench.runtime import Profile

FORMAT = "inference-workbench-recording"


@dataclass(frozen=True, eq=False)
class Recording:
    """Tables measured on another machine.

    label: the line that must stand beside every number of it. tactics: per layer.
    """

    label: str
    device: str
    date: str
    model: str
    precision: str
    layers: pd.DataFrame
    tactics: dict[str, pd.DataFrame]
    profile: pd.DataFrame | None
    facts: dict[str, Any]


def record(
    state: BuildState,
    path: str | Path,
    *,
    precision: str,
    profile: Profile | None = None,
    facts: dict[str, Any] | None = None,
) -> None:
    """Write a finished build's tables, with device, driver, date and checksum."""
    assert state.tuned is not None
    content: dict[str, Any] = {
        "device": str(state.device),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "model": state.name,
        "precision": precision,
        "plan_sha256": state.sha256,
        "layers": _table(layer_rows(state.tuned)),
        "tactics": {c.layer: _table(tactic_rows(c)) for c in state.tuned.layers},
        "profile": _table(profile_rows(profile)) if profile else None,
        "end_to_end_us": profile.end_to_end_us if profile else None,
        "facts": facts or {},
    }
    data = {"format": FORMAT, "sha256": _digest(content), "content": content}
    write_atomically(Path(path), json.dumps(data, indent=1).encode())


def load_recording(path: str | Path) -> Recording:
    """What ``record`` wrote. Raises WorkbenchError if it was changed since."""
    try:
        data = json.loads(read_file(Path(path)))
        content = data["content"]
        intact = data["format"] == FORMAT and data["sha256"] == _digest(content)
    except (ValueError, KeyError, TypeError) as e:
        raise WorkbenchError(f"it cannot be read ({e})", place=str(path)) from None
    if not intact:
        raise WorkbenchError(
            "its content does not have its checksum",
            place=str(path),
            remedy="restore the file as it was recorded",
        )
    return Recording(
        f"Recorded on {content['device']}, {content['date']}: not measured on this machine",
        content["device"],
        content["date"],
        content["model"],
        content["precision"],
        pd.DataFrame(**content["layers"]),
        {k: pd.DataFrame(**v) for k, v in content["tactics"].items()},
        pd.DataFrame(**content["profile"]) if content["profile"] else None,
        {**content["facts"], "end_to_end_us": content["end_to_end_us"]},
    )


def _table(rows: pd.DataFrame) -> dict[str, Any]:
    text: Any = rows.to_json(orient="split")  # without a path it is a string
    plain = json.loads(text)
    return {"columns": plain["columns"], "data": plain["data"]}


def _digest(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
