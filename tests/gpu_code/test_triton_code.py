"""Triton kernels compile for compute capability 8.0 and 9.0, and give right results.

Results are computed by Triton's interpreter on the host; neither needs a GPU.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from triton_on_host import run_on_host

from workbench.body import Body
from workbench.checks import expect
from workbench.formats import CHW32
from workbench.records import Refusal
from workbench.sampling import sample_inputs
from workbench.tactics.compile_processes import CompileError
from workbench.tactics.protocol import Problem
from workbench.tactics.triton import TRITON
from workbench.tactics.triton.compiler import COMPILERS, unpack_code
from workbench.tactics.triton.source import program_for

sys.path.insert(0, str(Path(__file__).parents[1] / "tactics"))
from attention_bodies import ATTENTIONS, quantized
from code_device import CodeDevice
from product_bodies import Attention, Convolution, Linear
from tactic_bodies import BF16, BODIES, FLOAT, HALF, INT8, Draft

from workbench.datatypes import DataType

FP8 = DataType.FP8


def kinds_of(body):
    return {t.dtype for t in body.types.values()}


@dataclass(frozen=True, eq=False)
class Made:
    """A Body beside layers that make one."""

    made: Body

    def body(self) -> Body:
        return self.made


COMPILED = {
    "stem": Convolution(1, 3, 20, 16, 7, 2, 3),
    "window": Convolution(1, 32, 9, 32, 3, 1, 1, residual=True),
    "window int8": Convolution(1, 64, 9, 32, 3, 2, 1, INT8),
    "grouped": Convolution(1, 32, 8, 32, 3, 1, 1, group=2),
    "depthwise": Convolution(1, 32, 8, 32, 3, 1, 1, group=32, activation="Clip"),
    "depthwise int8": Convolution(1, 32, 8, 32, 3, 1, 1, INT8, group=32),
    "product": Linear(64, 64, 64, BF16, True, "Gelu"),
    "product float": Linear(64, 32, 64, FLOAT),
    "split sums of one row": Linear(1, 1024, 64, HALF),
    "attention": Attention(1, 2, 64, 32),
    "attention int8": Made(quantized(HALF)(2)),
}
NEEDS_HOPPER = {
    "product fp8": Linear(72, 64, 64, FP8, True),
    "window fp8": Convolution(1, 24, 9, 32, 3, 2, 1, FP8, residual=True),
    "stem fp8": Convolution(1, 3, 9, 32, 3, 2, 1, FP8),
    "depthwise fp8": Convolution(1, 24, 9, 24, 3, 1, 1, FP8, group=24),
    "attention fp8": Made(quantized(HALF, FP8)(2)),
}
ON_HOST = {
    **{
        n: make
        for n, make in {**BODIES, **ATTENTIONS}.items()
        if n.startswith(("conv", "gemm", "linear", "attention_")) and n != "attention_mask"
    },
    "stem": lambda batch: Convolution(batch, 3, 13, 8, 7, 2, 3).body(),
    "stem int8": lambda batch: Convolution(batch, 3, 11, 8, 3, 2, 1, INT8).body(),
    "blocks int8": lambda batch: Convolution(batch, 64, 5, 96, 1, kind=INT8, residual=True).body(),
    "window blocks int8": lambda batch: Convolution(batch, 32, 7, 64, 3, 2, 1, INT8).body(),
    "split sums": lambda batch: Linear(8 * batch, 512, 24, HALF, True).body(),
    "one row": lambda batch: Linear(1, 40, 24, INT8, activation="Gelu").body(),
    "depthwise half": lambda batch: Convolution(batch, 24, 9, 24, 3, 2, 1, group=24).body(),
    "grouped wide": lambda batch: Convolution(batch, 8, 5, 8, 3, 1, 1, group=2, width=7).body(),
    "attention": lambda batch: Attention(batch, 2, 33, 16).body(),
}
SLOW_ON_HOST = {"conv_depthwise", "conv_grouped_dilated", "attention_merged_long"}
"""Programs that the interpreter takes many seconds for."""
WRONG_ON_HOST = {n for n, make in ON_HOST.items() if BF16 in kinds_of(make(2))}
"""The interpreter multiplies the bits of bfloat16; the device tests check these."""


def problem_of(body, capability):
    values = sample_inputs(body, seed=0)
    constants = {i.name: values[i.name] for i in body.inputs if i.constant}
    return Problem(body, constants, CodeDevice(capability)), values


def offered(problem):
    """One tactic of each form, split or not; the refusals fail the test."""
    found = {}
    for t in TRITON.candidates(problem):
        assert not isinstance(t, Refusal), t
        known = dict(t.parameters)
        found.setdefault((known["form"], known.get("split", 1) > 1), t)
    return tuple(found.values())


def test_every_template_compiles_for_both_capabilities():
    for capability, layers in ((80, COMPILED), (90, {**COMPILED, **NEEDS_HOPPER})):
        kernels = []
        for layer in layers.values():
            problem, _ = problem_of(layer.body(), capability)
            kernels += [k for t in offered(problem) for k in program_for(t, problem).kernels]
        codes = [COMPILERS.submit(k, f"sm_{capability}") for k in kernels]
        for kernel, code in zip(kernels, codes, strict=True):
            assert code.exception() is None, f"{code.exception()}\n{kernel.text}"
            meta, cubin = unpack_code(code.result())
            assert cubin[:4] == b"\x7fELF" and meta["warps"] == kernel.warps


@pytest.mark.parametrize("name", [n for n in ON_HOST if n not in SLOW_ON_HOST | WRONG_ON_HOST])
def test_each_form_is_within_the_bound_on_the_host(name):
    body = ON_HOST[name](2)
    problem, values = problem_of(body, 90)
    expected = expect(body, values)
    for tactic in offered(problem):
        program = program_for(tactic, problem)
        found = run_on_host(program, tactic, problem, values)
        result = expected.check(found)
        assert result.passed, f"{tactic.name}: {result.message}"


def test_int8_images_that_fill_blocks_of_channels_are_offered_in_them_last():
    for name in ("blocks int8", "window blocks int8"):
        tactics = TRITON.candidates(problem_of(ON_HOST[name](2), 90)[0])
        layouts = [{*t.inputs, *t.outputs} for t in tactics]
        first = layouts.index({CHW32})
        assert first > 0 and all(found == {CHW32} for found in layouts[first:])
    for kind, channels in ((INT8, 48), (HALF, 64)):
        problem, _ = problem_of(Convolution(2, channels, 5, 64, 1, kind=kind).body(), 90)
        assert not any(CHW32 in t.inputs for t in TRITON.candidates(problem))


@pytest.mark.parametrize("kernel", [1, 3])
def test_images_in_blocks_of_channels_are_read_by_16_bytes(kernel):
    body = Convolution(8, 256, 14, 64, kernel, 1, kernel // 2, INT8).body()
    problem, _ = problem_of(body, 90)
    tactics = [t for t in TRITON.candidates(problem) if CHW32 in t.inputs]
    products = [program_for(t, problem).kernels[0] for t in tactics]
    for code in [COMPILERS.submit(k, "compute_90") for k in products]:
        ptx = unpack_code(code.result())[1].decode()
        assert "cp.async.cg.shared.global" in ptx and "ld.global.b8" not in ptx


def test_a_kernel_that_does_not_compile_says_why():
    problem, _ = problem_of(COMPILED["product"].body(), 90)
    kernel = program_for(offered(problem)[0], problem).kernels[0]
    from dataclasses import replace

    wrong = replace(kernel, text=kernel.text + "    nowhere(1)\n")
    reason = COMPILERS.submit(wrong, "sm_90").exception()
    assert isinstance(reason, CompileError) and "nowhere" in str(reason)


def test_a_row_of_masked_keys_is_zero_where_the_body_says_so_and_no_number_elsewhere():
    d = Draft()
    q, k, v = d.input(1, 2, 6, 4), d.input(1, 2, 4, 6), d.input(1, 2, 6, 4)
    bias, dark = d.input(6, 6), d.input(6, 1, dtype=DataType.BOOL)
    p = d.anchored("Softmax", d("Add", d("MatMul", q, k), bias), axis=-1)
    body = d.body(d("MatMul", d("Where", dark, d.literal(0.0), p), v))
    problem, values = problem_of(body, 90)
    values[bias] = np.zeros((6, 6), np.float32)
    values[bias][[1, 4]] = -np.inf
    values[dark] = np.array([0, 1, 0, 0, 0, 1], np.bool_).reshape(6, 1)
    (wanted,) = body.evaluate(values).values()
    assert np.isnan(wanted[..., 4, :]).all() and not wanted[..., [1, 5], :].any()
    for tactic in offered(problem):
        with np.errstate(invalid="ignore"):  # 0 / 0, as it should be
            (made,) = run_on_host(program_for(tactic, problem), tactic, problem, values).values()
        np.testing.assert_allclose(made, wanted, rtol=1e-2, atol=1e-2)
