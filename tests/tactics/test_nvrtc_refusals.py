"""What NVRTC's kernels refuse: divisors that may be 0, and text that does not compile."""

from __future__ import annotations

import numpy as np
import pytest
from host_cuda import run_on_host
from host_gpu import HostGpu
from tactic_bodies import FLOAT, INT32, INT64, Draft, problem_of, sample_inputs

from workbench.checks import expect
from workbench.formats import LINEAR
from workbench.records import Refusal
from workbench.tactics.nvrtc import NVRTC
from workbench.tactics.nvrtc.kernels import kernel, variants
from workbench.tactics.nvrtc.pointwise import followed_layouts
from workbench.tactics.protocol import Problem


class FailingCompiler:
    """NVRTC as CuPy has it, of which every program fails."""

    class NVRTCError(RuntimeError):
        pass

    def __init__(self):
        self.destroyed = 0

    def getVersion(self):  # noqa: N802 (CuPy's own names, here and below)
        return 12, 9

    def createProgram(self, *what):  # noqa: N802
        return 1

    def compileProgram(self, program, options):  # noqa: N802
        raise self.NVRTCError("NVRTC_ERROR_COMPILATION (6)")

    def getProgramLog(self, program):  # noqa: N802
        return 'kernel.cu(3): warning: unused\nkernel.cu(7): error: identifier "nowhere"\n'

    def destroyProgram(self, program):  # noqa: N802
        self.destroyed += 1


def first_kernel(body):
    offered = variants(body)
    assert not isinstance(offered, Refusal)
    v = offered[0]
    return kernel(body, v), v


@pytest.mark.parametrize(("op", "fmod"), [("Div", None), ("Mod", 0), ("Mod", 1)])
@pytest.mark.parametrize("kind", [INT32, INT64])
@pytest.mark.parametrize("divisor", ["tensor", 0, -1])
def test_integers_are_not_divided_by_what_may_be_zero(op, fmod, kind, divisor):
    d = Draft()
    x = d.input(4, 4, dtype=kind)
    y = d.input(4, 4, dtype=kind) if divisor == "tensor" else d.literal(divisor, str(kind.numpy))
    given = {} if fmod is None else {"fmod": fmod}
    text, _ = first_kernel(d.body(d(op, x, y, **given)))
    assert isinstance(text, Refusal) and f"{op} of integers by a divisor" in text.reason


@pytest.mark.parametrize("divisor", [2, -3])
def test_integers_are_divided_by_a_harmless_literal(divisor):
    d = Draft()
    x, y = d.input(4, 4, dtype=INT64), d.literal(divisor, "int64")
    body = d.body(d("Div", x, y), d("Mod", x, y), d("Mod", x, y, fmod=1))
    text, v = first_kernel(body)
    assert not isinstance(text, Refusal), text
    values = sample_inputs(body, seed=0)
    found = run_on_host(body, text, values, followed_layouts(body, v.layout), v.layout)
    assert expect(body, values).check(found).passed


@pytest.mark.parametrize(("exponent", "kind"), [(0, "int64"), (2, "int32"), (0.5, "float32")])
def test_a_power_by_an_integer_exponent_is_not_taken_for_a_fraction(exponent, kind):
    d = Draft()
    body = d.body(d("Pow", d.input(4, 4), d.literal(exponent, kind)))
    text, v = first_kernel(body)
    assert not isinstance(text, Refusal), text
    values = {body.inputs[0].name: np.linspace(0.1, 4, 16, dtype=np.float32).reshape(4, 4)}
    found = run_on_host(body, text, values, followed_layouts(body, LINEAR), v.layout)
    assert expect(body, values).check(found).passed


def test_a_kernel_that_does_not_compile_is_refused_with_the_compilers_words(monkeypatch):
    monkeypatch.setattr(
        "workbench.tactics.nvrtc.source.machine_code", lambda problem, parts, make: ("", make())
    )
    d = Draft()
    problem, *_ = problem_of(d.body(d("Relu", d.input(4, 4, dtype=FLOAT))))
    device, compiler = HostGpu(), FailingCompiler()
    device.cupy.cuda.nvrtc = compiler
    problem = Problem(problem.body, problem.constants, device)
    (tactic, *_) = NVRTC.candidates(problem)
    found = NVRTC.prepare(tactic, problem)
    assert isinstance(found, Refusal) and found.code == "compile"
    assert "nowhere" in found.reason and "unused" not in found.reason
    assert compiler.destroyed == 1
    (ahead,) = NVRTC.precompile(problem, [tactic])
    assert "nowhere" in str(ahead.exception(60))


@pytest.mark.parametrize(
    "attributes",
    [
        {"strides": (2, 2), "output_shape": (9, 9)},
        {"strides": (2, 2), "output_shape": (9, 9), "auto_pad": "SAME_UPPER"},
        {"strides": (2, 2), "output_padding": (1, 1), "auto_pad": "SAME_LOWER"},
        {"strides": (2, 2), "output_padding": (1, 1), "pads": (1, 0, 0, 1)},
    ],
)
def test_a_transposed_convolution_crops_as_the_reference_does(attributes):
    d = Draft()
    body = d.body(
        d.anchored("ConvTranspose", d.input(1, 2, 4, 4), d.weight(2, 3, 4, 4), **attributes)
    )
    text, v = first_kernel(body)
    assert not isinstance(text, Refusal), text
    values = sample_inputs(body, seed=0)
    found = run_on_host(body, text, values, followed_layouts(body, v.layout), v.layout)
    assert expect(body, values).check(found).passed
