"""BLAS within a kernel of ours: on as many threads as agreed, and afterwards as before."""

from __future__ import annotations

import pytest

from workbench.tactics import blas_threads
from workbench.tactics.blas_threads import on_threads
from workbench.tactics.onednn.library import Unavailable


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
