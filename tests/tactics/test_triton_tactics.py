"""What TRITON offers, refuses and packs; needs neither Triton nor a GPU."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from code_device import CodeDevice
from product_bodies import Attention, Convolution, Linear, mobilenet_depthwise, resnet50
from tactic_bodies import FLOAT, HALF, INT8, Draft, sample_inputs

from workbench.datatypes import DataType
from workbench.formats import HWC, LINEAR
from workbench.records import Refusal
from workbench.tactics.protocol import Problem, tactic_from_json, tactic_to_json
from workbench.tactics.triton import TRITON
from workbench.tactics.triton.calls import constants_of
from workbench.tactics.triton.source import program_for
from workbench.tactics.triton.tiles import CHIPS, shared_bytes, tile_of


def problem_of(body, capability=90, **constants):
    values = sample_inputs(body, seed=0)
    known = {i.name: values[i.name] for i in body.inputs if i.constant}
    return Problem(body, {**known, **constants}, CodeDevice(capability))


def tactics_of(layer, capability=90):
    found = TRITON.candidates(problem_of(layer.body(), capability))
    assert found and not any(isinstance(t, Refusal) for t in found), found
    return found


def refusal_of(problem):
    (found,) = TRITON.candidates(problem)
    assert isinstance(found, Refusal)
    return found


@pytest.mark.parametrize("kind", [HALF, INT8, DataType.FP8, FLOAT, DataType.BF16])
@pytest.mark.parametrize("capability", [80, 90])
def test_tiles_fit_the_chips_shared_memory_and_name_their_type(kind, capability):
    if kind is DataType.FP8 and capability < 89:
        reason = refusal_of(problem_of(Linear(256, 768, 768, kind).body(), capability))
        assert "8.9" in reason.reason
        return
    for t in tactics_of(Linear(256, 768, 768, kind), capability):
        assert shared_bytes(tile_of(t.parameters), kind) <= CHIPS[capability].shared
        assert t.precision is kind and t.deterministic


def test_the_first_tactics_differ_in_size():
    first = tactics_of(Linear(4096, 768, 3072))[:6]
    assert len({(t.parameter("rows"), t.parameter("columns")) for t in first}) >= 4


def test_convolutions_are_channels_last_and_products_linear():
    for t in tactics_of(resnet50(2, HALF)[3]):
        assert {*t.inputs, *t.outputs} == {HWC}
    for t in tactics_of(Linear(64, 64, 64)):
        assert {*t.inputs, *t.outputs} == {LINEAR}


def test_a_window_that_moves_by_two_may_be_folded_and_is_offered_in_turns():
    def forms(stride):
        return [t.parameter("form") for t in tactics_of(Convolution(2, 3, 20, 16, 5, stride, 2))]

    assert forms(2)[:4] == ["copied linear", "folded linear"] * 2
    assert not any(f.startswith("folded") for f in forms(1))


def test_an_image_of_three_channels_is_read_in_either_layout():
    found = tactics_of(resnet50(2, HALF)[0])
    assert {t.inputs for t in found} == {(LINEAR,), (HWC,)}
    assert {t.outputs for t in found} == {(HWC,)}


def test_depthwise_convolutions_get_their_own_kernels_only():
    for layer in mobilenet_depthwise(2, HALF):
        assert {t.name.split()[0] for t in tactics_of(layer)} == {"depthwise"}


def test_few_rows_split_long_sums_and_say_their_workspace():
    problem = problem_of(Linear(1, 4096, 1000).body())
    split = [t for t in TRITON.candidates(problem) if t.parameter("split") > 1]
    program = program_for(split[0], problem)
    assert program.workspace == {"parts": 4 * split[0].parameter("split") * 1000}
    assert "atomic" not in "".join(k.text for k in program.kernels)


def test_float_products_are_never_made_in_plain_tf32():
    problem = problem_of(Linear(64, 64, 64, FLOAT).body())
    for t in TRITON.candidates(problem):
        for kernel in program_for(t, problem).kernels:
            assert 'input_precision="tf32"' not in kernel.text


def test_a_tactic_survives_json_with_its_text():
    problem = problem_of(Convolution(2, 32, 9, 16, 3, 1, 1, residual=True).body())
    for t in TRITON.candidates(problem):
        again = tactic_from_json(tactic_to_json(t))
        assert again == t
        assert program_for(again, problem).kernels == program_for(t, problem).kernels


def test_packed_weights_hold_each_number_once_and_zeros():
    layer = Convolution(1, 20, 9, 24, 3, 1, 1, FLOAT)
    problem = problem_of(layer.body())
    weights = next(v for v in problem.constants.values() if v.ndim == 4)
    for t in TRITON.candidates(problem):
        program = program_for(t, problem)
        packed = next(v for a, v in constants_of(program, problem).items() if a.name == "weights")
        kept = packed[packed != 0]
        np.testing.assert_array_equal(np.sort(kept), np.sort(weights[weights != 0]))


def test_what_has_no_kernel_is_refused_with_its_reason():
    d = Draft()
    body = d.body(d("Relu", d.input(4, 4)))
    assert "pointwise" in refusal_of(problem_of(body)).reason
    d = Draft()
    y = d.anchored(
        "MatMul", d.input(4, 4, dtype=DataType.INT32), d.weight(4, 4, dtype=DataType.INT32)
    )
    assert "INT32" in refusal_of(problem_of(d.body(y))).reason
    assert "8.0" in refusal_of(problem_of(Linear(4, 32, 4).body(), 75)).reason
    wide = Attention(1, 1, 16, 320)
    assert "320" in refusal_of(problem_of(wide.body())).reason


def test_a_zero_point_that_is_not_zero_keeps_the_product_in_float():
    d = Draft()
    x, scale, zero = d.input(8, 32, dtype=INT8), d.weight(), d.weight(dtype=INT8)
    a = d("DequantizeLinear", x, scale, zero)
    w = d.quantized(32, 16, axis=1, constant=True)
    body = d.body(d.anchored("MatMul", a, w))
    assert problem_of(body).body.compute_type is INT8
    kinds = {
        z: {t.precision for t in TRITON.candidates(problem_of(body, **{zero: np.int8(z)}))}
        for z in (0, 3)
    }
    assert kinds == {0: {INT8}, 3: {FLOAT}}


def test_its_absence_is_a_refusal_with_a_remedy(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    reason = TRITON.unavailable()
    assert reason is not None and "pip install" in reason.remedy


def test_a_kernel_is_specialised_to_its_sizes():
    a, b = (problem_of(dataclasses.replace(Linear(64, 64, 64), rows=r).body()) for r in (64, 96))
    texts = [program_for(TRITON.candidates(p)[0], p).kernels[0].text for p in (a, b)]
    assert texts[0] != texts[1]
