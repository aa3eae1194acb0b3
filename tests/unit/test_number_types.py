"""The table of types, bit by bit against the formats' definitions."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import numpy_helper

import workbench as wb
from workbench.datatypes import DataType
from workbench.devices import open_device
from workbench.errors import ConfigError
from workbench.lab.number_types import (
    number_types,
    pack_int4,
    round_trip,
    to_tf32,
    unpack_int4,
)

RNG = np.random.default_rng(5)
ROWS = {r.label: r for r in number_types(open_device("cpu"))}


def nearest(values, exponent_bits, mantissa_bits, *, top, bias=None) -> np.ndarray:
    """Every value rounded to the nearest number of a small float format, ties to an even last bit.

    Written from the definition: all numbers are listed. top: the largest of them.
    """
    bias = 2 ** (exponent_bits - 1) - 1 if bias is None else bias
    numbers = []
    for code in range(2 ** (exponent_bits + mantissa_bits)):
        exponent, mantissa = divmod(code, 2**mantissa_bits)
        part = mantissa / 2**mantissa_bits
        scale = 2.0 ** (max(exponent, 1) - bias)
        numbers.append((part if exponent == 0 else 1 + part) * scale)
    numbers = [n for n in numbers if n <= top]
    rounded = []
    for x in np.asarray(values, np.float64).reshape(-1):
        distances = [abs(abs(x) - n) for n in numbers]
        least = min(distances)
        ties = [i for i, d in enumerate(distances) if d == least]
        code = next((i for i in ties if i % 2 == 0), ties[0])
        rounded.append(math.copysign(numbers[code], x))
    return np.array(rounded, np.float32)


# -- formats --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("label", "bits", "high", "normal", "step", "eps"),
    [
        ("FP32", 32, (2 - 2.0**-23) * 2.0**127, 2.0**-126, 2.0**-149, 2.0**-23),
        ("TF32", 32, (2 - 2.0**-23) * 2.0**127, 2.0**-126, 2.0**-136, 2.0**-10),
        ("FP16", 16, 65504.0, 2.0**-14, 2.0**-24, 2.0**-10),
        ("BF16", 16, (2 - 2.0**-7) * 2.0**127, 2.0**-126, 2.0**-133, 2.0**-7),
        ("FP8 E4M3", 8, 448.0, 2.0**-6, 2.0**-9, 2.0**-3),
        ("FP8 E5M2", 8, 57344.0, 2.0**-14, 2.0**-16, 2.0**-2),
        ("FP4", 4, 6.0, 1.0, 0.5, 0.5),
        ("INT8", 8, 127.0, 1.0, 1.0, 1.0),
        ("UINT8", 8, 255.0, 1.0, 1.0, 1.0),
        ("INT4", 4, 7.0, 1.0, 1.0, 1.0),
        ("INT32", 32, 2.0**31 - 1, 1.0, 1.0, 1.0),
        ("INT64", 64, float(2**63 - 1), 1.0, 1.0, 1.0),
        ("BOOL", 8, 1.0, 1.0, 1.0, 1.0),
    ],
)
def test_a_row_states_what_the_format_defines(label, bits, high, normal, step, eps):
    row = ROWS[label]
    assert (row.bits, row.high, row.smallest_normal) == (bits, high, normal)
    assert (row.smallest_step, row.eps) == (step, eps)
    if row.dtype.is_float:
        assert row.largest_relative_error == pytest.approx(eps / 2 / (1 + eps / 2))


def test_a_row_says_where_the_type_runs():
    device = open_device("cpu")
    assert ROWS["FP32"].runs == "native"
    assert ROWS["BF16"].runs == ("native" if device.native(DataType.BF16) else "emulated")
    assert ROWS["TF32"].runs == "emulated"
    assert ROWS["UINT8"].runs == "input and output only"
    assert ROWS["FP4"].runs.startswith("documented")
    assert ROWS["INT4"].runs == "weights only, emulated"
    assert {r.runs for r in number_types() if r.dtype is DataType.HALF} == {"not asked"}


# -- rounding -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        (0x3F800000, 0x3F800000),  # 1 stays
        (0x3F801000, 0x3F800000),  # half a step above 1: tie, to the even 1
        (0x3F801001, 0x3F802000),  # a bit more: up
        (0x3F800FFF, 0x3F800000),  # a bit less: down
        (0x3F803000, 0x3F804000),  # tie above an odd number: up to the even
        (0xBF803000, 0xBF804000),  # and the same below zero
        (0x3FFFF000, 0x40000000),  # carries into the exponent
        (0x7F7FFFFF, 0x7F800000),  # beyond the largest: infinite
        (0x7F7FEFFF, 0x7F7FE000),  # the largest that stays finite
        (0x7F800000, 0x7F800000),  # infinity stays
        (0x00001000, 0x00000000),  # a subnormal tie: to zero
        (0x00001001, 0x00002000),  # and above it
        (0x80000000, 0x80000000),  # minus zero stays
    ],
)
def test_tf32_keeps_ten_bits_and_rounds_ties_to_even(bits, expected):
    x = np.array([bits], np.uint32).view(np.float32)
    assert to_tf32(x).view(np.uint32)[0] == expected


def test_tf32_of_nan_is_nan_and_a_rounded_number_stays():
    assert np.isnan(to_tf32(np.array([np.nan], np.float32)))[0]
    x = to_tf32(RNG.standard_normal(1000).astype(np.float32))
    np.testing.assert_array_equal(to_tf32(x), x)
    assert not (x.view(np.uint32) & 0x1FFF).any()


@pytest.mark.parametrize(
    ("kind", "layout"),
    [
        (DataType.FP8, {"exponent_bits": 4, "mantissa_bits": 3, "top": 448}),
        (DataType.FP8E5M2, {"exponent_bits": 5, "mantissa_bits": 2, "top": 57344}),
        (DataType.FP4, {"exponent_bits": 2, "mantissa_bits": 1, "top": 6}),
    ],
)
def test_small_floats_round_as_their_definition_says(kind: DataType, layout):
    """With the largest number of the format in every block, the scale is exactly 1."""
    values = RNG.uniform(-layout["top"], layout["top"], 15 * 16)
    values[: len(values) // 2] *= 2.0 ** RNG.integers(-20, 0, len(values) // 2)
    if kind is DataType.FP4:
        values[:60] = np.tile(np.arange(0.25, 3.25, 0.25), 5)  # ties and exact numbers
    rows = np.concatenate([np.full((16, 1), layout["top"]), values.reshape(16, 15)], axis=1)
    x = rows.astype(np.float32)
    np.testing.assert_array_equal(round_trip(x, kind).values.reshape(-1), nearest(x, **layout))


def test_halves_round_as_their_definition_says():
    for kind, layout in (
        (DataType.HALF, {"exponent_bits": 5, "mantissa_bits": 10, "top": 65504}),
        (DataType.BF16, {"exponent_bits": 8, "mantissa_bits": 7, "top": 3.3895e38}),
    ):
        x = (RNG.standard_normal(40) * 10.0 ** RNG.integers(-6, 4, 40)).astype(np.float32)
        np.testing.assert_array_equal(round_trip(x, kind).values, nearest(x, **layout))


def test_every_stored_half_comes_back_as_it_was():
    for kind in (DataType.HALF, DataType.BF16):
        codes = np.arange(2**16, dtype=np.uint16).view(kind.info.numpy)
        x = codes.astype(np.float32)
        finite = x[np.isfinite(x)]
        np.testing.assert_array_equal(round_trip(finite, kind).values, finite)


def test_what_is_too_large_for_fp16_is_lost_and_said_to_be():
    found = round_trip(np.array([1.0, 70000.0, 1e-9, 2.0]), "FP16")
    assert np.isinf(found.values[1])
    assert (found.lost, found.max_abs, found.sqnr_db) == (0.5, math.inf, -math.inf)
    assert round_trip(np.array([1.0, 70000.0]), "BF16").lost == 0


# -- integers -------------------------------------------------------------------------------
@given(
    hnp.arrays(np.float32, (4, 6), elements=st.floats(-1e4, 1e4, width=32)),
    st.sampled_from([None, 0, 1]),
)
@settings(max_examples=60, deadline=None)
def test_int8_rounds_as_quantize_linear_does(x, axis):
    found = round_trip(x, DataType.INT8, axis=axis)
    largest = np.abs(x).max(axis=None if axis is None else 1 - axis, keepdims=True)
    scale = np.where(largest > 0, largest, 1).astype(np.float32) / np.float32(127)
    scale = np.maximum(scale, np.finfo(np.float32).tiny)
    stored = np.clip(np.rint(x / scale), -127, 127).astype(np.int8)
    np.testing.assert_array_equal(found.values, stored.astype(np.float32) * scale)
    assert found.max_abs <= scale.max() / 2 * (1 + 1e-4)


def test_a_scale_a_channel_loses_less_than_one_a_tensor():
    x = (RNG.standard_normal((8, 100)) * 2.0 ** np.arange(8)[:, None]).astype(np.float32)
    whole, each = (round_trip(x, "INT8", axis=a) for a in (None, 0))
    assert each.relative_l2 < whole.relative_l2
    assert each.bits == pytest.approx(8 + 32 * 8 / 800)


def test_int4_has_a_scale_a_block_of_32_and_the_tail_has_its_own():
    x = RNG.standard_normal((3, 70)).astype(np.float32)
    found = round_trip(x, DataType.INT4)
    for start in (0, 32, 64):
        part = x[:, start : start + 32]
        scale = np.abs(part).max(axis=1, keepdims=True) / np.float32(7)
        wanted = (np.clip(np.rint(part / scale), -7, 7) * scale).astype(np.float32)
        np.testing.assert_array_equal(found.values[:, start : start + 32], wanted)
    assert found.bits == pytest.approx(4 + 32 * 9 / 210)


def test_uint8_has_a_zero_point_and_keeps_zero_exactly():
    x = np.array([-0.5, 0.0, 0.3, 2.0], np.float32)
    found = round_trip(x, DataType.UINT8)
    assert found.values[1] == 0
    assert found.max_abs <= 2.5 / 255


@given(hnp.arrays(np.int8, st.integers(0, 33), elements=st.integers(-8, 7)))
@settings(max_examples=50, deadline=None)
def test_int4_is_packed_two_per_byte_as_onnx_packs_it(values):
    packed = pack_int4(values)
    assert len(packed) == -(-len(values) // 2)
    np.testing.assert_array_equal(unpack_int4(packed, len(values)), values)
    stored = numpy_helper.from_array(values.astype(ml_dtypes.int4), "w")
    assert stored.data_type == onnx.TensorProto.INT4
    assert stored.raw_data == packed.tobytes()


def test_a_value_beyond_four_bits_is_refused():
    with pytest.raises(ConfigError, match=r"-9..3 is beyond -8..7"):
        pack_int4([3, -9])


# -- errors and the table ---------------------------------------------------------------------
def test_errors_are_those_of_the_values_that_come_back():
    x = RNG.standard_normal(500).astype(np.float32)
    for kind in ("TF32", "FP16", "BF16", "FP8", "INT8", "INT4", "FP4"):
        found = round_trip(x, kind)
        off = x.astype(np.float64) - found.values
        assert found.max_abs == np.abs(off).max()
        assert found.relative_l2 == pytest.approx(np.linalg.norm(off) / np.linalg.norm(x))
        assert found.sqnr_db == pytest.approx(-20 * np.log10(found.relative_l2))


def test_zeros_constants_and_tiny_values_pass_through_every_type_without_nan():
    for x in (np.zeros(5), np.full(5, 3.0), np.full(40, 1e-41), np.float32(2.0)):
        for row in number_types(every=True):
            if row.dtype.is_float or row.dtype in (DataType.INT8, DataType.INT4, DataType.UINT8):
                if row.dtype is DataType.E8M0:
                    continue
                assert not np.isnan(round_trip(x, row.dtype).values).any()


def test_nan_emptiness_and_types_without_real_numbers_are_refused():
    with pytest.raises(ConfigError, match="NaN"):
        round_trip([np.nan], "INT8")
    with pytest.raises(ConfigError, match="empty"):
        round_trip([], "INT8")
    with pytest.raises(ConfigError, match="INT64 stores no real numbers"):
        round_trip([1.0], "INT64")


def test_the_table_has_a_row_a_type_and_the_error_on_a_tensor():
    plain = wb.type_table()
    assert plain["Type"].tolist() == [
        *("FP32", "TF32", "FP16", "BF16", "FP8 E4M3", "FP8 E5M2"),
        *("INT8", "UINT8", "INT4", "FP4", "INT32", "INT64", "BOOL"),
    ]
    assert len(wb.type_table(every=True)) > len(plain)
    weight = RNG.standard_normal((16, 9)).astype(np.float32)
    table = wb.type_table(weight, axis=0).set_index("Type")
    assert table.loc["FP32", "Max error"] == 0
    order = ["TF32", "BF16", "FP8 E4M3", "FP8 E5M2"]
    assert table.loc[order, "Relative L2"].is_monotonic_increasing
    assert table.loc["INT8", "Relative L2"] == round_trip(weight, "INT8", axis=0).relative_l2
    assert table.loc[["INT32", "INT64", "BOOL"], "Relative L2"].isna().all()
