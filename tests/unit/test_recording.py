from __future__ import annotations

import json

import pytest
from engines import build, config, images

from workbench.bundle import bundled
from workbench.errors import WorkbenchError
from workbench.reports import load_recording, record


@pytest.mark.parametrize("kind", ["fp32", "fp16"])
def test_the_recorded_gpu_builds_load_and_say_where_and_when(kind):
    found = load_recording(bundled("datasets", "recordings", f"digits_cnn_{kind}_gpu.json"))
    assert "H200" in found.label and found.date in found.label
    assert "not measured on this machine" in found.label
    assert len(found.layers) == len(found.tactics)
    assert found.facts["accuracy_percent"] >= 98.0


def test_a_recording_read_back_holds_the_tables(tmp_path):
    state = build(config(level=1))
    profile = state.engine().create_execution_context().profile({"image": images(4)}, iterations=3)
    record(state, tmp_path / "r.json", precision="FP32", profile=profile)
    found = load_recording(tmp_path / "r.json")
    assert state.tuned is not None
    assert list(found.layers["Layer"])[: len(state.tuned.layers)] == [
        c.layer for c in state.tuned.layers
    ]
    assert found.profile is not None
    assert found.profile["Median (µs)"].sum() == pytest.approx(profile.end_to_end_us)


def test_an_edited_recording_is_refused(tmp_path):
    source = bundled("datasets", "recordings", "digits_cnn_fp32_gpu.json")
    data = json.loads(source.read_text())
    data["content"]["date"] = "2020-01-01"
    (tmp_path / "edited.json").write_text(json.dumps(data))
    with pytest.raises(WorkbenchError, match="checksum"):
        load_recording(tmp_path / "edited.json")
