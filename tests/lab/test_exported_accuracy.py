"""A quantized network, exported, has the same accuracy in ONNX Runtime; and its trtexec command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import workbench as wb
from workbench.bundle import bundled
from workbench.lab.peer import peer_outputs
from workbench.session import Session, SetDefaultPrecision, SetOption, SetPrecision, SetProfile


@pytest.mark.parametrize("kind", [wb.DataType.INT8, wb.DataType.HALF])
def test_onnx_runtime_gets_the_accuracy_of_our_engine(kind: wb.DataType, tmp_path: Path) -> None:
    data = np.load(bundled("datasets", "digits.npz"))
    images, labels = data["test_images"], data["test_labels"]
    session = Session(
        bundled("datasets", "digits_cnn.onnx"), calibration={"image": data["calibration_images"]}
    )
    session.do(
        SetOption("builder_optimization_level", 0),
        SetProfile("image", (1, 1, 8, 8), (400, 1, 8, 8), (400, 1, 8, 8)),
        SetDefaultPrecision(kind),
        SetPrecision("op:Gemm", wb.DataType.FLOAT),
    )
    engine = session.run().engine()
    ours = engine.create_execution_context().run({"image": images})["logits"]
    path = session.export_onnx(tmp_path / "typed.onnx", opset=25)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    theirs = peer_outputs(path, [{"image": images}])[0]["logits"]
    right = [100 * float(np.mean(y.argmax(1) == labels)) for y in (ours, theirs)]
    assert right[0] == pytest.approx(right[1], abs=0.25)
    assert right[0] > 99


def test_the_trtexec_command_has_the_shapes_and_no_option_that_tensorrt_11_removed() -> None:
    config = wb.BuilderConfig()
    profile = wb.OptimizationProfile()
    profile.set_shape("image", (1, 1, 8, 8), (8, 1, 8, 8), (64, 1, 8, 8))
    config.add_optimization_profile(profile)
    config.default_precision = wb.DataType.INT8
    config.clear_flag(wb.BuilderFlag.TF32)
    line = wb.trtexec_line("my model.onnx", config)
    assert line == (
        "trtexec '--onnx=my model.onnx' --stronglyTyped --minShapes=image:1x1x8x8 "
        "--optShapes=image:8x1x8x8 --maxShapes=image:64x1x8x8 --builderOptimizationLevel=3 "
        "--memPoolSize=workspace:1024M --noTF32 '--saveEngine=my model.engine'"
    )
