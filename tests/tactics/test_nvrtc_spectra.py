"""DFT by two sums: run on the host, thread after thread, beside the reference."""

from __future__ import annotations

import numpy as np
import pytest
from host_cuda import run_on_host
from tactic_bodies import Draft

from workbench.body import Body
from workbench.checks import expect
from workbench.datatypes import DataType
from workbench.formats import LINEAR
from workbench.sampling import sample_inputs
from workbench.tactics.nvrtc.frame import KernelText
from workbench.tactics.nvrtc.kernels import kernel, variant_of, variants
from workbench.tactics.nvrtc.spectra import factors


def dft(shape, *, axis=1, length=None, kind=DataType.FLOAT, **attributes) -> Body:
    """A DFT with something behind it."""
    d = Draft()
    x = d.input(*shape, dtype=kind)
    count = "" if length is None else d.literal(length, "int64")
    y = d.anchored("DFT", x, count, d.literal(axis, "int64"), **attributes)
    return d.body(d("Mul", y, d.literal(0.5, kind.numpy)))


@pytest.mark.parametrize(
    "body",
    [
        dft((2, 36, 1), onesided=1),
        dft((2, 35, 1), onesided=1),
        dft((2, 48, 2)),
        dft((2, 48, 2), inverse=1),
        dft((40, 3, 2), axis=0),
        dft((2, 3, 34, 1), axis=2),
        dft((2, 50, 1), length=64, onesided=1),
        dft((2, 50, 2), length=33),
        dft((2, 36, 2), kind=DataType.DOUBLE),
    ],
    ids="even odd complex inverse leading inner padded cut double".split(),
)
def test_two_sums_give_the_spectrum(body: Body):
    (offered,) = variants(body)
    assert offered.name == "split sums"
    text = kernel(body, offered)
    assert isinstance(text, KernelText) and len(text.launches) == 2
    values = sample_inputs(body, seed=0)
    found = run_on_host(body, text, values, {i.name: LINEAR for i in body.inputs}, LINEAR)
    result = expect(body, values).check(found)
    assert result.passed, result.message


def test_a_long_signal_is_as_exact_as_a_short_one():
    body = dft((1, 6000, 1), onesided=1)
    (offered,) = variants(body)
    text = kernel(body, offered)
    assert isinstance(text, KernelText)
    x = np.random.default_rng(0).standard_normal((1, 6000, 1)).astype(np.float32)
    (name,) = (i.name for i in body.inputs)
    (found,) = run_on_host(body, text, {name: x}, {name: LINEAR}, LINEAR).values()
    exact = 0.5 * np.fft.rfft(x[..., 0].astype(np.float64), axis=1)
    worst = np.abs(found[..., 0] + 1j * found[..., 1] - exact).max()
    assert worst < 1e-6 * np.abs(exact).max()


@pytest.mark.parametrize(
    "body",
    [dft((2, 37, 1)), dft((2, 12, 1)), dft((2, 33, 2), inverse=1, onesided=1)],
    ids=["prime", "short", "mirrored"],
)
def test_what_two_sums_do_not_fit_is_one_sum(body: Body):
    offered = variants(body)
    assert {v.name for v in offered} == {"elements v1"}
    split = variant_of("split sums", LINEAR.name, (("split", True),))
    (linear,) = (v for v in offered if v.layout == LINEAR)
    assert kernel(body, split) == kernel(body, linear)


def test_factors_are_as_near_to_each_other_as_can_be():
    assert [factors(n) for n in (64, 60, 37, 1 << 20)] == [(8, 8), (6, 10), None, (1024, 1024)]
