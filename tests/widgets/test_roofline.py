"""The roofline: ceilings are measured, each layer's floor follows from its work, and is drawn."""

from __future__ import annotations

import numpy as np
import pytest

import workbench as wb
from widgets.figures import roofline_figure
from workbench.datatypes import DataType
from workbench.devices import open_device
from workbench.lab import Ceilings, measure_ceilings
from workbench.lab import ceilings as measured
from workbench.reports import roofline_rows
from workbench.session import Session


@pytest.fixture(scope="module")
def ceilings() -> Ceilings:
    with pytest.MonkeyPatch.context() as patch:  # small ones: the method is tried, not the machine
        patch.setitem(measured.ELEMENTS, "cpu", 1 << 20)
        patch.setitem(measured.EDGE, "cpu", 128)
        return measure_ceilings(open_device("cpu"))


@pytest.fixture(scope="module")
def run():
    session = Session(wb.bundled("datasets", "digits_cnn.onnx"))
    session.do(*session.suggested_profile())
    state = session.run()
    inputs, _ = session.example_inputs(1)
    engine = state.engine()
    profile = engine.create_execution_context().profile(inputs, iterations=3)
    return state.plan, profile, engine.bindings_of({n: a.shape for n, a in inputs.items()})


def test_a_layer_is_bound_by_what_takes_it_longer_at_the_ceilings(run, ceilings: Ceilings):
    rows = roofline_rows(*run, ceilings)
    memory = rows["MB"] * 1e12 / ceilings.bytes_per_s
    arithmetic = rows["MFLOP"] * 1e12 / ceilings.flops_per_s[DataType.FLOAT]
    np.testing.assert_allclose(rows["Floor (µs)"], np.maximum(memory, arithmetic))
    assert list(rows["Bound by"] == "memory") == list(memory >= arithmetic)
    np.testing.assert_allclose(
        rows["Of the ceiling (%)"], 100 * rows["Floor (µs)"] / rows["Median (µs)"]
    )


def test_a_convolution_s_work_is_two_operations_a_weight_and_place(run, ceilings: Ceilings):
    plan, _, sizes = run
    rows = roofline_rows(*run, ceilings).set_index("Layer")
    step = next(s for s in plan.steps if s.name == "node_Conv_82")
    n, k, h, w = step.body.substitute(sizes).output_types[0].shape
    weights = plan.weights[step.constants[0]].size
    products = 2 * n * h * w * weights
    assert products <= 1e6 * rows.loc["node_Conv_82", "MFLOP"] <= products * 1.1
    assert k * weights > 0


def test_the_figure_names_the_kernels_that_set_the_ceilings(run, ceilings: Ceilings):
    figure = roofline_figure(roofline_rows(*run, ceilings), ceilings)
    assert ceilings.kernels["bytes"] in figure.layout.title.text
    line, dots = figure.data
    assert max(line.y) == pytest.approx(ceilings.flops_per_s[DataType.FLOAT] / 1e9)
    assert "node_Conv_82" in [c[0] for c in dots.customdata]
