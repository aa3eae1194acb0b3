"""What Bodies become as cuDNN graphs, and why some become none; needs neither library nor GPU."""

from __future__ import annotations

import numpy as np
import pytest
from library_bodies import LIBRARY_BODIES, quantized_convolution
from tactic_bodies import BODIES, problem_of

from workbench.datatypes import DataType
from workbench.formats import HWC
from workbench.records import Refusal
from workbench.tactics.cudnn import CUDNN
from workbench.tactics.cudnn.described import graphs_of
from workbench.tactics.cudnn.graph import Graph, Input
from workbench.tactics.cudnn.library import versions
from workbench.tactics.terms import Constant, Constants


def graphs(name: str) -> tuple[Graph, ...]:
    found = graphs_of(problem_of(LIBRARY_BODIES[name](2))[0])
    assert not isinstance(found, Refusal), found
    return found


def kinds(graph: Graph) -> list[str]:
    return [o.kind for o in graph.operations]


def test_a_convolution_is_channels_last_with_its_bias_and_activation():
    (graph,) = graphs("resnet_3x3")
    assert kinds(graph) == ["conv_fprop", "add", "relu"]
    assert graph.inputs == graph.outputs == (HWC,)
    x = graph.tensors[0]
    assert x.dims == (2, 32, 14, 14) and x.strides == (32 * 14 * 14, 1, 14 * 32, 32)


def test_a_residual_is_offered_in_both_orders():
    written, other = graphs("resnet_residual")
    assert (written.variant, other.variant) == ("as written", "residual first")
    first = [dict(g.operations[1].inputs)["b"] for g in (written, other)]
    assert isinstance(written.tensor(first[0]).place, Constant)
    assert isinstance(other.tensor(first[1]).place, Input)


def test_scales_of_an_int8_convolution_fold_into_its_constants():
    (graph,) = graphs("int8_3x3")
    assert kinds(graph) == ["conv_fprop", "mul", "add", "relu"]
    problem, _, values = problem_of(LIBRARY_BODIES["int8_3x3"](2))
    constants = Constants(problem.body, problem.constants)
    scale = graph.tensor(dict(graph.operations[1].inputs)["b"]).place
    assert isinstance(scale, Constant)
    names = [i.name for i in problem.body.inputs]
    x, w, y = (values[names[k]].astype(np.float64) for k in (1, 3, 5))
    np.testing.assert_allclose(constants.packed(scale).reshape(-1), x * w / y, rtol=1e-6)


def test_an_activation_that_bends_keeps_its_output_scale_apart():
    (graph,) = graphs("int8_swish")
    assert kinds(graph) == ["conv_fprop", "mul", "add", "swish", "mul"]


def test_int8_with_a_residual_is_refused_and_fp8_is_not():
    refused = graphs_of(problem_of(quantized_convolution(residual=True)(2))[0])
    assert isinstance(refused, Refusal) and "ends the process" in refused.reason
    assert f"seen with 9.19; here is {versions()}" in refused.reason
    assert len(graphs("fp8_residual")) == 2


def test_attention_reads_heads_where_they_lie():
    (graph,) = graphs("attention_keys")
    q, k, _v, bias = graph.tensors[:4]
    assert q.dims == k.dims == (2, 2, 64, 64) and q.strides == (64 * 384, 64, 384, 1)
    assert isinstance(k.place, Input) and k.place.offset == 128
    assert bias.dims == (2, 1, 1, 64)
    assert dict(graph.operations[0].options)["attn_scale"] == pytest.approx(0.125)


def test_one_spatial_axis_gets_a_height_of_one():
    (graph,) = graphs("conv_1d")
    assert graph.tensors[0].dims == (2, 32, 1, 14)
    assert dict(graph.operations[0].options)["pre_padding"] == (0, 1)


def test_a_transposed_convolution_is_a_gradient():
    (graph,) = graphs("conv_transposed")
    options = dict(graph.operations[0].options)
    assert kinds(graph)[0] == "conv_dgrad"
    assert options["pre_padding"] == (1, 1) and options["post_padding"] == (0, 0)


@pytest.mark.parametrize("name", [*BODIES, *LIBRARY_BODIES])
def test_every_body_is_described_or_refused_with_its_reason(name):
    found = graphs_of(problem_of((BODIES | LIBRARY_BODIES)[name](2))[0])
    if isinstance(found, Refusal):
        assert found.reason and found.code
    else:
        placed = [t for _, t in found[0].placed]
        assert len({t.name for t in placed}) == len(placed)
        assert all(t.kind is not DataType.INT32 for t in placed)


def test_without_a_gpu_the_heuristics_are_refused():
    (refusal,) = CUDNN.candidates(problem_of(LIBRARY_BODIES["resnet_3x3"](2))[0])
    assert isinstance(refusal, Refusal) and "GPU" in refusal.reason
