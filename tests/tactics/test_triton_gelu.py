"""The curves that Triton kernels compute GELU by, against the error function."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from workbench.tactics.triton.kernel import HELPERS

TL = SimpleNamespace(
    maximum=lambda a, b, propagate_nan: np.maximum(a, np.float32(b)),
    minimum=lambda a, b: np.fmin(a, np.float32(b)),
    abs=np.abs,
    exp2=np.exp2,
    PropagateNan=SimpleNamespace(ALL=None),
)


def curve(name: str) -> Callable[[np.ndarray], np.ndarray]:
    found: dict[str, Any] = {"tl": TL, "triton": SimpleNamespace(jit=lambda f: f)}
    exec(HELPERS[name], found)
    return found[name]


def exact(x: np.ndarray) -> np.ndarray:
    return np.array([v * 0.5 * math.erfc(-v / math.sqrt(2)) for v in x.astype(np.float64)])


@pytest.mark.parametrize(
    ("name", "absolute", "near"), [("long_gelu", 4e-7, 2e-6), ("short_gelu", 4e-5, 5e-5)]
)
def test_gelu_follows_the_error_function(name: str, absolute: float, near: float) -> None:
    x = np.linspace(-20, 20, 40_001, dtype=np.float32)
    found, wanted = curve(name)(x), exact(x)
    far = np.abs(x) > 4.25
    assert np.abs(found - wanted)[~far].max() < absolute
    assert (np.abs(found - wanted)[far] / np.abs(x[far])).max() < absolute
    middle = (np.abs(x) < 1) & (x != 0)
    assert (np.abs(found - wanted)[middle] / np.abs(wanted[middle])).max() < near


@pytest.mark.parametrize("name", ["long_gelu", "short_gelu"])
def test_gelu_of_a_large_negative_number_is_nearly_zero_and_nan_stays(name: str) -> None:
    found = curve(name)(np.array([-1e4, -60_000, np.nan], np.float32))
    assert np.abs(found[:2]).max() < 4e-5
    assert np.isnan(found[2])
