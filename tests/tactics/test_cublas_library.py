"""Which cuBLASLt is loaded: the one of CuPy's CUDA, or none, with what was found; needs no GPU."""

from __future__ import annotations

import sys

import pytest

from workbench.errors import DeviceError
from workbench.records import Refusal
from workbench.tactics.cublas_lt import library


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A machine with the wheels of CUDA 12 and CUDA 13 side by side, and nothing else."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(library, "SYSTEM", ())
    for place, major in (("cublas", 12), ("cu13", 13)):
        lib = tmp_path / "nvidia" / place / "lib"
        lib.mkdir(parents=True)
        (lib / f"libcublasLt.so.{major}").touch()
    library.load.cache_clear()
    yield tmp_path
    library.load.cache_clear()


def loading(monkeypatch, version, refused=()):
    """Which path is loaded under CuPy's CUDA ``version``."""

    def loads(path):
        if any(part in path for part in refused) or "/" not in path:
            raise OSError(f"{path}: cannot open shared object file")
        return path

    monkeypatch.setattr(library, "cuda_version", lambda: version)
    monkeypatch.setattr(library.ctypes, "CDLL", loads)
    return library.load()


@pytest.mark.parametrize(("version", "place"), [((12, 9), "cublas"), ((13, 0), "cu13")])
def test_the_one_of_cupys_cuda_is_taken_where_both_are_there(folder, monkeypatch, version, place):
    wanted = folder / "nvidia" / place / "lib" / f"libcublasLt.so.{version[0]}"
    assert loading(monkeypatch, version) == str(wanted)


def test_one_of_another_major_version_is_refused_and_named(folder, monkeypatch):
    found = loading(monkeypatch, (13, 1), refused=["cu13"])
    assert isinstance(found, Refusal) and found.code == "library"
    assert found.reason.startswith("libcublasLt.so.13 is needed beside CuPy's CUDA 13.1")
    assert str(folder / "nvidia" / "cublas" / "lib" / "libcublasLt.so.12") in found.reason
    assert "pip install" in found.remedy


def test_without_cupy_it_says_so(folder, monkeypatch):
    def missing():
        raise DeviceError("CuPy is not installed", remedy="install it")

    monkeypatch.setattr(library, "cuda_version", missing)
    found = library.load()
    assert isinstance(found, Refusal) and found.reason == "CuPy is not installed"


def test_what_a_file_links_to_is_not_counted_again(folder):
    lib = folder / "nvidia" / "cublas" / "lib"
    (lib / "libcublasLt.so.12.9.1").touch()
    assert [p.rpartition("/")[2] for p in library.files()] == [
        "libcublasLt.so.13",
        "libcublasLt.so.12",
    ]
