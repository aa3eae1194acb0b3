"""Recordings: the same rows as the live build, labelled, small, and refused when damaged."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from engines import build, config, images

from workbench.bundle import bundled
from workbench.datatypes import DataType
from workbench.devices import open_device
from workbench.errors import RecordingError
from workbench.lab import Ceilings
from workbench.reports import (
    layer_rows,
    layer_work,
    load_recording,
    profile_rows,
    record,
    roofline_rows,
    short_tactic_rows,
    tactic_rows,
    timing_rows,
    waterfall_rows,
    what_if_rows,
)

RECORDINGS = sorted(bundled("datasets", "recordings").glob("*.json.gz"))
ROUNDED = 1e-3


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A live build, its profile, and what was recorded of it."""
    state = build(config(level=1))
    assert state.tuned is not None and state.plan is not None
    profile = state.engine().create_execution_context().profile({"image": images(4)}, iterations=3)
    fingerprint = open_device("cpu").fingerprint
    ceilings = Ceilings(fingerprint, 1, 1e10, {DataType.FLOAT: 1e11}, {"bytes": "b", "FP32": "p"})
    path = tmp_path_factory.mktemp("recording") / "small.json.gz"
    size = record(
        state,
        path,
        precision="FP32",
        profile=profile,
        sizes={"batch": 4},
        inputs="image [4, 3, 8, 8]",
        ceilings=ceilings,
        date="2026-11-21",
    )
    return SimpleNamespace(
        state=state,
        profile=profile,
        ceilings=ceilings,
        path=path,
        size=size,
        work=layer_work(state.plan, {"batch": 4}),
        recording=load_recording(path),
    )


def same(recorded: pd.DataFrame, live: pd.DataFrame) -> None:
    """Both tables have the same rows, times to a ten-thousandth of a microsecond."""
    bare = recorded.rename_axis(columns=None)
    pd.testing.assert_frame_equal(bare, live, rtol=ROUNDED, atol=ROUNDED, check_dtype=False)


def test_every_table_of_a_recording_is_that_of_the_live_build(made: SimpleNamespace):
    tuned, found = made.state.tuned, made.recording
    same(found.layer_rows(), layer_rows(tuned))
    same(found.timing_rows(), timing_rows(tuned))
    same(short_tactic_rows(found.tuned), short_tactic_rows(tuned))
    for choice in tuned.layers:
        same(found.tactic_rows(choice.layer), tactic_rows(choice))
    same(found.profile_rows(), profile_rows(made.profile))
    same(found.waterfall_rows(), waterfall_rows(made.profile))
    same(found.roofline_rows(), roofline_rows(made.work, made.profile, made.ceilings))
    same(what_if_rows(found.tuned, ["NUMPY"]), what_if_rows(tuned, ["NUMPY"]))


def test_every_table_of_a_recording_says_where_and_when_it_was_measured(made: SimpleNamespace):
    found = made.recording
    tables = [found.layer_rows(), found.waterfall_rows(), found.tactic_rows("head")]
    for table in (*tables, found.profile_rows(), found.timing_rows(), found.roofline_rows()):
        assert found.label in table.to_html()
    assert found.label == f"recorded on {made.state.device.fingerprint.name}, 2026-11-21"


def test_a_recording_names_its_layers_where_one_is_asked_for_that_it_lacks(made: SimpleNamespace):
    with pytest.raises(RecordingError, match=r"no layer 'absent'.*head"):
        made.recording.tactic_rows("absent")


def test_the_same_records_give_the_same_bytes(made: SimpleNamespace, tmp_path: Path):
    twin = tmp_path / "twin.json.gz"
    record(
        made.state,
        twin,
        precision="FP32",
        profile=made.profile,
        sizes={"batch": 4},
        inputs="image [4, 3, 8, 8]",
        ceilings=made.ceilings,
        date="2026-11-21",
    )
    assert twin.read_bytes() == made.path.read_bytes()
    assert made.size == len(twin.read_bytes())


def rewritten(source: Path, target: Path, **changed: object) -> Path:
    data = json.loads(gzip.decompress(source.read_bytes()))
    target.write_bytes(gzip.compress(json.dumps({**data, **changed}).encode()))
    return target


@pytest.mark.parametrize("where", [0, 9, 200, -3])
def test_a_file_with_a_changed_byte_is_refused_by_name(
    made: SimpleNamespace, tmp_path: Path, where: int
):
    data = bytearray(made.path.read_bytes())
    data[where] ^= 0x5A
    damaged = tmp_path / "damaged.json.gz"
    damaged.write_bytes(data)
    if where == 9:  # the operating system's name in gzip's header: no content
        assert load_recording(damaged).date == "2026-11-21"
        return
    with pytest.raises(RecordingError, match=r"damaged\.json\.gz"):
        load_recording(damaged)


def test_a_cut_file_is_refused_by_name(made: SimpleNamespace, tmp_path: Path):
    cut = tmp_path / "cut.json.gz"
    cut.write_bytes(made.path.read_bytes()[:-100])
    with pytest.raises(RecordingError, match=r"cut\.json\.gz: it cannot be read"):
        load_recording(cut)


def test_an_edited_recording_is_refused_by_its_checksum(made: SimpleNamespace, tmp_path: Path):
    content = json.loads(gzip.decompress(made.path.read_bytes()))["content"]
    edited = {**content, "date": "2020-01-01"}
    path = rewritten(made.path, tmp_path / "edited.json.gz", content=edited)
    with pytest.raises(RecordingError, match=r"edited\.json\.gz.*checksum"):
        load_recording(path)


def test_a_recording_of_another_version_is_refused_with_what_to_do(
    made: SimpleNamespace, tmp_path: Path
):
    path = rewritten(made.path, tmp_path / "old.json.gz", version=1)
    with pytest.raises(RecordingError, match=r"version is 1.*record it again"):
        load_recording(path)
    with pytest.raises(RecordingError, match="format"):
        load_recording(rewritten(made.path, tmp_path / "other.json.gz", format="else"))


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda p: p.name)
def test_a_bundled_recording_is_small_and_whole_and_of_the_h200(path: Path):
    found = load_recording(path)
    assert path.stat().st_size < 200_000
    assert found.label == f"recorded on NVIDIA H200, {found.date}"
    assert found.driver.startswith("driver CUDA")
    assert len(found.layer_rows()) == len(found.tuned.layers) + len(found.tuned.reformats)
    assert found.profile.graph
    total = found.waterfall_rows()["Median (µs)"].sum()
    assert total == pytest.approx(found.profile.caller_us)
    assert not found.roofline_rows()["Of the ceiling (%)"].isna().all()
    dates = {c.timing.date for x in found.tuned.layers for c in x.candidates if c.timing}
    assert dates <= {found.date, ""}, "a view is not timed"


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda p: p.name)
def test_no_choice_of_a_bundled_recording_is_wrong(path: Path):
    for choice in load_recording(path).tuned.layers:
        assert choice.winner.worst is None or choice.winner.worst <= 1.0
        for c in choice.candidates:
            assert c.timing or c.refusal or c.source in ("VIEW", "HOST"), (choice.layer, c.title)
