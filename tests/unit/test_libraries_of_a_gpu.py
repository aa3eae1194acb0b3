"""The doctor loads each library of a GPU build, and says its version or what is missing."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace

import pytest

from workbench.cli import main
from workbench.errors import DeviceError
from workbench.records import Refusal
from workbench.tactics import gpu_libraries as libraries
from workbench.tactics.compile_processes import CompileError
from workbench.tactics.gpu_libraries import gpu_libraries

NAMES = ["libcudart", "NVRTC", "cuBLASLt", "cuDNN", "Triton"]


class Runtime:
    """CuPy, as far as the doctor asks it."""

    def __init__(self, version=12090, fails=None):
        def asked():
            if fails is not None:
                raise fails
            return version

        nvrtc = SimpleNamespace(getVersion=lambda: (12, 9))
        self.cuda = SimpleNamespace(runtime=SimpleNamespace(runtimeGetVersion=asked), nvrtc=nvrtc)


@pytest.fixture
def everything(monkeypatch):
    """A machine that has all of them."""
    cublas = SimpleNamespace()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(name=name))
    monkeypatch.setattr(importlib, "import_module", lambda name: SimpleNamespace(__version__="3.6"))
    monkeypatch.setattr(libraries, "import_cupy", Runtime)
    monkeypatch.setattr(libraries, "compile_text", lambda *given: b"code")
    monkeypatch.setattr(libraries, "load", lambda: cublas)
    monkeypatch.setattr(libraries, "library_version", lambda found: 120902)
    monkeypatch.setattr(libraries, "file_of", lambda found: "/lib/libcublasLt.so.12")
    monkeypatch.setattr(libraries, "load_cudnn", lambda: cublas)
    monkeypatch.setattr(libraries, "cudnn_versions", lambda: "9.19.1+1.26.0")


def texts():
    return {x.name: str(x) for x in gpu_libraries()}


def test_each_library_that_loads_says_its_version(everything):
    assert list(texts()) == NAMES
    assert texts() == {
        "libcudart": "libcudart: 12.9",
        "NVRTC": "NVRTC: 12.9, compiles for sm_80 (4 bytes)",
        "cuBLASLt": "cuBLASLt: 12.9.2, /lib/libcublasLt.so.12",
        "cuDNN": "cuDNN: 9.19.1, frontend 1.26.0",
        "Triton": "Triton: 3.6",
    }


def test_each_library_that_is_missing_says_so_with_the_remedy(everything, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    gone = Refusal("it is not found", remedy="install it")
    monkeypatch.setattr(libraries, "load", lambda: gone)
    monkeypatch.setattr(libraries, "load_cudnn", lambda: gone)
    found = texts()
    assert list(found) == NAMES
    for name in ("libcudart", "NVRTC", "cuBLASLt"):
        assert found[name] == f"{name}: needs CuPy, which loads it"
    assert "it is not found; install it" in found["cuDNN"]
    assert all("install" in found[n] for n in ("cuDNN", "Triton"))


@pytest.mark.parametrize("error", [OSError("libcudart.so.12"), RuntimeError("no symbol")])
def test_a_library_that_does_not_load_gives_the_loaders_words(everything, monkeypatch, error):
    monkeypatch.setattr(libraries, "import_cupy", lambda: Runtime(fails=error))
    assert f"it does not load: {error}" in texts()["libcudart"]


def test_an_nvrtc_that_compiles_nothing_is_no_working_one(everything, monkeypatch):
    def fails(*given):
        raise CompileError("no such architecture")

    monkeypatch.setattr(libraries, "compile_text", fails)
    assert "compiles no kernel: no such architecture" in texts()["NVRTC"]


def test_a_broken_cupy_is_told_once_for_each_library_that_it_loads(everything, monkeypatch):
    def broken():
        raise DeviceError("CuPy is not installed (numpy is too new)", remedy="reinstall")

    monkeypatch.setattr(libraries, "import_cupy", broken)
    assert "numpy is too new); reinstall" in texts()["libcudart"]


def test_the_doctor_lists_them_all(capsys):
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert all(n in text.partition("GPU:")[2] for n in NAMES)
    assert "device 'gpu': none" in text or "device 'gpu': GPU 0" in text
