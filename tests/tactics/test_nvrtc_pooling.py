"""Pooling kernels for channels-last images compute what the reference does, on the host."""

from __future__ import annotations

import numpy as np
import pytest
from host_cuda import run_on_host
from tactic_bodies import BF16, FLOAT, HALF, INT8, UINT8, Draft

from workbench.body import Body
from workbench.checks import expect
from workbench.datatypes import DataType
from workbench.formats import HWC
from workbench.records import Refusal
from workbench.sampling import sample_inputs
from workbench.tactics.nvrtc.frame import KernelText
from workbench.tactics.nvrtc.kernels import kernel, layouts_of, variant_of, variants
from workbench.tactics.nvrtc.pooling import PoolShape, pool_kernel, pool_shapes

FP8, E5M2 = DataType.FP8, DataType.FP8E5M2
RESNET = {"kernel_shape": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1)}


def pooled(
    op: str, kind: DataType, *sizes: int, channels: int = 16, **attributes: object
) -> tuple[Draft, str]:
    d = Draft()
    x = d.input(2, channels, *sizes, dtype=kind)
    return d, d.anchored(op, x, **attributes)


def agrees(body: Body) -> None:
    """The widest and the narrowest shape of the kernel give what the reference gives."""
    values = sample_inputs(body, seed=0)
    exact = expect(body, values)
    found = [v for v in variants(body) if v.name.startswith("pool ")]
    assert found
    for v in (found[0], found[-1]):
        text = kernel(body, v)
        assert isinstance(text, KernelText), text
        result = exact.check(run_on_host(body, text, values, *layouts_of(body, v)))
        assert result.passed, (v.name, result.message)


@pytest.mark.parametrize("kind", [FLOAT, HALF, BF16, INT8, UINT8, FP8, E5M2])
@pytest.mark.parametrize("sizes", [(8, 8), (7, 9)])
def test_the_largest_of_every_type_agrees_also_where_tiles_hang_over(kind, sizes):
    d, y = pooled("MaxPool", kind, *sizes, **RESNET)
    agrees(d.body(y))


@pytest.mark.parametrize(
    "window",
    [
        {"kernel_shape": (2, 2), "strides": (2, 2)},
        {"kernel_shape": (3, 2), "strides": (1, 3), "pads": (0, 1, 2, 0)},
        {"kernel_shape": (1, 1), "strides": (2, 2)},
        {"kernel_shape": (3, 3), "strides": (2, 2), "ceil_mode": 1},
        {"kernel_shape": (3, 3), "auto_pad": "SAME_UPPER", "strides": (2, 2)},
    ],
)
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_windows_of_any_step_and_padding_agree(op, window):
    d, y = pooled(op, HALF, 8, 7, **window)
    agrees(d.body(y))


@pytest.mark.parametrize("kind", [FLOAT, HALF, BF16, FP8])
@pytest.mark.parametrize("counted", [0, 1])
def test_means_agree_with_padding_counted_or_not(kind, counted):
    d, y = pooled("AveragePool", kind, 7, 7, count_include_pad=counted, **RESNET)
    agrees(d.body(y))


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_what_follows_is_computed_in_the_same_kernel(op):
    d, y = pooled(op, HALF, 7, 9, channels=24, **RESNET)
    added = d("Add", y, d.input(2, 24, 4, 5, dtype=HALF))
    agrees(d.body(d.quantize(d("Mul", added, d.weight(24, 1, 1, dtype=HALF)))))


def test_what_follows_reads_outputs_of_one_pixel():
    d, y = pooled("MaxPool", HALF, 3, 3, kernel_shape=(3, 3))
    agrees(d.body(d("Relu", y)))


