"""The Run panel without a browser: export, profile, report, and the ceilings it measures."""

from __future__ import annotations

from pathlib import Path

import pytest
from digits import quick_session, texts

from widgets.panels import RunPanel
from workbench.datatypes import DataType
from workbench.lab import ceilings
from workbench.onnx_parser import parse_model
from workbench.plan import Plan
from workbench.records import Stage
from workbench.session import Session, SetDefaultPrecision, SetPrecision


@pytest.fixture
def session() -> Session:
    return quick_session()


def test_the_plan_is_exported_and_can_be_loaded(session: Session, tmp_path: Path):
    state = session.run()
    panel = RunPanel(session)
    panel.path.value = str(tmp_path / "digits.plan")
    panel.export()
    assert state.sha256 in panel.result.value
    assert "NVIDIA's runtime cannot load it" in texts(panel).replace("&#x27;", "'")
    assert Plan.load(tmp_path / "digits.plan").name == "digits_cnn"


def test_the_network_is_exported_as_onnx_beside_the_plan(session: Session, tmp_path: Path):
    session.run()
    panel = RunPanel(session)
    panel.path.value = str(tmp_path / "digits.plan")
    panel.export_onnx()
    assert "digits.exported.onnx" in panel.result.value
    assert session.position is Stage.SERIALIZE
    network = parse_model(tmp_path / "digits.exported.onnx")
    assert [t.name for t in network.inputs] == ["image"]


def test_an_export_that_cannot_be_written_is_explained(session: Session, tmp_path: Path):
    session.run()
    panel = RunPanel(session)
    panel.path.value = str(tmp_path / "absent" / "digits.plan")
    panel.export()
    assert "make the folder" in panel.bar.error.value


def test_the_engine_is_profiled_and_the_report_written(session: Session, tmp_path: Path):
    session.run()
    panel = RunPanel(session)
    panel.measure()
    assert panel.profile is not None
    total = sum(x for t in panel.figure.data for x in t.x)
    assert total == pytest.approx(panel.profile.end_to_end_us)
    assert "calibration data" in panel.figure.layout.title.text
    panel.path.value = str(tmp_path / "digits.plan")
    panel.report()
    assert (tmp_path / "digits.html").exists()


def test_a_report_has_no_profile_of_another_plan(session: Session, tmp_path: Path):
    session.run()
    panel = RunPanel(session)
    panel.path.value = str(tmp_path / "digits.plan")
    panel.measure()
    panel.report()
    assert '<section id="profile">' in (tmp_path / "digits.html").read_text()
    session.do(SetPrecision("node_linear", DataType.BF16))
    session.run()
    panel.refresh()
    panel.report()
    assert '<section id="profile">' not in (tmp_path / "digits.html").read_text()


def test_the_ceilings_are_measured_in_every_type_and_not_kept_for_a_plan_of_others(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setitem(ceilings.ELEMENTS, "cpu", 1 << 18)
    monkeypatch.setitem(ceilings.EDGE, "cpu", 64)
    session = quick_session()
    session.run()
    panel = RunPanel(session)
    panel.measure()
    panel.measure_ceilings()
    assert panel.ceilings is not None
    assert set(panel.ceilings.flops_per_s) == {DataType.FLOAT}
    shown = panel.roofline
    session.do(SetDefaultPrecision(DataType.INT8))
    session.run()
    panel.refresh()
    panel.measure()
    assert panel.ceilings is None
    assert shown.comm is None, "its figure is closed"
    panel.measure_ceilings()
    assert panel.ceilings is not None
    assert set(panel.ceilings.flops_per_s) == {DataType.FLOAT, DataType.INT8}
    assert panel.ceilings.flops_per_s[DataType.INT8] > 0


def test_a_profile_of_another_plan_is_not_shown(session: Session):
    session.run()
    panel = RunPanel(session)
    panel.measure()
    session.do(SetPrecision("node_linear", DataType.BF16))
    session.run()
    before = panel.figure
    panel.refresh()
    assert before.comm is None
    assert "Each layer was timed alone" not in texts(panel)
