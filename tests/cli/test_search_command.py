"""``workbench search``: from an ONNX file to a config that keeps accuracy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

import workbench as wb
from workbench.bundle import bundled
from workbench.cli import main


def test_a_search_prints_its_questions_and_saves_the_config(tmp_path: Path, capsys) -> None:
    data = np.load(bundled("datasets", "digits.npz"))
    np.savez(tmp_path / "c.npz", image=data["calibration_images"][:64])
    np.savez(tmp_path / "s.npz", image=data["test_images"][:64], y=data["test_labels"][:64])
    saved, record = tmp_path / "found.json", tmp_path / "trials.json"
    options = [
        "search",
        str(bundled("datasets", "digits_cnn_rescaled.onnx")),
        *("--tolerance", "2", "--metric", "accuracy", "--labels", "y"),
        *("--calibration", str(tmp_path / "c.npz"), "--samples", str(tmp_path / "s.npz")),
        *("--shapes", "image=1x1x8x8,8x1x8x8,32x1x8x8", "--level", "0", "--threads", "1"),
        *("--save-config", str(saved), "--record", str(record)),
    ]
    assert main(options) == 0
    text = capsys.readouterr().out
    assert "keep node_Conv" in text and "products in INT8" in text
    config = wb.BuilderConfig.from_json(json.loads(saved.read_text()))
    assert config.default_precision is wb.DataType.INT8
    assert config.precisions
    assert main(options) == 0
    assert f"of them from {record}" in capsys.readouterr().out


def test_labels_that_are_not_there_are_named(tmp_path: Path, capsys) -> None:
    np.savez(tmp_path / "c.npz", image=np.zeros((4, 1, 8, 8), np.float32))
    options = [
        "search",
        str(bundled("datasets", "digits_cnn.onnx")),
        *("--tolerance", "1", "--calibration", str(tmp_path / "c.npz")),
        *("--labels", "z"),
        *("--shapes", "image=1x1x8x8,8x1x8x8,32x1x8x8"),
    ]
    assert main(options) == 1
    assert "it has no array 'z' (it has image)" in capsys.readouterr().err
