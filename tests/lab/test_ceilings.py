"""Ceilings are measured on what a device has to work for."""

from __future__ import annotations

import numpy as np
import pytest

from workbench.body import TensorType
from workbench.datatypes import DataType
from workbench.devices import open_device
from workbench.lab import ceilings
from workbench.lab.ceilings import measure_ceilings


@pytest.mark.parametrize("kind", [DataType.FLOAT, DataType.INT8])
def test_products_are_timed_on_weights_that_vary(monkeypatch, kind):
    seen = []
    monkeypatch.setattr(ceilings, "EDGE", {"cpu": 64})
    monkeypatch.setattr(ceilings, "ELEMENTS", {"cpu": 1 << 12})
    made = ceilings.LayerProblem
    monkeypatch.setattr(ceilings, "LayerProblem", lambda *a: seen.append(a[3]) or made(*a))
    found = measure_ceilings(open_device("cpu", threads=1), (kind,))
    weights = next(w for given in seen for w in given.values() if w.ndim == 2)
    assert len(np.unique(weights)) > 100 and not np.array_equal(weights[0], weights[1])
    assert found.flops_per_s[kind] > 0


def test_a_large_product_has_no_two_equal_rows():
    weights = ceilings._weights(TensorType(DataType.HALF, (2048, 4096)))
    assert len({row.tobytes() for row in weights}) == 2048
