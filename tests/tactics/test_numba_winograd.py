"""Winograd's convolution: as exact as the direct one, in vector code, refused where it is none."""

from __future__ import annotations

import platform

import numpy as np
import pytest
from onednn_net import Net

from workbench.checks import bit_equal, check_outputs
from workbench.datatypes import DataType
from workbench.formats import CHW16, HWC
from workbench.records import Refusal
from workbench.tactics.launch import run_once
from workbench.tactics.numba.cache import KernelCache
from workbench.tactics.numba.source import NUMBA, NumbaSource
from workbench.tactics.numba.winograd import plan_winograd, winograd_call
from workbench.tactics.protocol import Call

CASES = {
    "same padding": ((1, 16, 8, 8), 32, (1, 1, 1, 1)),
    "odd sizes": ((2, 32, 7, 9), 64, (1, 1, 1, 1)),
    "no padding": ((1, 16, 9, 6), 32, (0, 0, 0, 0)),
    "uneven padding": ((1, 16, 6, 6), 32, (0, 1, 2, 0)),
    "one position": ((1, 16, 3, 3), 32, (0, 0, 0, 0)),
    "many blocks": ((1, 128, 28, 28), 160, (1, 1, 1, 1)),
    "sums in blocks": ((1, 272, 6, 5), 32, (1, 1, 1, 1)),
}


def convolved(net, shape, filters, pads, **attributes):
    x, w = net.input(shape), net.constant((filters, shape[1], 3, 3), scale=0.1)
    b = net.constant((filters,))
    return net.op("Conv", x, w, b, anchor=True, pads=pads, **attributes)


def winograds(problem):
    return [
        t for t in NUMBA.candidates(problem) if not isinstance(t, Refusal) and t.name == "winograd"
    ]


@pytest.mark.parametrize("layout", [HWC, CHW16], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_it_is_right_to_the_bound_twice_alike_and_on_any_threads(case, layout):
    net = Net()
    problem = net.problem(net.op("Relu", convolved(net, *CASES[case])), threads=3)
    plan = plan_winograd(problem.body, layout)
    tactic = next(t for t in winograds(problem) if t.outputs == (layout,))
    assert tactic.inputs == (layout,)
    outputs = []
    for threads in (1, 3):
        call = winograd_call(plan, problem, NUMBA.cache, threads)
        assert isinstance(call, Call)
        found = run_once(call, tactic, problem, net.data)
        verdict = check_outputs(problem.body, {**net.data, **net.constants}, found)
        assert verdict, verdict.message
        assert bit_equal(found, run_once(call, tactic, problem, net.data))
        outputs.append(found)
    assert bit_equal(*outputs)


def test_a_residual_a_factor_for_each_channel_and_a_number_are_part_of_it():
    net = Net()
    y = convolved(net, (1, 16, 8, 8), 32, (1, 1, 1, 1))
    y = net.op("Mul", net.op("Add", y, net.input((1, 32, 8, 8))), net.constant((32, 1, 1)))
    problem = net.problem(net.op("Clip", y, net.literal(-1.0), net.literal(1.0)))
    (tactic, *_) = winograds(problem)
    assert {t.outputs for t in winograds(problem)} == {(HWC,)}
    found = run_once(NUMBA.prepare(tactic, problem), tactic, problem, net.data)
    verdict = check_outputs(problem.body, {**net.data, **net.constants}, found)
    assert verdict, verdict.message


@pytest.mark.parametrize("factor", [(32, 1, 1), (1, 32, 1, 1)])
def test_blocks_of_channels_have_their_own_factors(factor):
    net = Net()
    y = convolved(net, (2, 16, 9, 8), 32, (1, 1, 1, 1))
    y = net.op("Mul", net.op("Relu", y), net.input(factor))
    problem = net.problem(net.op("Add", y, net.input((1,))))
    for tactic in winograds(problem):
        found = run_once(NUMBA.prepare(tactic, problem), tactic, problem, net.data)
        verdict = check_outputs(problem.body, {**net.data, **net.constants}, found)
        assert verdict, (tactic.title, verdict.message)
    assert {t.outputs[0] for t in winograds(problem)} == {HWC, CHW16}


def test_an_output_of_another_type_is_written_in_hwc_alone():
    net = Net()
    y = convolved(net, (1, 16, 8, 8), 32, (1, 1, 1, 1))
    problem = net.problem(net.op("Cast", y, to=DataType.HALF))
    (tactic, *_) = winograds(problem)
    assert {t.outputs for t in winograds(problem)} == {(HWC,)}
    found = run_once(NUMBA.prepare(tactic, problem), tactic, problem, net.data)
    verdict = check_outputs(problem.body, {**net.data, **net.constants}, found)
    assert verdict, verdict.message


def test_its_products_differ_by_less_than_the_direct_ones_rounding():
    net = Net()
    problem = net.problem(convolved(net, (1, 128, 14, 14), 64, (1, 1, 1, 1)))
    (tactic, *_) = winograds(problem)
    found = run_once(NUMBA.prepare(tactic, problem), tactic, problem, net.data)
    (name,) = problem.body.outputs
    given = {k: v.astype(np.float64) for k, v in {**net.data, **net.constants}.items()}
    patches = np.lib.stride_tricks.sliding_window_view(
        np.pad(given["t0"], ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), (2, 3)
    )
    exact = np.einsum("nchwij,ocij->nohw", patches, given["t1"]) + given["t2"][:, None, None]
    error = np.linalg.norm(found[name] - exact) / np.linalg.norm(exact)
    assert error < 5e-7


@pytest.mark.parametrize(
    ("shape", "filters", "attributes", "reason"),
    [
        ((1, 16, 8, 8), 32, {"strides": (2, 2)}, "stride 1"),
        ((1, 20, 8, 8), 32, {}, "20 channels"),
        ((1, 16, 8, 8), 20, {}, "20 filters"),
        ((1, 512, 8, 8), 512, {}, "read from memory"),
    ],
)
def test_what_it_cannot_do_is_refused_with_the_reason(shape, filters, attributes, reason):
    net = Net()
    problem = net.problem(convolved(net, shape, filters, (1, 1, 1, 1), **attributes))
    refusal = plan_winograd(problem.body)
    assert isinstance(refusal, Refusal)
    assert reason in refusal.reason


def test_a_plan_that_brings_its_weights_transforms_none():
    net = Net()
    problem = net.problem(convolved(net, (1, 16, 8, 8), 32, (1, 1, 1, 1)), threads=1)
    plan = plan_winograd(problem.body)
    made = winograd_call(plan, problem, NUMBA.cache, 1)
    other = net.problem(problem.body.outputs[0], threads=1)
    object.__setattr__(other, "prepacked", made.prepacked)
    other.constants["t1"][...] = 0
    (tactic, *_) = winograds(problem)
    found = run_once(winograd_call(plan, other, NUMBA.cache, 1), tactic, other, net.data)
    assert np.abs(found[problem.body.outputs[0]]).max() > 1


@pytest.mark.skipif(platform.machine() != "x86_64", reason="looks for x86 vector instructions")
def test_its_kernel_is_made_of_vector_instructions():
    net = Net()
    problem = net.problem(convolved(net, (1, 16, 8, 8), 32, (1, 1, 1, 1)), threads=1)
    source = NumbaSource(KernelCache(None))
    source.prepare(winograds(problem)[0], problem)
    (kernel,) = source.cache.kernels()
    text = kernel.inspect_asm(kernel.signatures[0])
    assert "vfmadd" in text
    assert text.count("vaddps") + text.count("vsubps") >= 32
