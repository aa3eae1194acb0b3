"""Figures of number formats say what the formats' definitions say."""

from __future__ import annotations

import numpy as np
import pytest

import workbench as wb
from widgets.figures.formats import spacing_figure, tensor_types_figure
from workbench.reports import spacing_rows


def test_a_floats_relative_error_is_flat_and_an_integers_grows_as_numbers_shrink():
    rows = spacing_rows(("BF16", "INT8"))
    bf16, int8 = (
        rows[rows["Type"] == t].set_index("Magnitude")["Relative error (%)"]
        for t in ("BF16", "INT8")
    )
    assert bf16.max() == pytest.approx(100 * 2**-8 / (1 + 2**-8), rel=0.05)
    assert bf16.min() > 0.3 * bf16.max()
    assert int8.iloc[-1] < 0.5
    assert int8.iloc[0] == 100  # below half a step all is lost
    assert int8[int8.index > 0.1].max() < 5


def test_each_type_is_a_line_and_each_stored_tensor_a_point():
    figure = spacing_figure(spacing_rows(("FP16", "FP8", "INT8")))
    assert [t.name for t in figure.data] == ["FP16", "FP8 E4M3", "INT8"]
    tensor = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    points = tensor_types_figure(wb.type_table(tensor), "w").data[0]
    found = dict(zip(points.text, points.x, strict=True))
    assert found["BF16"] == 16
    assert 4 < found["INT4"] < 6
    assert "FP32" not in found  # nothing is lost: its SQNR is infinite
