"""ImageDecoder: what it reads, and what it makes of bytes that are no image."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from one_node import run_node, types_of, unknown
from PIL import Image

from workbench.datatypes import DataType
from workbench.errors import InferenceError
from workbench.operators import images

LOSSLESS = ("BMP", "PNG", "PPM", "TIFF")


def encoded(pixels: Any, form: str) -> Any:
    """A file's bytes."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return np.frombuffer(file.getvalue(), np.uint8)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.sampled_from(LOSSLESS), st.integers(0, 999))
def test_pixels_come_back_in_the_order_asked_for(high: int, wide: int, form: str, seed: int):
    pixels = np.random.default_rng(seed).integers(0, 256, (high, wide, 3)).astype(np.uint8)
    file = encoded(pixels, form)
    (rgb,) = run_node("ImageDecoder", [file])
    assert np.array_equal(rgb, pixels)
    (bgr,) = run_node("ImageDecoder", [file], attributes={"pixel_format": "BGR"})
    assert np.array_equal(bgr, pixels[:, :, ::-1])
    (grey,) = run_node("ImageDecoder", [file], attributes={"pixel_format": "Grayscale"})
    assert grey.shape == (high, wide, 1)


@pytest.mark.parametrize("form", ["JPEG", "JPEG2000", "WEBP"])
def test_formats_that_lose_are_read_too(form: str):
    pixels = np.full((8, 8, 3), 128, np.uint8)
    (rgb,) = run_node("ImageDecoder", [encoded(pixels, form)])
    assert rgb.shape == (8, 8, 3)
    assert np.abs(rgb.astype(int) - 128).max() <= 3


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=64), st.integers(0, 200), st.sampled_from(LOSSLESS))
def test_bytes_that_are_no_whole_image_give_no_pixels(junk: bytes, cut: int, form: str):
    (none,) = run_node("ImageDecoder", [np.frombuffer(junk, np.uint8)])
    assert none.shape == (0, 0, 3)
    file = encoded(np.zeros((9, 9, 3), np.uint8), form)
    (made,) = run_node("ImageDecoder", [file[: min(cut, len(file) // 2)]])
    assert made.shape[2] == 3


def test_a_format_that_is_not_the_standard_s_is_no_image():
    file = encoded(np.zeros((2, 2, 3), np.uint8), "GIF")
    assert run_node("ImageDecoder", [file])[0].size == 0


def test_only_height_and_width_are_for_later():
    (t,) = types_of("ImageDecoder", [unknown(DataType.UINT8, 10)])
    assert [isinstance(d, int) for d in t.shape] == [False, False, True]
    with pytest.raises(InferenceError, match="pixel_format is 'CMYK'"):
        types_of("ImageDecoder", [unknown(DataType.UINT8, 10)], {"pixel_format": "CMYK"})
    with pytest.raises(InferenceError, match="give the file's bytes"):
        types_of("ImageDecoder", [unknown(DataType.UINT8, 10, 2)])


def test_without_pillow_the_refusal_says_what_to_install(monkeypatch: Any):
    monkeypatch.setattr(images, "find_spec", lambda name: None)
    with pytest.raises(InferenceError, match=r"pip install 'inference-workbench\[images\]'"):
        types_of("ImageDecoder", [unknown(DataType.UINT8, 10)])
