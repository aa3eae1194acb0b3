"""The roofline: ceilings are measured, each layer's floor follows from its work, and is drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
from digits import quick_session

from widgets.figures import roofline_figure
from workbench.datatypes import DataType
from workbench.devices import open_device
from workbench.lab import Ceilings, measure_ceilings
from workbench.lab import ceilings as measured
from workbench.reports import arithmetic_types, layer_work, roofline_rows


def run(kind: DataType) -> SimpleNamespace:
    """A plan of the digits model, its profile and the sizes of that run."""
    session = quick_session(kind)
    state = session.run()
    inputs, _ = session.example_inputs(1)
    engine = state.engine()
    profile = engine.create_execution_context().profile(inputs, iterations=3)
    sizes = engine.bindings_of({n: a.shape for n, a in inputs.items()})
    return SimpleNamespace(plan=state.plan, profile=profile, sizes=sizes)


@pytest.fixture(scope="module")
def single() -> SimpleNamespace:
    return run(DataType.FLOAT)


@pytest.fixture(scope="module")
def quantized() -> SimpleNamespace:
    return run(DataType.INT8)


def given(flops_per_s: Mapping[DataType, float], *, bytes_per_s: float = 1e9) -> Ceilings:
    """Ceilings of a machine that there is not."""
    kernels = {"bytes": "copy kernel", **{k.info.label: "product kernel" for k in flops_per_s}}
    return Ceilings(open_device("cpu").fingerprint, 1, bytes_per_s, flops_per_s, kernels)


def rows_of(ran: SimpleNamespace, ceilings: Ceilings) -> pd.DataFrame:
    return roofline_rows(layer_work(ran.plan, ran.sizes), ran.profile, ceilings)


def test_a_convolution_is_bound_by_arithmetic_and_a_mean_by_memory(single: SimpleNamespace):
    # At batch 8 the second convolution reads 8·32·8·8 values and as many again are written, with
    # 32·32·3·3 weights and 32 biases: 168,064 bytes; it makes 8·32·8·8 · 32·3·3 products and sums.
    assert single.sizes == {"batch": 8}
    rows = rows_of(single, given({DataType.FLOAT: 1e9})).set_index("Layer")
    convolution, mean = rows.loc["node_Conv_82"], rows.loc["node_mean"]
    assert convolution["MB"] == pytest.approx(0.168064)
    assert convolution["Bound by"] == "arithmetic"
    assert convolution["Floor (µs)"] == pytest.approx(9437, rel=0.01)
    # The mean reads 8·64·4·4 values and writes 8·64.
    assert mean["MB"] == pytest.approx(0.034816)
    assert mean["Bound by"] == "memory"
    assert mean["Floor (µs)"] == pytest.approx(34.816)


def test_a_faster_product_leaves_the_same_convolution_bound_by_memory(single: SimpleNamespace):
    rows = rows_of(single, given({DataType.FLOAT: 1e12})).set_index("Layer")
    assert rows.loc["node_Conv_82", "Bound by"] == "memory"
    assert rows.loc["node_Conv_82", "Floor (µs)"] == pytest.approx(168.064)


def test_a_layer_whose_ceiling_was_not_measured_is_judged_by_no_other(quantized: SimpleNamespace):
    rows = rows_of(quantized, given({DataType.FLOAT: 1e9})).set_index("Layer")
    convolution = rows.loc["node_Conv_82"]
    assert convolution["Executed"] == "INT8"
    assert convolution["Bound by"] == ""
    assert math.isnan(convolution["Floor (µs)"])
    assert math.isnan(convolution["Of the ceiling (%)"])
    assert convolution["Note"] == "INT8: ceiling not measured"
    assert rows.loc["node_mean", "Bound by"] == "memory"
    assert rows.loc["node_mean", "Note"] == ""


def test_a_layer_in_int8_is_judged_by_the_ceiling_of_int8(quantized: SimpleNamespace):
    known = given({DataType.FLOAT: 1e6, DataType.INT8: 1e9})
    convolution = rows_of(quantized, known).set_index("Layer").loc["node_Conv_82"]
    assert convolution["Bound by"] == "arithmetic"
    assert convolution["Floor (µs)"] == pytest.approx(9437, rel=0.02)
    assert convolution["Note"] == ""


def test_the_types_whose_ceilings_a_plan_needs(single: SimpleNamespace, quantized: SimpleNamespace):
    assert arithmetic_types(layer_work(single.plan, single.sizes)) == (DataType.FLOAT,)
    needed = arithmetic_types(layer_work(quantized.plan, quantized.sizes))
    assert set(needed) == {DataType.FLOAT, DataType.INT8}


def test_the_figure_names_the_kernels_that_set_the_ceilings(single: SimpleNamespace):
    known = given({DataType.FLOAT: 2e9})
    figure = roofline_figure(rows_of(single, known), known)
    assert "copy kernel" in figure.layout.title.text
    line, dots = figure.data
    assert line.hovertemplate.startswith("product kernel")
    assert max(line.y) == pytest.approx(2)
    found = {name: judged for name, _, judged in dots.customdata}
    assert found["node_mean"].startswith("bound by memory, ")


@pytest.mark.parametrize(
    "kernel",
    ["cudnn FP32 engine 0", "cublasLt FP32 TF32 algorithm 43", "triton gemm 128x128x32 tf32"],
)
def test_a_ceiling_of_float32_that_rounds_to_tf32_says_so(single: SimpleNamespace, kernel: str):
    known = given({DataType.FLOAT: 4.59e14})
    rounded = replace(known, kernels={**known.kernels, "FP32": kernel})
    line, _ = roofline_figure(rows_of(single, rounded), rounded).data
    assert line.name == "FP32 by TF32: 459,000 GFLOP/s"


def test_integers_have_operations_not_floating_point_ones(quantized: SimpleNamespace):
    known = given({DataType.FLOAT: 2e9, DataType.INT8: 8e9})
    figure = roofline_figure(rows_of(quantized, known), known)
    names = [t.name for t in figure.data if t.mode == "lines"]
    assert names == ["FP32: 2 GFLOP/s", "INT8: 8 GOP/s"]
    assert figure.layout.yaxis.title.text == "GFLOP/s (integers: GOP/s)"


def test_the_figure_says_which_ceiling_was_not_measured(quantized: SimpleNamespace):
    known = given({DataType.FLOAT: 1e9})
    figure = roofline_figure(rows_of(quantized, known), known)
    dots = {t.name: t for t in figure.data if t.mode == "markers"}
    assert set(dots) == {"layers in FP32", "layers in INT8: ceiling not measured"}
    unknown = dots["layers in INT8: ceiling not measured"].customdata
    assert {judged for _, _, judged in unknown} == {"INT8: ceiling not measured"}


def test_ceilings_are_measured_in_the_types_that_kernels_multiply(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(measured.ELEMENTS, "cpu", 1 << 18)  # the method is tried, not the machine
    monkeypatch.setitem(measured.EDGE, "cpu", 64)
    kinds = (DataType.FLOAT, DataType.BF16, DataType.HALF, DataType.INT8, DataType.INT64)
    found = measure_ceilings(open_device("cpu"), kinds)
    assert tuple(found.flops_per_s) == kinds[:-1]
    assert set(found.kernels) == {"bytes", "FP32", "BF16", "FP16", "INT8"}
    assert min(found.bytes_per_s, *found.flops_per_s.values()) > 0
