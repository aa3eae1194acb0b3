"""BLAS within a kernel of ours: on as many threads as agreed, and afterwards as before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from workbench.builder import run_stages, start
from workbench.config import BuilderConfig, OptimizationProfile
from workbench.records import Stage
from workbench.selection import trial
from workbench.tactics import blas_threads
from workbench.tactics.blas_threads import on_threads
from workbench.tactics.onednn.library import Library, Unavailable, load

DATASETS = Path(__file__).parents[2] / "datasets"


class FakeBlas:
    """A BLAS whose thread count is a number."""

    def __init__(self) -> None:
        self.count = 4

    def control(self) -> blas_threads.Control:
        def put(count: int) -> None:
            self.count = count

        return blas_threads.Control(lambda: self.count, put)


def test_a_product_runs_on_the_agreed_threads_and_leaves_the_others_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blas, seen = FakeBlas(), list[int]()
    monkeypatch.setattr(blas_threads, "_control", blas.control)
    on_threads(lambda: seen.append(blas.count), 1)()
    assert (seen, blas.count) == ([1], 4)


def test_a_product_that_fails_leaves_the_others_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    blas = FakeBlas()
    monkeypatch.setattr(blas_threads, "_control", blas.control)

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        on_threads(fail, 1)()
    assert blas.count == 4


def test_without_onednn_blas_uses_every_thread_that_a_kernel_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blas_threads, "load", lambda: Unavailable("none here", "use Linux"))
    assert blas_threads.blas_threads(3) == 3


def test_while_a_network_is_tuned_on_a_cpu_blas_computes_on_one_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its other threads would spin after the reference's products, beside what is timed."""
    if not isinstance(load(), Library):
        return  # BLAS runs the tactics then
    blas, seen = FakeBlas(), set[int]()
    monkeypatch.setattr(blas_threads, "_control", blas.control)
    reference = trial.expect

    def expect(*given: Any, **options: Any) -> Any:
        seen.add(blas.count)
        return reference(*given, **options)

    monkeypatch.setattr(trial, "expect", expect)
    config = BuilderConfig()
    config.num_threads = 2
    config.add_optimization_profile(OptimizationProfile().set_shape("image", *[(1, 1, 8, 8)] * 3))
    run_stages(start(DATASETS / "digits_cnn.onnx", config), until=Stage.TUNE)
    assert seen == {1}
    assert blas.count == 4
