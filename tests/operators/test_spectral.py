"""DFT, STFT, MelWeightMatrix."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_peer import against_peer, four_bounds_off, normal, one_node


@pytest.mark.parametrize(("onesided", "parts"), [(0, 1), (0, 2), (1, 1)])
@pytest.mark.parametrize("length", [None, 6, 11])
def test_dft_agrees_with_onnx_runtime(onesided, parts, length):
    given = None if length is None else np.array(length, np.int64)
    inputs = (normal(0, 2, 8, parts), given)
    found = against_peer("DFT", inputs, {"onesided": onesided}, opset=20)
    assert found, found.message
    body, values = one_node("DFT", inputs, {"onesided": onesided})
    assert not four_bounds_off(body, values)


def test_the_inverse_of_a_one_sided_spectrum_is_the_signal():
    x = normal(1, 2, 8, 1)
    body, values = one_node("DFT", (x,), {"onesided": 1})
    spectrum = body.evaluate(values)["o0"]
    back, values = one_node("DFT", (spectrum,), {"onesided": 1, "inverse": 1})
    np.testing.assert_allclose(back.evaluate(values)["o0"], x, rtol=1e-5, atol=1e-6)
    assert not four_bounds_off(back, values)


@pytest.mark.parametrize("onesided", [0, 1])
def test_stft_agrees_with_onnx_runtime(onesided):
    step, window = np.array(3, np.int64), np.hanning(8).astype(np.float32)
    inputs = (normal(2, 2, 30, 1), step, window)
    found = against_peer("STFT", inputs, {"onesided": onesided}, opset=17)
    assert found, found.message
    body, values = one_node("STFT", inputs, {"onesided": onesided})
    assert not four_bounds_off(body, values)


def test_mel_weights_agree_with_onnx_runtime():
    numbers = [np.array(n, np.int64) for n in (8, 64, 8000)]
    edges = [np.array(f, np.float32) for f in (20.0, 4000.0)]
    found = against_peer("MelWeightMatrix", (*numbers, *edges), {}, opset=17)
    assert found, found.message


@settings(max_examples=25, deadline=None)
@given(
    shape=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    parts=st.sampled_from([1, 2]),
    length=st.one_of(st.none(), st.integers(1, 9)),
    inverse=st.sampled_from([0, 1]),
    data=st.data(),
)
def test_dft_of_any_shape_and_axis_is_numpy_s(shape, parts, length, inverse, data):
    axis = data.draw(st.integers(0, len(shape) - 1))
    x = normal(0, *shape, parts)
    count = None if length is None else np.array(length, np.int64)
    body, values = one_node("DFT", (x, count, np.array(axis, np.int64)), {"inverse": inverse})
    signal = x[..., 0] + 1j * x[..., 1] if parts == 2 else x[..., 0]
    expected = (np.fft.ifft if inverse else np.fft.fft)(signal, n=length, axis=axis)
    found = body.evaluate(values)["o0"]
    np.testing.assert_allclose(found[..., 0], expected.real, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[..., 1], expected.imag, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("op", ["DFT", "STFT"])
def test_half_a_spectrum_of_a_real_signal_takes_no_transform_of_complex_numbers(op, monkeypatch):
    def refused(*given, **options):
        raise AssertionError("a transform of complex numbers")

    x = normal(0, 2, 16, 1)
    rest = () if op == "DFT" else (np.array(4, np.int64), np.hanning(8).astype(np.float32))
    body, values = one_node(op, (x, *rest), {"onesided": 1})
    monkeypatch.setattr(np.fft, "fft", refused)
    found = body.evaluate(values)["o0"]
    assert found.dtype == np.float32 and found.shape[-1] == 2
