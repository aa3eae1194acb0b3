"""Text of literals in Triton kernels: powers and zero points; needs neither Triton nor a GPU."""

from __future__ import annotations

import ast

import pytest
from code_device import CodeDevice
from tactic_bodies import INT8, Draft, sample_inputs

from workbench.records import Refusal
from workbench.tactics.protocol import Problem
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


def test_a_loaded_zero_point_is_cast():
    d = Draft()
    y = d.anchored("MatMul", d.quantized(32, 64), d.quantized(64, 32, axis=1, constant=True))
    text = text_of(d.body(d("QuantizeLinear", y, d.weight(), d.weight(dtype=INT8))))
    assert ".to(tl.float32)" in text.split("libdevice.rint")[1]
