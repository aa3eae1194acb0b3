"""When a build on a GPU compiles its kernels."""

from __future__ import annotations

import threading

import pytest

from workbench.builder import build
from workbench.bundle import bundled
from workbench.config import BuilderConfig, OptimizationProfile
from workbench.datatypes import DataType
from workbench.tactics.nvrtc import source as nvrtc
from workbench.tactics.wgmma import source as wgmma

pytestmark = pytest.mark.gpu


def test_kernels_are_compiled_side_by_side_before_the_first_is_timed(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    own, beside, compile_text = list[str](), list[str](), nvrtc.compile_text

    def noted(cupy, text, target):
        main = threading.current_thread() is threading.main_thread()
        (own if main else beside).append(text)
        return compile_text(cupy, text, target)

    for module in (nvrtc, wgmma):
        monkeypatch.setattr(module, "compile_text", noted)
    config = BuilderConfig()
    config.default_precision = DataType.HALF
    config.builder_optimization_level = 2
    config.add_optimization_profile(
        OptimizationProfile().set_shape("image", (1, 1, 8, 8), (32, 1, 8, 8), (64, 1, 8, 8))
    )
    build(bundled("datasets", "digits_cnn.onnx"), config, device="gpu")
    assert beside, "the build finds no code on this machine"
    assert not own, own[0]
