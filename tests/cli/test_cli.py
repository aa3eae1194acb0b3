from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from workbench.bundle import bundled
from workbench.cli import main
from workbench.cli.lab import copy_lessons

MODEL = bundled("datasets", "digits_cnn.onnx")
SHAPES = "image=1x1x8x8,4x1x8x8,8x1x8x8"


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Path:
    """A plan built by the command line at level 0."""
    folder = tmp_path_factory.mktemp("plan")
    target = folder / "digits.plan"
    options = ["--shapes", SHAPES, "--level", "0", "--threads", "1", "--save-plan", str(target)]
    assert main(["build", str(MODEL), *options]) == 0
    return target


def lines_of_error(capsys, arguments) -> str:
    """What a failing command prints on stderr; it must be no traceback."""
    assert main(arguments) == 1
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return text


def test_build_prints_the_device_first_then_a_line_a_stage(tmp_path, capsys):
    options = ["--shapes", SHAPES, "--level", "0", "--save-plan", str(tmp_path / "p.plan")]
    assert main(["build", str(MODEL), *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Device: CPU")
    stages = "Parse Fold Profiles Precision Calibrate Fuse Tune Memory Serialize".split()
    assert [line.split("]")[1].split()[0] for line in lines[1:10]] == stages
    assert "20 ONNX nodes → 8 layers" in "\n".join(lines)


def test_a_built_plan_runs_and_its_profile_sums_up(plan, capsys):
    assert main(["run", str(plan), "--iterations", "3", "--batches", "4"]) == 0
    text = capsys.readouterr().out
    assert "Inputs: random (seed 0)" in text
    assert "(residual)" in text
    assert "end to end" in text
    assert "4 batches of host arrays" in text and "ms each pipelined" in text


def test_a_second_build_with_the_saved_timings_times_nothing_and_is_byte_identical(
    tmp_path, capsys
):
    cache, plans = tmp_path / "timing.json", [tmp_path / "a.plan", tmp_path / "b.plan"]
    for target in plans:
        options = ["--shapes", SHAPES, "--level", "1", "--threads", "1"]
        options += ["--timing-cache", str(cache), "--save-plan", str(target)]
        assert main(["build", str(MODEL), *options]) == 0
    assert "] Tune" in (text := capsys.readouterr().out)
    assert " 0 tactics timed" in text.split("Device:")[2]
    assert plans[0].read_bytes() == plans[1].read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "nowhere.onnx"], "nowhere.onnx"),
        (["build", str(MODEL)], "--shapes image=1x1x8x8"),
        (
            ["search", str(MODEL), "--tolerance", "0.01", "--calibration", "x.npz"],
            "--shapes image=1x1x8x8",
        ),
        (["build", str(MODEL), "--shapes", "image=1x1"], "INPUT=MIN,OPT,MAX"),
        (["build", str(MODEL), "--shapes", "image=4x1x8x8,2x1x8x8,8x1x8x8"], "not in order"),
        (["build", str(MODEL), "--precision", "UINT8"], "UINT8 cannot be requested"),
        (["build", str(MODEL), "--shapes", SHAPES, "--precision", "INT8"], "no calibration data"),
        (["build", str(MODEL), "--device", "tpu"], "no device is called 'tpu'"),
        (["build", str(MODEL), "--layer-precision", "INT8"], "PATTERN=TYPE"),
        (["run", "nowhere.plan"], "nowhere.plan"),
    ],
)
def test_a_wrong_argument_is_one_line_that_names_it(capsys, arguments, message):
    assert message in lines_of_error(capsys, arguments)


def test_files_that_are_something_else_are_refused_by_name(tmp_path, plan, capsys):
    text = tmp_path / "text.onnx"
    text.write_text("hello")
    assert "text.onnx" in lines_of_error(capsys, ["build", str(text)])
    assert str(tmp_path) in lines_of_error(capsys, ["build", str(tmp_path)])
    assert "damaged" in lines_of_error(capsys, ["run", str(text)])
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(MODEL.read_bytes()[:5000])
    assert "cut.onnx" in lines_of_error(capsys, ["build", str(cut)])
    broken = tmp_path / "broken.plan"
    data = bytearray(plan.read_bytes())
    data[len(data) // 2] ^= 1
    broken.write_bytes(data)
    assert "damaged" in lines_of_error(capsys, ["run", str(broken)])


def test_wrong_inputs_of_a_plan_are_named(tmp_path, plan, capsys):
    wrong = tmp_path / "wrong.npz"
    np.savez(wrong, picture=np.zeros((1, 1, 8, 8), np.float32))
    assert "'image'" in lines_of_error(capsys, ["run", str(plan), "--inputs", str(wrong)])
    missing = tmp_path / "missing.npz"
    assert "missing.npz" in lines_of_error(capsys, ["run", str(plan), "--inputs", str(missing)])


def test_doctor_says_what_is_installed_and_ends_well_without_a_gpu(capsys):
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    for expected in ("numpy", "ONEDNN", "NUMBA", "NUMPY", "GPU:"):
        assert expected in text


def test_lessons_are_copied_once_and_never_overwritten(tmp_path):
    assert copy_lessons(tmp_path) >= 1
    lesson = tmp_path / "01_first_engine.ipynb"
    lesson.write_text("mine")
    assert copy_lessons(tmp_path) == 0
    assert lesson.read_text() == "mine"


def test_importing_the_package_is_fast_and_loads_no_heavy_library():
    heavy = "onnx pandas plotly numba ipywidgets IPython cupy".split()
    code = (
        "import sys, time; t = time.perf_counter(); import workbench; "
        "print(time.perf_counter() - t, *[m for m in sys.argv[1:] if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, *heavy]
    first = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert float(first[0]) < 0.5
    assert first[1:] == []


def test_the_runtime_alone_loads_neither_onnx_pandas_nor_plotly():
    code = "import sys, workbench.runtime; print(*[m for m in sys.argv[1:] if m in sys.modules])"
    command = [sys.executable, "-c", code, "onnx", "pandas", "plotly", "ipywidgets", "IPython"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert found == []
