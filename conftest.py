"""What every test runs under: hypothesis profiles, the gpu marker, how notebooks are compared."""

from __future__ import annotations

import functools
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# A deadline would measure the machine, not the code: kernels are compiled at their first use.
settings.register_profile("default", deadline=None, max_examples=50)
settings.register_profile(
    "ci",
    deadline=None,
    max_examples=25,
    derandomize=True,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("ci" if os.environ.get("CI") else "default")

NOT_COMPARED = (
    "text/html",
    "image/svg+xml",
    "application/vnd.plotly.v1+json",
    "application/javascript",
    "stderr",
)
"""Beside nbval's own (pictures, widget views, counters): HTML carries random element names, and a
figure's layout may change with the version of what draws it."""


@functools.cache
def gpu_absence() -> str:
    """Why tests marked ``gpu`` cannot run here; empty if they can."""
    try:
        import cupy
    except ImportError as e:
        return f"no CuPy: {e}; install the extra gpu or gpu-cuda13"
    try:
        return "" if cupy.cuda.runtime.getDeviceCount() else "no CUDA device"
    except cupy.cuda.runtime.CUDARuntimeError as e:
        return f"no CUDA device: {e}"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-pictures",
        action="store_true",
        help="the browser test writes the README's picture, docs/studio.png",
    )


def pytest_collectstart(collector: Any) -> None:
    if hasattr(collector, "skip_compare"):  # a notebook
        collector.skip_compare += NOT_COMPARED


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        notebook = getattr(item.parent, "nb", None)
        if notebook is not None and notebook.metadata.get("requires") == "gpu":
            item.add_marker(pytest.mark.gpu)
        if item.get_closest_marker("gpu") and gpu_absence():
            item.add_marker(pytest.mark.skip(reason=gpu_absence()))


def _skips_nothing_but_gpu(report: Any, *, gpu: bool) -> Any:
    """In CI a skip is a hole: it fails, unless the test needs a GPU."""
    if os.environ.get("CI") and report.skipped and not gpu and not hasattr(report, "wasxfail"):
        report.longrepr = f"{report.nodeid} was skipped in CI: {report.longrepr}"
        report.outcome = "failed"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    return _skips_nothing_but_gpu(report, gpu=item.get_closest_marker("gpu") is not None)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Any:
    return _skips_nothing_but_gpu((yield), gpu=False)
