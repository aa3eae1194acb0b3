from __future__ import annotations

import ctypes

import pytest

from workbench import gpu_doctor
from workbench.cli import doctor, main
from workbench.records import Refusal
from workbench.tactics.cudnn import CUDNN
from workbench.tactics.triton import TRITON


@pytest.mark.parametrize(
    ("installed", "expected"),
    [
        ({}, "no CuPy: python -m pip install 'inference-workbench[gpu]'"),
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
