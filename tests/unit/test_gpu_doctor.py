from __future__ import annotations

import ctypes
import importlib.util

import pytest

from workbench import gpu_doctor
from workbench.cli import doctor, main
from workbench.records import Refusal
from workbench.tactics.cudnn import CUDNN
from workbench.tactics.gpu_libraries import Library
from workbench.tactics.triton import TRITON

MISSING = ("cupy", "triton")


@pytest.mark.parametrize(
    ("installed", "expected"),
    [
        (
            {},
            "CuPy is not installed: builds run on the CPU until it is. Mend: python -m pip install",
        ),
        ({"cupy-cuda12x": "14.0"}, "cupy-cuda12x 14.0"),
        ({"cupy-cuda13x": "14.0"}, "cupy-cuda13x 14.0"),
        ({"cupy-cuda12x": "14", "cupy-cuda13x": "14"}, "uninstall -y cupy-cuda12x cupy-cuda13x"),
    ],
)
def test_each_state_of_the_packages_is_said_with_what_mends_it(installed, expected):
    assert expected in "\n".join(gpu_doctor.package_lines(installed))


class Driver:
    def __init__(self, code: int) -> None:
        self.code = code

    def cuInit(self, flags: int) -> int:  # noqa: N802 (the driver's own name)
        return self.code

    def cuDriverGetVersion(self, pointer) -> int:  # noqa: N802
        pointer._obj.value = 13000
        return 0


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (0, "NVIDIA driver: CUDA 13.0"),
        (100, "CUDA initialization failure with error 100"),
        (803, "restart the machine"),
        (35, "older than the CUDA that CuPy brings"),
        (42, "error 42: the driver says no more"),
    ],
)
def test_the_drivers_answer_is_explained(monkeypatch, code, expected):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver(code))
    assert expected in gpu_doctor.driver_line()


def test_a_machine_without_a_driver_is_told_that_the_cpu_is_the_device(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert "the CPU is the device" in gpu_doctor.driver_line()


def test_another_frontend_than_the_one_cudnn_is_made_for_is_named():
    (line,) = gpu_doctor.frontend_lines({"nvidia-cudnn-frontend": "1.32.0"})
    assert f"pip install 'nvidia-cudnn-frontend=={gpu_doctor.FRONTEND_SERIES}.*'" in line
    assert gpu_doctor.frontend_lines({"nvidia-cudnn-frontend": "1.26.1"}) == []


def test_a_machine_without_cupy_is_told_so_once_with_what_follows(capsys, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in MISSING else found(name)
    )
    monkeypatch.setattr(gpu_doctor, "installed_packages", dict)
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = (x for x in lines if "CuPy is not installed" in x)
    assert "builds run on the CPU" in line and "inference-workbench[gpu-cuda13]" in line
    (line,) = (x for x in lines if "gpu: unavailable without CuPy" in x)
    assert line.split("gpu:")[0].split() == ["CUDNN,", "CUBLAS_LT,", "WGMMA,", "NVRTC"]
    assert "  libcudart, NVRTC, cuBLASLt: needs CuPy, which loads it" in lines
    (line,) = (x for x in lines if "Triton is not installed" in x)
    assert "TRITON" in line


def test_a_broken_cupy_is_said_once_of_all_that_it_loads(capsys, monkeypatch):
    broken = Refusal("CuPy is broken", remedy="reinstall it")
    rows = (
        Library("libcudart", missing=broken),
        Library("NVRTC", missing=broken),
        Library("x", "1"),
    )
    monkeypatch.setattr(doctor, "gpu_libraries", lambda: rows)
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "  libcudart, NVRTC: CuPy is broken; reinstall it\n  x: 1\n" in text


def test_what_a_tactic_source_lacks_is_said_by_the_source_alone(capsys, monkeypatch):
    # The system's cuDNN, say: no distribution of it is installed, and its source finds it.
    monkeypatch.setattr(type(CUDNN), "unavailable", lambda self: None)
    missing = Refusal("Triton is not here", remedy="install Triton")
    monkeypatch.setattr(type(TRITON), "unavailable", lambda self: missing)
    monkeypatch.setattr(doctor, "gpu_libraries", tuple)
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "gpu: ready" in text and "Triton is not here; install Triton" in text
    assert "nvidia-cudnn-cu" not in text
