"""Normalizations: ONNX's semantics, and bounds that catch a wrong result."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_peer import against_peer, four_bounds_off, normal, one_node

from workbench.body import Inference, TensorType
from workbench.checks import check_outputs
from workbench.datatypes import DataType
from workbench.errors import InferenceError
from workbench.operators import operator_named

FEW = settings(max_examples=25, deadline=None)
FAMILY = (
    "BatchNormalization",
    "GroupNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "LRN",
    "RMSNormalization",
)


def arguments(op, x):
    """Inputs and attributes that fit an input (N, C, ...)."""
    c = x.shape[1]
    scale, bias, mean = normal(1, c), normal(2, c), normal(3, c)
    match op:
        case "BatchNormalization":
            return [x, scale, bias, mean, 0.5 + np.abs(normal(4, c))], {"epsilon": 1e-3}
        case "GroupNormalization":
            return [x, scale, bias], {"num_groups": 2}
        case "InstanceNormalization":
            return [x, scale, bias], {}
        case "LayerNormalization":
            return [x, normal(1, x.shape[-1]), normal(2, x.shape[-1])], {"axis": -1}
        case "RMSNormalization":
            return [x, normal(1, x.shape[-1])], {"axis": -1}
        case _:
            return [x], {"size": 3, "alpha": 0.1, "beta": 0.75, "bias": 1.5}


# ONNX Runtime applies LRN to images only.
CASES = [(op, s) for op in FAMILY for s in ((2, 4, 6), (1, 6, 5, 4)) if op != "LRN" or len(s) == 4]


@pytest.mark.parametrize(("op", "shape"), CASES)
def test_agrees_with_onnx_runtime(op, shape):
    inputs, attributes = arguments(op, normal(0, *shape))
    opset = 23 if op.startswith("RMS") else 22
    result = against_peer(op, inputs, attributes, opset=opset)
    assert result.passed, result.message


@FEW
@given(st.lists(st.integers(1, 5), min_size=2, max_size=4), st.data())
def test_layer_normalization_agrees_on_every_axis_and_output(shape, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    inner = shape[axis % len(shape) :]
    bias = normal(2, *inner) if data.draw(st.booleans()) else None
    inputs = [normal(0, *shape) + 3, normal(1, *inner), bias]
    result = against_peer("LayerNormalization", inputs, {"axis": axis}, outputs=3)
    assert result.passed, result.message


@FEW
@given(st.integers(1, 5), st.integers(1, 7), st.floats(0.1, 1.0))
def test_local_response_agrees_for_odd_and_even_windows(size, channels, beta):
    x = normal(0, 1, channels, 2, 2)
    attributes = {"size": size, "beta": beta, "alpha": 0.3}
    body, values = one_node("LRN", [x], attributes)
    assert check_outputs(body, values, body.evaluate(values)).passed
    if size % 2:
        result = against_peer("LRN", [x], attributes)
        assert result.passed, result.message


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("op", FAMILY)
def test_an_error_of_four_bounds_fails_and_the_reference_passes(op, dtype):
    inputs, attributes = arguments(op, normal(0, 2, 4, 5, 6))
    body, values = one_node(op, [v.astype(dtype) for v in inputs], attributes)
    assert check_outputs(body, values, body.evaluate(values)).passed
    assert not four_bounds_off(body, values).passed


@pytest.mark.parametrize("op", FAMILY)
def test_the_bound_of_an_inner_error_holds(op):
    """Inputs moved by as much as their bound says give outputs within the bound given."""
    inputs, attributes = arguments(op, normal(0, 2, 4, 5, 6))
    inputs = [v.astype(np.float64) for v in inputs]
    row = operator_named(op)
    full = row.complete(attributes)
    exact = row.reference(full, inputs)
    random = np.random.default_rng(7)
    errors = [1e-3 * np.abs(random.standard_normal(np.shape(v))) for v in inputs]
    bound = row.bound(full, inputs, errors, exact, 2.0**-53)[0]
    for seed in range(20):
        random = np.random.default_rng(seed)
        moved = [
            v + e * random.choice([-1, 1], v.shape) for v, e in zip(inputs, errors, strict=True)
        ]
        gap = np.abs(row.reference(full, moved)[0] - exact[0])
        assert (gap <= bound).all()


def test_a_constant_input_has_a_finite_bound():
    x = np.full((1, 2, 8), 1000.0, np.float32)
    body, values = one_node("InstanceNormalization", [x, normal(1, 2), normal(2, 2)])
    ((_, bound),) = body.exact(values).values()
    assert np.isfinite(bound).all()
    assert check_outputs(body, values, body.evaluate(values)).passed


@pytest.mark.parametrize(
    ("op", "attributes", "shapes", "said"),
    [
        ("BatchNormalization", {"training_mode": 1}, [(1, 4, 2), *[(4,)] * 4], "training mode"),
        ("BatchNormalization", {}, [(1, 4, 2), (4,), (4,), (3,), (4,)], "input 3 is"),
        ("GroupNormalization", {"num_groups": 3}, [(1, 4, 2), (4,), (4,)], "3 groups"),
        ("LayerNormalization", {"axis": 3}, [(1, 4, 2), (2,)], "axis is 3"),
        ("LayerNormalization", {}, [(1, 4, 2), (3,)], "input 1 is \\(3,\\); it does not"),
        ("RMSNormalization", {}, [(1, 4, 1), (3,)], "does not broadcast"),
    ],
)
def test_refuses_what_contradicts_itself(op, attributes, shapes, said):
    row = operator_named(op)
    types = tuple(TensorType(DataType.FLOAT, s) for s in shapes)
    with pytest.raises(InferenceError, match=said):
        row.infer(Inference(row.complete(attributes), types, (None,) * len(types)))
