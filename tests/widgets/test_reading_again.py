"""A model whose file is read again: what it is calibrated with stays, where it still fits."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from digits import MODEL, QUICK, samples, texts
from onnx import helper, numpy_helper

from widgets import ModelPanel, Studio
from workbench.builder import ranges
from workbench.datatypes import DataType
from workbench.records import Stage
from workbench.session import Session, SetDefaultPrecision


@pytest.fixture
def path(tmp_path: Path) -> Path:
    mine = tmp_path / "mine.onnx"
    mine.write_bytes(Path(MODEL).read_bytes())
    return mine


@pytest.fixture
def calibrations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs that measured ranges."""
    seen: list[str] = []
    original = ranges.measured_ranges

    def counted(state, network, engine):
        seen.append(state.name)
        return original(state, network, engine)

    monkeypatch.setattr(ranges, "measured_ranges", counted)
    return seen


def calibrated(session: Session) -> None:
    session.do(*QUICK, *session.suggested_profile(), SetDefaultPrecision(DataType.INT8))
    session.run(Stage.CALIBRATE)


def opened(path: Path) -> ModelPanel:
    """The file open in a panel, calibrated on data that was given in the session."""
    panel = ModelPanel(str(path))
    panel.session.use_calibration(samples())
    calibrated(panel.session)
    return panel


def changed(path: Path, last: bool) -> None:
    """Other weights in the model's last layer, or in its first."""
    model = onnx.load(path)
    kept = [w for w in model.graph.initializer if w.data_type == onnx.TensorProto.FLOAT]
    weight = kept[-1 if last else 0]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 2, weight.name))
    onnx.save(model, path)


def test_data_and_ranges_stay_where_the_file_is_the_same(path: Path, calibrations: list[str]):
    panel = opened(path)
    before = panel.session
    panel.again.click()
    assert panel.session is not before and panel.session.calibration.digest
    assert "is kept, and so are the ranges of its" in panel.status.value
    assert len(calibrations) == 1
    calibrated(panel.session)
    assert len(calibrations) == 1
    old, new = before.run(Stage.CALIBRATE), panel.session.run(Stage.CALIBRATE)
    assert str(old.network) == str(new.network)


def test_ranges_are_measured_again_where_a_tensor_is_computed_otherwise(
    path: Path, calibrations: list[str]
):
    panel = opened(path)
    before = panel.session.run(Stage.CALIBRATE).calibration
    changed(path, last=False)
    panel.again.click()
    assert "its ranges are not, and are measured again" in panel.status.value
    assert "changed: " in panel.status.value
    calibrated(panel.session)
    assert len(calibrations) == 2
    after = panel.session.run(Stage.CALIBRATE).calibration
    assert after.digest == before.digest
    assert {n: r.threshold for n, r in after.ranges.items()} != {
        n: r.threshold for n, r in before.ranges.items()
    }


def test_data_that_fits_no_longer_is_not_kept_and_said_so(path: Path):
    panel = opened(path)
    x, y = (helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [4, 4]) for n in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    onnx.save(helper.make_model(graph), path)
    panel.again.click()
    assert panel.session.calibration is None
    assert "Its calibration data (arrays) is not kept: " in panel.status.value


def test_data_of_an_input_that_is_called_otherwise_now_stays_under_its_new_name(path: Path):
    panel = opened(path)
    model = onnx.load(path)
    for node in model.graph.node:
        node.input[:] = ["picture" if n == "image" else n for n in node.input]
    model.graph.input[0].name = "picture"
    onnx.save(model, path)
    panel.again.click()
    assert set(panel.session.calibration.batches[0]) == {"picture"}
    assert "its ranges are not, and are measured again" in panel.status.value
    calibrated(panel.session)


def test_the_studio_says_what_it_kept_and_calibrates_on_it(path: Path, calibrations: list[str]):
    studio = Studio(path, calibration=samples())
    calibrated(studio.session)
    (panel, _) = studio.show(Stage.PARSE)
    panel.again.click()
    assert "is kept, and so are the ranges" in texts(studio.panel(ModelPanel))
    calibrated(studio.session)
    assert len(calibrations) == 1


def test_another_models_data_is_not_taken_over(path: Path):
    panel = opened(path)
    panel.open_model(MODEL)
    assert panel.session.calibration is None and panel.status.value == ""
