"""Edits that a config asks for: made before their stage, kept in JSON, scripts and sessions."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from engines import build, config, images, small_network

from workbench.bundle import bundled
from workbench.config import BuilderConfig
from workbench.datatypes import DataType
from workbench.errors import BuildError, ConfigError, NetworkError
from workbench.network.remedies import (
    CastOperand,
    ExpandOperand,
    MarkOutput,
    Recompute,
    StoreConstant,
    SwapLayers,
    UnmarkOutput,
    ZeroBias,
)
from workbench.records import Stage
from workbench.session import EditNetwork, Session, SetDefaultPrecision, SetOption

QUICK = (SetOption("tactic_sources", ("NUMPY",)), SetOption("builder_optimization_level", 0))


def tensor(name: str) -> str:
    (found,) = (t for x in small_network().layers if x.name == name for t in x.outputs)
    return found.name


def test_a_marked_tensor_is_an_output_of_the_engine() -> None:
    made = config()
    made.edit_network(MarkOutput(tensor("inner")))
    state, batch = build(made), {"image": images()}
    outputs = state.engine().create_execution_context().run(batch)
    expected = small_network().run(batch, keep=True)
    assert set(outputs) == {"logits", tensor("inner")}
    np.testing.assert_allclose(outputs[tensor("inner")], expected[tensor("inner")], atol=1e-5)


def test_an_edit_that_does_not_fit_stops_the_build_and_is_named() -> None:
    made = config()
    made.edit_network(MarkOutput("nowhere"), before="Fold")
    with pytest.raises(BuildError, match=r"MarkOutput.*nowhere.*does not fit") as caught:
        build(made)
    assert caught.value.place == "Fold"


def test_edits_are_made_before_fold_or_fuse_only() -> None:
    with pytest.raises(ConfigError, match="before Tune"):
        BuilderConfig().edit_network(MarkOutput("x"), before=Stage.TUNE)


def test_a_config_with_edits_survives_json() -> None:
    made = BuilderConfig()
    made.edit_network(Recompute("x", ("a", "b"), ("y",)), before="Fold")
    made.edit_network(UnmarkOutput("z"))
    again = BuilderConfig.from_json(made.to_json())
    assert again == made
    assert again.network_edits == made.network_edits


def test_a_session_appends_edits_undoes_them_and_prints_them(tmp_path: Path) -> None:
    session = Session(small_network().clone())
    session.do(*QUICK, *session.suggested_profile())
    plain = session.run().sha256
    session.do(EditNetwork(MarkOutput(tensor("inner"))))
    assert session.run().sha256 != plain
    assert "from workbench.network import remedies" in session.code()
    assert f"remedies.MarkOutput(tensor={tensor('inner')!r}), before='Fuse'" in session.code()
    session.undo()
    assert session.run().sha256 == plain


def test_only_the_stages_after_an_edit_run_again() -> None:
    session = Session(small_network())
    session.do(*QUICK, *session.suggested_profile())
    folded = session.run(Stage.FUSE).networks[Stage.CALIBRATE]
    session.do(EditNetwork(MarkOutput(tensor("inner"))))
    state = session.run(Stage.FUSE)
    assert state.networks[Stage.CALIBRATE] is folded
    assert len(state.network.outputs) == 2


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (UnmarkOutput("logits"), "only output"),
        (UnmarkOutput("image"), "no network output"),
        (MarkOutput("image"), "no layer computes it"),
        (Recompute("logits", ("nobody",), ()), "nobody does not read"),
        (StoreConstant("logits"), "not computed from constants"),
        (CastOperand("pool", 3, "HALF"), "no operand 3"),
        (CastOperand("join", 0, "HALF"), "input 0 is HALF"),
        (ExpandOperand("nobody", 0, "logits"), "no layer is named"),
        (ZeroBias("inner"), "has one"),
        (SwapLayers("pool", "flat"), "no function of one element"),
        (SwapLayers("stem", "stem_relu"), "does more than move"),
        (SwapLayers("stem", "flat"), "does not read"),
    ],
)
def test_an_edit_that_does_not_fit_changes_nothing(edit: object, reason: str) -> None:
    network = small_network()
    before = str(network)
    with pytest.raises(NetworkError, match=reason):
        edit.apply(network)
    assert str(network) == before
    network.verify()


def test_the_printed_script_gives_the_same_plan(tmp_path: Path) -> None:
    session = Session(bundled("datasets", "digits_cnn.onnx"))
    session.do(*QUICK, *session.suggested_profile())
    name = session.run(Stage.FUSE).networks[Stage.CALIBRATE].layers[0].outputs[0].name
    session.do(EditNetwork(MarkOutput(name)))
    script = session.save_script(tmp_path)
    done = subprocess.run(
        [sys.executable, script.name], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == session.run().sha256


def test_calibration_runs_on_the_edited_network() -> None:
    session = Session(small_network(), calibration={"image": images(8)})
    session.do(*QUICK, *session.suggested_profile())
    session.do(EditNetwork(MarkOutput(tensor("stem")), Stage.FOLD))
    session.do(SetDefaultPrecision(DataType.INT8))
    assert tensor("stem") in [t.name for t in session.run().network.outputs]