@pytest.mark.parametrize("kind", [FLOAT, HALF, BF16, FP8, E5M2])
def test_a_window_with_nan_of_either_sign_gives_nan(kind):
    d, y = pooled("MaxPool", kind, 6, 6, kernel_shape=(2, 2), strides=(2, 2))
    body = d.body(y)
    values = sample_inputs(body, seed=1)
    (name,) = values
    spoiled = values[name].copy()
    spoiled[0, 0, 0, 0], spoiled[1, 3, 5, 4] = np.nan, -np.float32(np.nan)
    expected = np.isnan(spoiled.astype(np.float32)).reshape(2, 16, 3, 2, 3, 2).any(axis=(3, 5))
    assert expected.sum() == 2
    text = pool_kernel(body, pool_shapes(body)[0])
    assert isinstance(text, KernelText)
    made = run_on_host(body, text, {name: spoiled}, {name: HWC}, HWC)[body.outputs[0]]
    assert np.array_equal(np.isnan(made.astype(np.float32)), expected)


def every_byte(kind: DataType) -> np.ndarray:
    """A pair of every byte with every other one, 64 channels of each."""
    low, high = np.divmod(np.arange(65536), 256)
    pairs = np.stack([low, high], axis=-1).astype(np.uint8).reshape(1, 32, 32, 64, 2)
    return pairs.transpose(0, 3, 1, 2, 4).reshape(1, 64, 32, 64).view(kind.numpy)


@pytest.mark.parametrize("kind", [INT8, UINT8, FP8, E5M2])
def test_of_any_two_bytes_the_larger_is_found(kind):
    d = Draft()
    x = d.input(1, 64, 32, 64, dtype=kind)
    body = d.body(d.anchored("MaxPool", x, kernel_shape=(1, 2), strides=(1, 2)))
    given = every_byte(kind)
    text = pool_kernel(body, PoolShape(16, 1, 1))
    assert isinstance(text, KernelText)
    made = run_on_host(body, text, {x: given}, {x: HWC}, HWC)[body.outputs[0]]
    wide = given.astype(np.float32)
    expected = np.maximum(wide[..., ::2], wide[..., 1::2])
    assert np.array_equal(made.astype(np.float32), expected, equal_nan=True)


def test_sixteen_bytes_of_channels_a_thread_where_they_divide():
    widths = {
        (INT8, 64): {16, 8},
        (INT8, 24): {8, 4},
        (HALF, 64): {8, 4},
        (HALF, 6): {2},
        (INT8, 6): set[int](),
        (FLOAT, 3): {1},
    }
    for (kind, channels), expected in widths.items():
        d, y = pooled("MaxPool", kind, 8, 8, channels=channels, **RESNET)
        assert {s.vector for s in pool_shapes(d.body(y))} == expected, (kind, channels)


@pytest.mark.parametrize(
    ("op", "window", "why"),
    [
        ("MaxPool", {"kernel_shape": (2, 2), "dilations": (2, 2)}, "holes"),
        ("MaxPool", {"kernel_shape": (2, 2), "pads": (0, 0, 2, 2)}, "holes"),
        ("MaxPool", {"kernel_shape": (9, 9)}, "too many pixels"),
        (
            "AveragePool",
            {"kernel_shape": (2, 2), "count_include_pad": 1, "ceil_mode": 1},
            "count_include_pad",
        ),
    ],
)
def test_other_windows_are_left_to_other_kernels(op, window, why):
    d, y = pooled(op, FLOAT, 11, 11, **window)
    body = d.body(y)
    assert not pool_shapes(body)
    refused = pool_kernel(body, PoolShape(4, 1, 1))
    assert isinstance(refused, Refusal)
    assert why in refused.reason


def test_a_tactic_keeps_what_decides_its_kernel():
    d, y = pooled("MaxPool", INT8, 8, 8, **RESNET)
    body = d.body(y)
    offered = variants(body)
    assert offered[0].name == "pool k16 2x2"
    kept = variant_of(offered[0].name, "HWC", (*offered[0].parameters, ("layout", "HWC")))
    assert kept == offered[0]
