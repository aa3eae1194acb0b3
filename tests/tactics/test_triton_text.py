"""Text of Triton kernels: literals, and what follows INT8 sums; needs neither Triton nor a GPU."""

from __future__ import annotations

import ast

import numpy as np
import pytest
from code_device import CodeDevice
from product_bodies import Convolution
from tactic_bodies import INT8, Draft, sample_inputs

from workbench.records import Refusal
from workbench.tactics.protocol import Problem, Tactic
from workbench.tactics.triton import TRITON
from workbench.tactics.triton.source import program_for


def text_of(body):
    """The first tactic's text, which must be Python."""
    values = sample_inputs(body, seed=0)
    constants = {i.name: values[i.name] for i in body.inputs if i.constant}
    problem = Problem(body, constants, CodeDevice())
    tactic = TRITON.candidates(problem)[0]
    assert not isinstance(tactic, Refusal), tactic
    text = "".join(k.text for k in program_for(tactic, problem).kernels)
    ast.parse(text)
    return text


def powered(exponent, kind):
    d = Draft()
    y = d.anchored("MatMul", d.input(16, 32), d.weight(32, 16))
    return text_of(d.body(d("Pow", y, d.literal(exponent, kind))))


@pytest.mark.parametrize(
    ("exponent", "kind", "root", "called"),
    [
        (0, "int64", False, True),
        (2, "int64", False, False),
        (0.5, "float32", True, False),
        (3.0, "float32", False, False),
        (0.0, "float32", False, True),
    ],
)
def test_a_power_is_a_root_for_the_fraction_alone(exponent, kind, root, called):
    text = powered(exponent, kind)
    assert ("tl.sqrt(" in text, "libdevice.pow(" in text) == (root, called)


@pytest.mark.parametrize("zero", [3, -3])
def test_a_literal_zero_point_is_a_number_and_not_cast(zero):
    d = Draft()
    y = d.anchored("MatMul", d.quantized(32, 64), d.quantized(64, 32, axis=1, constant=True))
    point = d.literal(zero, "int8")
    text = text_of(d.body(d("QuantizeLinear", y, d.weight(), point)))
    assert f") + {zero}, " in text


def int8_text(scale=0.5, point=0, **options):
    """The kernel of an INT8 convolution with this output scale and zero point."""
    body = Convolution(1, 64, 8, 64, kind=INT8, **options).body()
    values = sample_inputs(body, seed=0)
    node = next(n for n in body.nodes if n.op == "QuantizeLinear")
    values[node.inputs[1]] = np.float32(scale)
    values[node.inputs[2]] = np.int8(point)
    constants = {i.name: values[i.name] for i in body.inputs if i.constant}
    problem = Problem(body, constants, CodeDevice())
    tactic = TRITON.candidates(problem)[0]
    assert isinstance(tactic, Tactic)
    return program_for(tactic, problem).kernels[-1].text


def test_a_loaded_zero_point_is_cast():
    assert ".to(tl.float32)" in int8_text(point=3).split("libdevice.rint")[1]


def test_an_int8_result_is_clipped_and_rounded_once():
    text = int8_text()
    assert "rint" not in text and "-128" not in text
    after = text[text.index("tl.dot") :]
    assert after.count("tl.maximum") == after.count("tl.minimum") == 1
    assert ", 0.0), 1.0)" in after  # what the hardware does for free


def test_a_residual_is_asked_for_before_a_short_sum_and_scaled_once():
    text = int8_text(residual=True)
    assert 0 < text.index("e0 = tl.load") < text.index("for t in")
    after = text[text.index("tl.dot") :]
    assert after.count("acc") == 2  # the sum, and its one reading


@pytest.mark.parametrize(("scale", "point"), [(-0.5, 0), (0.5, 3)])
def test_other_scales_and_zero_points_keep_the_written_order(scale, point):
    text = int8_text(scale, point)
    assert "tl.maximum" in text and "-128" in text
    assert ("rint" in text) == (point != 0)
