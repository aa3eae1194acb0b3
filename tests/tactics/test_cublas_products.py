"""What Bodies are as cuBLASLt products, and why some are none; needs neither library nor GPU."""

from __future__ import annotations

import pytest
from library_bodies import LIBRARY_BODIES
from tactic_bodies import BODIES, problem_of

from workbench.datatypes import DataType
from workbench.formats import HWC
from workbench.records import Refusal
from workbench.tactics.cublas_lt.product import Product, tanh_gelu_suffices
from workbench.tactics.cublas_lt.source import stored_product


def product(name: str) -> Product:
    found = stored_product(problem_of((BODIES | LIBRARY_BODIES)[name](2))[0])
    assert not isinstance(found, Refusal), found
    return found


def refusal(name: str) -> Refusal:
    found = stored_product(problem_of((BODIES | LIBRARY_BODIES)[name](2))[0])
    assert isinstance(found, Refusal), found
    return found


def test_a_residual_goes_through_c_beside_bias_and_activation():
    p = product("resnet_1x1_residual")
    assert p.bias and p.residual and p.activation == "Relu" and p.layout is HWC
    assert (p.m, p.n, p.k) == (2 * 14 * 14, 64, 32)


def test_tanh_gelu_stands_for_erf_gelu_only_where_the_bound_allows_it():
    assert tanh_gelu_suffices(DataType.BF16, 2) and not tanh_gelu_suffices(DataType.HALF, 2)
    assert product("linear_gelu_bf16").activation == "Gelu"
    assert product("linear_gelu_tanh").activation == "Gelu"
    assert "tanh" in refusal("linear_gelu").reason


def test_batches_are_strided_and_a_transpose_is_read_turned():
    p = product("batched_turned")
    assert (p.batch, p.m, p.n, p.k) == (8, 16, 24, 32)
    assert p.b.turned and p.b.stride == 24 * 32


def test_factors_of_one_number_go_into_alpha():
    assert product("attention_scores").number == 0.25


def test_int8_is_stored_as_int8_without_epilogue_only():
    assert product("int8_linear_plain").scale is not None
    assert "per channel" in refusal("int8_linear").reason


def test_what_it_lacks_is_named():
    assert "Clip" in refusal("mobilenet_expand").reason
    assert "1x1" in refusal("resnet_3x3").reason


@pytest.mark.parametrize("name", [*BODIES, *LIBRARY_BODIES])
def test_every_body_is_a_product_or_refused_with_its_reason(name):
    found = stored_product(problem_of((BODIES | LIBRARY_BODIES)[name](2))[0])
    assert isinstance(found, Product) or (found.reason and found.code)


def test_fp8_weights_of_a_scale_a_channel_are_scaled_by_columns():
    p = product("fp8_linear_halves")
    assert p.columns is not None and p.bias and p.residual and p.out is DataType.HALF
    assert "no FP8" in refusal("fp8_linear").reason
    assert "per channel" in refusal("int8_linear_halves").reason
