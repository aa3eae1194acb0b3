"""A result is accepted within the bound and refused beyond it, in every precision and family."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.body import Body, BodyInput, Literal, Node, TensorType
from workbench.checks import (
    Expected,
    bit_equal,
    check_outputs,
    check_rewrite,
    equivalent,
    expect,
    sample_inputs,
)
from workbench.datatypes import DataType
from workbench.dimensions import symbol
from workbench.errors import NetworkError
from workbench.network import NetworkDefinition
from workbench.operators import operator_named
from workbench.sampling import readers, small_bindings

PRECISIONS = {
    "f32": DataType.FLOAT,
    "f64": DataType.DOUBLE,
    "bf16": DataType.BF16,
    "f16": DataType.HALF,
}
UNITS = {"f64": 2.0**-53}


def node(op, inputs, outputs, **attributes):
    row = operator_named(op)
    return Node(row, tuple(inputs), tuple(outputs), row.complete(attributes))


def body_of(op, shapes, dtype, **attributes):
    inputs = tuple(BodyInput(f"i{k}", TensorType(dtype, s)) for k, s in enumerate(shapes))
    row = operator_named(op)
    return Body(
        inputs,
        (node(op, [i.name for i in inputs], ["y"], **attributes),),
        ("y",),
        None if row.pointwise else 0,
    )


# One case a family: operator, shapes, attributes.
FAMILIES = {
    "convolution": ("Conv", [(2, 4, 6, 6), (4, 4, 3, 3), (4,)], {"pads": (1,) * 4}),
    "deconvolution": ("ConvTranspose", [(2, 4, 6, 6), (4, 4, 3, 3)], {"strides": (2, 2)}),
    "matrix": ("MatMul", [(3, 8, 16), (16, 8)], {}),
    "gemm": ("Gemm", [(8, 16), (8, 16), (8,)], {"transB": 1}),
    "pooling": ("AveragePool", [(1, 2, 6, 6)], {"kernel_shape": (3, 3)}),
    "batch": ("BatchNormalization", [(2, 4, 5), (4,), (4,), (4,), (4,)], {}),
    "layer": ("LayerNormalization", [(2, 4, 16), (16,), (16,)], {}),
    "pointwise": ("Add", [(4, 5), (5,)], {}),
    "activation": ("Sigmoid", [(4, 5)], {}),
    "reduction": ("Softmax", [(4, 16)], {"axis": -1}),
    "movement": ("Transpose", [(4, 5)], {"perm": (1, 0)}),
}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_four_bounds_off_fails_and_the_reference_passes(family, precision):
    op, shapes, attributes = FAMILIES[family]
    dtype, unit = PRECISIONS[precision], UNITS.get(precision, 2.0**-24)
    body = body_of(op, shapes, dtype, **attributes)
    inputs = sample_inputs(body, seed=3)
    expected = expect(body, inputs, unit=unit)
    right = body.evaluate(inputs)["y"]
    result = expected.check({"y": right})
    assert result.passed, result.message
    exact, bound = expected.values["y"]
    for index in ((0,) * right.ndim, tuple(n - 1 for n in right.shape)):
        wrong = right.copy()
        step = 4 * max(float(bound[index]), dtype.info.eps * abs(float(exact[index])))
        wrong[index] = np.float64(exact[index]) + step
        result = expected.check({"y": wrong})
        assert not result.passed
        assert result.worst > 1
        assert result.where == f"y{list(index)}"


def requantized():
    """int8 in, int8 weights, float accumulation, bias, ReLU, int8 out: a fused INT8 layer."""
    int8, real = DataType.INT8, DataType.FLOAT
    return Body(
        (
            BodyInput("x", TensorType(int8, (2, 8, 5, 5))),
            BodyInput("w", TensorType(int8, (6, 8, 3, 3)), True),
            BodyInput("b", TensorType(real, (6,)), True),
            BodyInput("sx", TensorType(real, ()), True),
            BodyInput("sw", TensorType(real, (6,)), True),
            BodyInput("sy", TensorType(real, ()), True),
            BodyInput("zy", TensorType(int8, ()), True),
        ),
        (
            node("DequantizeLinear", ["x", "sx"], ["xf"]),
            node("DequantizeLinear", ["w", "sw"], ["wf"], axis=0),
            node("Conv", ["xf", "wf", "b"], ["c"]),
            node("Relu", ["c"], ["r"]),
            node("QuantizeLinear", ["r", "sy", "zy"], ["y"]),
        ),
        ("y",),
        2,
    )


def test_an_int8_layer_two_steps_off_fails():
    body = requantized()
    inputs = sample_inputs(body, seed=1)
    inputs["sy"] = np.asarray(np.float32(4.0))
    right = body.evaluate(inputs)["y"]
    assert 0 < right.max() < 126
    assert check_outputs(body, inputs, {"y": right}).passed
    wrong = right.copy()
    wrong[0, 0, 0, 0] += 2
    assert not check_outputs(body, inputs, {"y": wrong}).passed


def test_an_int8_layer_may_be_one_step_off_where_the_float_error_explains_it():
    """A wide bound does not excuse two steps: integer sums are exact."""
    body = requantized()
    inputs = sample_inputs(body, seed=1)
    inputs["sy"] = np.asarray(np.float32(4.0))
    right = body.evaluate(inputs)["y"].astype(np.int64)
    coarse = 2.0**-12
    # What ReLU made zero is zero without error.
    one, two = (np.where(right > 3, right + k, right).astype(np.int8) for k in (1, 2))
    assert check_outputs(body, inputs, {"y": one}, unit=coarse).passed
    assert not check_outputs(body, inputs, {"y": two}, unit=coarse).passed
    assert check_outputs(body, inputs, {"y": two}, unit=coarse, steps=2).passed


def test_integers_and_bools_are_exact():
    body = body_of("Greater", [(3,), (3,)], DataType.FLOAT)
    inputs = {"i0": np.float32([1, 2, 3]), "i1": np.float32([2, 2, 2])}
    assert check_outputs(body, inputs, {"y": np.array([False, False, True])}).passed
    assert not check_outputs(body, inputs, {"y": np.array([False, True, True])}).passed
    body = body_of("Add", [(1,), (1,)], DataType.INT64)
    huge = {"i0": np.array([2**60]), "i1": np.array([1])}
    assert check_outputs(body, huge, {"y": np.array([2**60 + 1])}).passed
    assert not check_outputs(body, huge, {"y": np.array([2**60])}).passed


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, "is missing"),
        ({"y": np.zeros((5, 3), np.float32)}, r"has shape \(5, 3\), expected \(4, 5\)"),
        ({"y": np.zeros((4, 5), np.float64)}, "has type float64, expected float32"),
        ({"y": np.full((4, 5), np.nan, np.float32)}, "is nan, expected"),
    ],
)
def test_a_misfit_is_named(wrong, said):
    body = body_of("Sigmoid", [(4, 5)], DataType.FLOAT)
    result = check_outputs(body, sample_inputs(body), wrong)
    assert not result
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(result.message)


def test_overflow_and_underflow_of_a_half_are_what_its_type_stores():
    body = body_of("Exp", [(3,)], DataType.HALF)
    inputs = {"i0": np.array([20.0, -17.5, 1.0], np.float16)}
    right = body.evaluate(inputs)["y"]
    assert right[0] == np.inf
    assert check_outputs(body, inputs, {"y": right}).passed
    assert check_outputs(body, inputs, {"y": np.array([np.inf, 0, right[2]], np.float16)}).passed
    finite = np.array([60000, right[1], right[2]], np.float16)
    assert not check_outputs(body, inputs, {"y": finite}).passed


def test_infinities_and_nan_must_match():
    body = body_of("Log", [(3,)], DataType.FLOAT)
    inputs = {"i0": np.float32([0, -1, 1])}
    right = np.float32([-np.inf, np.nan, 0])
    assert check_outputs(body, inputs, {"y": right}).passed
    assert not check_outputs(body, inputs, {"y": np.float32([np.inf, np.nan, 0])}).passed
    assert not check_outputs(body, inputs, {"y": np.float32([-np.inf, 0, 0])}).passed


@given(
    out=st.lists(
        st.floats(-8, 8, width=32) | st.sampled_from([np.nan, np.inf, -np.inf]), min_size=1
    ),
    exact=st.lists(st.floats(-8, 8), min_size=1),
    bound=st.floats(1e-6, 4),
)
def test_the_worst_element_is_the_largest_distance_in_bounds(out, exact, bound):
    size = min(len(out), len(exact))
    x, b = np.array(exact[:size]), np.full(size, bound)
    found = np.array(out[:size], np.float32)
    expected = Expected({"y": (x, b)}, {"y": DataType.FLOAT}, None)
    ratio = np.abs(found.astype(np.float64) - x) / b
    largest = float(np.max(np.where(np.isnan(ratio), np.inf, ratio)))
    result = expected.check({"y": found})
    assert result.worst == largest and result.passed == (largest <= 1)
    # An infinite element is compared another way, and the others as before.
    longer = Expected({"y": (np.append(x, np.inf), np.append(b, 1))}, {"y": DataType.FLOAT}, None)
    assert longer.check({"y": np.append(found, np.float32(np.inf))}).worst == largest


def test_a_number_without_axes_is_compared():
    expected = Expected({"y": (np.float64(3.0), np.float64(0.5))}, {"y": DataType.FLOAT}, None)
    assert expected.check({"y": np.float32(3.25)}).worst == 0.5
    assert not expected.check({"y": np.float32(np.nan)}).passed


def test_a_check_that_could_see_nothing_does_not_pass():
    """1 / (e - e + tiny), with an error in e: any result would lie within an infinite bound."""
    tiny = Literal(DataType.FLOAT, (), (1e-9,))
    body = Body(
        (BodyInput("x", TensorType(DataType.FLOAT, (4,))),),
        (
            Node(operator_named("Constant"), (), ("t",), {"value": tiny}),
            node("Exp", ["x"], ["e"]),
            node("Sub", ["e", "e"], ["d"]),
            node("Add", ["d", "t"], ["s"]),
            node("Reciprocal", ["s"], ["y"]),
        ),
        ("y",),
    )
    inputs = sample_inputs(body)
    result = check_outputs(body, inputs, {"y": np.ones(4, np.float32)})
    assert not result.passed
    assert "have no finite bound" in result.message


def test_bit_equality_sees_signs_of_zero_and_equal_nans():
    one = {"y": np.float32([0.0, np.nan])}
    assert bit_equal(one, {"y": np.float32([0.0, np.nan])})
    assert not bit_equal(one, {"y": np.float32([-0.0, np.nan])})
    assert not bit_equal(one, {"z": one["y"]})
    assert not bit_equal(one, {"y": one["y"].astype(np.float64)})


# -- sampling -----------------------------------------------------------------------------
def test_samples_are_reproducible_and_differ_by_seed():
    body = body_of("Conv", [(1, 2, 5, 5), (3, 2, 3, 3)], DataType.FLOAT)
    assert bit_equal(sample_inputs(body, seed=1), sample_inputs(body, seed=1))
    assert not bit_equal(sample_inputs(body, seed=1), sample_inputs(body, seed=2))


def test_given_constants_are_kept():
    body = body_of("Conv", [(1, 2, 5, 5), (3, 2, 3, 3)], DataType.FLOAT)
    kernel = np.ones((3, 2, 3, 3), np.float32)
    assert sample_inputs(body, constants={"i1": kernel})["i1"] is kernel


def test_indices_lie_within_the_axis_that_they_index():
    body = Body(
        (
            BodyInput("table", TensorType(DataType.FLOAT, (7, 4))),
            BodyInput("index", TensorType(DataType.INT64, (50,))),
        ),
        (
            Node(
                operator_named("Constant"),
                (),
                ("shape",),
                {"value": Literal(DataType.INT64, (2,), (5, 10))},
            ),
            node("Reshape", ["index", "shape"], ["i2"]),
            node("Gather", ["table", "i2"], ["y"], axis=0),
        ),
        ("y",),
        2,
    )
    index = sample_inputs(body)["index"]
    assert index.min() >= 0
    assert 3 < index.max() < 7
    assert [(n.op, i) for n, i in readers(body, "index")] == [("Gather", 1)]


def test_samples_follow_their_readers():
    body = requantized()
    values = sample_inputs(body)
    assert values["x"].min() < -100
    assert values["x"].max() > 100
    assert (values["sw"] > 0).all()
    assert values["zy"] == 0
    batch = body_of("BatchNormalization", FAMILIES["batch"][1], DataType.FLOAT)
    assert (sample_inputs(batch)["i4"] > 0).all()
    mask = body_of("Cast", [(50,)], DataType.INT64, to=DataType.FLOAT)
    assert set(sample_inputs(mask)["i0"].tolist()) == {0, 1}


def test_symbolic_sizes_are_refused_and_small_ones_found():
    h = symbol("h")
    body = Body(
        (BodyInput("x", TensorType(DataType.FLOAT, (symbol("n"), 1, h))),),
        (node("MaxPool", ["x"], ["y"], kernel_shape=(9,)),),
        ("y",),
        0,
    )
    with pytest.raises(NetworkError, match="substitute the symbols first"):
        sample_inputs(body)
    sizes = small_bindings(body)
    assert sizes["h"] >= 9
    assert body.substitute(sizes).output_types[0].shape[2] > 0


# -- rewrites -----------------------------------------------------------------------------
def folded(error=0.0):
    """Conv and batch normalization, and the convolution that they fold into."""
    random = np.random.default_rng(0)
    constants = {
        "w": random.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "scale": random.standard_normal(4).astype(np.float32),
        "bias": random.standard_normal(4).astype(np.float32),
        "mean": random.standard_normal(4).astype(np.float32),
        "var": (0.5 + random.random(4)).astype(np.float32),
    }
    x = BodyInput("x", TensorType(DataType.FLOAT, (symbol("n"), 3, symbol("h"), symbol("h"))))
    kinds = tuple(
        BodyInput(k, TensorType(DataType.FLOAT, v.shape), True) for k, v in constants.items()
    )
    names = ["c", *list(constants)[1:]]
    before = Body(
        (x, *kinds),
        (node("Conv", ["x", "w"], ["c"]), node("BatchNormalization", names, ["y"])),
        ("y",),
        0,
    )
    factor = constants["scale"] / np.sqrt(constants["var"] + 1e-5)
    merged = {
        "w2": (constants["w"] * factor[:, None, None, None] * (1 + error)).astype(np.float32),
        "b2": (constants["bias"] - constants["mean"] * factor).astype(np.float32),
    }
    after = Body(
        (x, *(BodyInput(k, TensorType(DataType.FLOAT, v.shape), True) for k, v in merged.items())),
        (node("Conv", ["x", "w2", "b2"], ["z"]),),
        ("z",),
        0,
    )
    return before, after, constants, merged


def test_a_right_fold_passes_and_a_wrong_one_fails():
    before, after, constants, merged = folded()
    result = check_rewrite(before, after, constants=constants, after_constants=merged)
    assert result.passed, result.message
    before, after, constants, merged = folded(error=1e-3)
    result = check_rewrite(before, after, constants=constants, after_constants=merged)
    assert not result.passed


def test_inputs_of_a_rewrite_may_be_renamed_but_not_invented():
    body = body_of("Relu", [(3,)], DataType.FLOAT)
    other = Body(
        (BodyInput("t", TensorType(DataType.FLOAT, (3,))),), (node("Relu", ["t"], ["r"]),), ("r",)
    )
    assert check_rewrite(body, other, names=lambda _: "i0").passed
    with pytest.raises(NetworkError, match="input 't' of the rewritten Body has no value"):
        check_rewrite(body, other)


def test_equivalence_compares_types_and_counts():
    relu, cast = (
        body_of("Relu", [(3,)], DataType.FLOAT),
        body_of("Cast", [(3,)], DataType.FLOAT, to=DataType.HALF),
    )
    values = {"i0": np.float32([1, 2, 3])}
    assert "was FLOAT[3], is HALF[3]" in equivalent(relu, cast, values).message
    none = Body(relu.inputs, relu.nodes, ())
    assert not equivalent(relu, none, values).passed


def test_a_network_layer_is_checked_with_its_own_names():
    network = NetworkDefinition()
    x = network.add_input("x", "BF16", (2, 3, 8, 8))
    w = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(ml_dtypes.bfloat16)
    layer = network.add_layer("Conv", [x, network.constant(w, "w")])
    network.mark_output(layer.get_output(0))
    inputs = sample_inputs(layer.body, constants={"w": w})
    assert check_outputs(layer.body, inputs, layer.body.evaluate(inputs)).passed
