"""workbench record: a build's tables in a file that another machine can show."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.bundle import bundled
from workbench.cli import main
from workbench.lab import ceilings
from workbench.reports import load_recording

MODEL = bundled("datasets", "digits_cnn.onnx")
SHAPES = "image=1x1x8x8,4x1x8x8,8x1x8x8"


@pytest.fixture
def small_ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The method is tried, not the machine."""
    monkeypatch.setitem(ceilings.ELEMENTS, "cpu", 1 << 18)
    monkeypatch.setitem(ceilings.EDGE, "cpu", 64)


@pytest.mark.usefixtures("small_ceilings")
def test_record_builds_profiles_and_writes_what_can_be_shown_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    target = tmp_path / "digits.json.gz"
    options = ["--shapes", SHAPES, "--level", "1", "--threads", "1", "--iterations", "3"]
    assert main(["record", str(MODEL), *options, "-o", str(target)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("Device: CPU")
    for said in ("Serialize", "launch gaps", f"{target}: {target.stat().st_size:,} bytes"):
        assert said in text
    found = load_recording(target)
    assert (found.model, found.precision, found.level) == ("digits_cnn", "FP32", 1)
    assert found.inputs == "image [4, 1, 8, 8], random"
    assert found.tuned.timed > 0
    assert list(found.stages)[-1] == "Serialize"


@pytest.mark.usefixtures("small_ceilings")
def test_a_recording_of_layers_in_several_precisions_names_them_all(tmp_path: Path):
    target = tmp_path / "digits.json.gz"
    options = ["--shapes", SHAPES, "--level", "0", "--threads", "1", "--iterations", "1"]
    asked = ["--layer-precision", "node_Conv_82=BF16"]
    assert main(["record", str(MODEL), *options, *asked, "-o", str(target)]) == 0
    assert load_recording(target).precision == "FP32, BF16"


def test_record_says_at_once_that_its_file_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    target = tmp_path / "absent" / "digits.json.gz"
    assert main(["record", str(MODEL), "--shapes", SHAPES, "-o", str(target)]) == 1
    error = capsys.readouterr()
    assert "make" in error.err and "Parse" not in error.out
