"""Generated CUDA C++ computes what its Body says: run on the host, thread after thread."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from host_cuda import run_on_host
from tactic_bodies import BODIES, Draft, quantized_sum

from workbench.body import Body, TensorType
from workbench.checks import expect
from workbench.datatypes import DataType
from workbench.formats import CHW32, HWC, LINEAR
from workbench.records import Refusal
from workbench.sampling import sample_inputs
from workbench.tactics.launch import reformat_body
from workbench.tactics.nvrtc import NVRTC
from workbench.tactics.nvrtc.frame import KernelText
from workbench.tactics.nvrtc.kernels import (
    Variant,
    kernel,
    layouts_of,
    reformat_kernel,
    variants,
)

COOPERATIVE = {"global_average_pool"}
"""Bodies of which every kernel shares a row among threads: these cannot be run one by one."""


def runnable(body: Body) -> dict[Variant, KernelText]:
    """Kernels whose threads do not talk to each other, the first and the last of each layout."""
    offered = variants(body)
    assert not isinstance(offered, Refusal), offered
    alone = {
        v: text
        for v in offered
        if dict(v.parameters).get("lanes", 1) == 1
        and not isinstance(text := kernel(body, v), Refusal)
    }
    first = {v.layout: v for v in reversed(alone)}
    last = {v.layout: v for v in alone}
    return {v: alone[v] for v in (*first.values(), *last.values())}


@pytest.mark.parametrize("name", [n for n in BODIES if n not in COOPERATIVE])
def test_a_kernel_gives_what_the_reference_gives(name):
    body = BODIES[name](2)
    values = sample_inputs(body, seed=0)
    exact = expect(body, values)
    kernels = runnable(body)
    assert kernels
    for v, text in kernels.items():
        outputs = run_on_host(body, text, values, *layouts_of(body, v))
        result = exact.check(outputs)
        assert result.passed, (v.name, v.layout, result.message)


@pytest.mark.parametrize("name", sorted(COOPERATIVE))
def test_what_is_left_out_has_no_kernel_that_could_run_here(name):
    assert not runnable(BODIES[name](2))


def test_what_the_kernels_refuse_says_why():
    body = BODIES["conv_depthwise"](1)
    refused = [r for v in variants(body) if isinstance(r := kernel(body, v), Refusal)]
    assert {r.reason for r in refused} == {"a tile would cross groups"}
    assert {v.layout for v in variants(body)} == {LINEAR, HWC}


@pytest.mark.parametrize(
    ("kind", "innermost", "widths"),
    [
        (DataType.FLOAT, 8, {4, 2, 1}),
        (DataType.FLOAT, 6, {2, 1}),
        (DataType.FLOAT, 7, {1}),
        (DataType.HALF, 24, {8, 4, 1}),
        (DataType.HALF, 12, {4, 1}),
    ],
)
def test_vectors_are_as_wide_as_sixteen_bytes_and_the_innermost_size_allow(kind, innermost, widths):
    d = Draft()
    offered = variants(d.body(d("Relu", d.input(3, innermost, dtype=kind))))
    assert not isinstance(offered, Refusal), offered
    assert {dict(v.parameters)["vector"] for v in offered} == widths


@pytest.mark.parametrize("kept", [0, 1])
def test_a_mean_of_each_channel_is_summed_as_an_image_lies_channels_last(kept):
    d = Draft()
    x = d("Relu", d.input(2, 20, 3, 5, dtype=DataType.HALF))
    y = d.anchored("ReduceMean", x, d.literal([2, 3], "int64"), keepdims=kept)
    body = d.body(d("Mul", y, d.literal(0.5, "float16")))
    offered = variants(body)
    assert not isinstance(offered, Refusal), offered
    (v,) = [v for v in offered if v.name == "pixels"]
    layouts, out = layouts_of(body, v)
    assert (list(layouts.values()), out) == ([HWC], LINEAR)
    text = kernel(body, v)
    assert isinstance(text, KernelText), text
    values = sample_inputs(body, seed=0)
    result = expect(body, values).check(run_on_host(body, text, values, layouts, out))
    assert result.passed, result.message


@pytest.mark.parametrize("kind", [DataType.INT8, DataType.FP8])
def test_a_mean_of_each_channel_is_quantized_as_it_is_written(kind):
    d = Draft()
    x = d.input(2, 20, 3, 5, dtype=DataType.HALF)
    y = d.anchored("ReduceMean", x, d.literal([2, 3], "int64"), keepdims=0)
    body = d.body(d("QuantizeLinear", y, d.weight(), output_dtype=kind))
    values = sample_inputs(body, seed=0)
    exact = expect(body, values)
    found = runnable(body)
    assert {v.name for v in found} == {"pixels", "rows 1x1"}
    for v, text in found.items():
        result = exact.check(run_on_host(body, text, values, *layouts_of(body, v)))
        assert result.passed, (v.name, result.message)


def test_an_image_that_becomes_rows_is_read_channels_last_and_written_linear_by_vectors():
    body = BODIES["patches_as_rows"](2)
    offered = variants(body)
    assert not isinstance(offered, Refusal), offered
    found = [v for v in offered if v.layout == HWC and v.name.startswith("pixels")]
    assert [dict(v.parameters)["vector"] for v in found] == [8, 4, 1]
    values = sample_inputs(body, seed=0)
    exact = expect(body, values)
    for v in found:
        layouts, out = layouts_of(body, v)
        image = body.dynamic_inputs[0].name
        assert [n for n, f in layouts.items() if f == HWC] == [image] and out == LINEAR
        text = kernel(body, v)
        assert isinstance(text, KernelText), text
        result = exact.check(run_on_host(body, text, values, layouts, out))
        assert result.passed, (v.name, result.message)


def test_int8_images_are_read_and_written_in_blocks_of_channels_that_they_fill():
    body = quantized_sum(64)
    values = sample_inputs(body, seed=0)
    exact = expect(body, values)
    found = {v: t for v, t in runnable(body).items() if v.layout == CHW32}
    assert {dict(v.parameters)["vector"] for v in found} == {16, 1}
    for v, text in found.items():
        layouts, out = layouts_of(body, v)
        assert {layouts[i.name] for i in body.dynamic_inputs} == {out} == {CHW32}
        result = exact.check(run_on_host(body, text, values, layouts, out))
        assert result.passed, (v.name, result.message)
    assert CHW32 not in {v.layout for v in variants(quantized_sum(48))}


@pytest.mark.parametrize(("source", "target"), list(permutations((LINEAR, HWC, CHW32), 2)))
def test_a_tensor_is_rewritten_from_each_layout_to_each_other(source, target):
    type_ = TensorType(DataType.INT8, (2, 64, 5, 9))
    body = reformat_body(type_)
    text = reformat_kernel(body, source, target)
    assert isinstance(text, KernelText), text
    values = sample_inputs(body, seed=0)
    together = LINEAR in (source, target)
    found = run_on_host(body, text, values, {"input": source}, target, together=together)
    assert np.array_equal(found["output"], values["input"])


@pytest.mark.parametrize("shape", [(0, 4, 5, 9), (2, 0, 5, 9), (2, 4, 0, 9)])
@pytest.mark.parametrize(("source", "target"), [(LINEAR, HWC), (HWC, LINEAR)])
def test_a_tensor_without_elements_is_rewritten_to_none(shape, source, target):
    body = reformat_body(TensorType(DataType.FLOAT, shape))
    text = reformat_kernel(body, source, target)
    assert isinstance(text, KernelText), text
    found = run_on_host(body, text, sample_inputs(body, seed=0), {"input": source}, target)
    assert found["output"].shape == shape


def test_what_does_not_fill_blocks_of_channels_is_not_rewritten_to_them():
    for dtype, channels in ((DataType.INT8, 48), (DataType.HALF, 64)):
        refused = NVRTC.reformat(TensorType(dtype, (2, channels, 5, 5)), LINEAR, CHW32)
        assert isinstance(refused, Refusal) and "from LINEAR to CHW32" in refused.reason


@pytest.mark.parametrize("axes", [[1], [2], [0, 2, 3]])
def test_what_sums_other_axes_is_not_read_channels_last(axes):
    d = Draft()
    y = d.anchored("ReduceMean", d.input(2, 20, 3, 5), d.literal(axes, "int64"), keepdims=1)
    offered = variants(d.body(y))
    assert not isinstance(offered, Refusal)
    assert "pixels" not in {v.name for v in offered}
