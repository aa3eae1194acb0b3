"""Bodies: signatures up to renaming, JSON, evaluation, binding of sizes."""

from __future__ import annotations

import json
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.body import (
    CONSTANT,
    Body,
    BodyInput,
    Inference,
    Literal,
    Node,
    TensorType,
    infer,
    interpret,
)
from workbench.datatypes import DataType
from workbench.dimensions import symbol
from workbench.errors import ExecutionError, InferenceError, NetworkError
from workbench.operators import FAMILIES, OPERATORS, operator_named

FEW = settings(max_examples=40, deadline=None)


def node(op, inputs, outputs, **attributes):
    row = operator_named(op)
    return Node(row, tuple(inputs), tuple(outputs), row.complete(attributes))


def constant(name, array, dtype=None):
    return Node(CONSTANT, (), (name,), {"value": Literal.of(np.asarray(array), dtype)})


def conv_body(names=("x", "w", "b", "c", "y"), sizes=("n", "h"), dtype=DataType.FLOAT, stride=1):
    """A convolution with bias and a clip, under any names."""
    x, w, b, c, y = names
    n, h = (symbol(s) for s in sizes)
    return Body(
        (
            BodyInput(x, TensorType(dtype, (n, 3, h, h))),
            BodyInput(w, TensorType(dtype, (4, 3, 3, 3)), True),
            BodyInput(b, TensorType(dtype, (4,)), True),
        ),
        (
            node("Conv", [x, w, b], [c], strides=(stride, stride)),
            constant(f"{c}_low", np.zeros((), dtype.numpy)),
            node("Clip", [c, f"{c}_low"], [y]),
        ),
        (y,),
        0,
    )


def values_of(body, seed=0, **sizes):
    random = np.random.default_rng(seed)
    small = body.substitute(sizes)
    return {
        i.name: random.standard_normal(i.type.shape).astype(i.type.dtype.numpy)
        for i in small.inputs
    }


# -- identity -----------------------------------------------------------------------------
NAMES = st.lists(
    st.text("abcxyz_./:'", min_size=1, max_size=6), min_size=5, max_size=5, unique=True
)


@FEW
@given(NAMES, st.permutations(["a", "batch", "z9", "s1", "s0"]))
def test_the_signature_does_not_depend_on_names(names, sizes):
    assert conv_body(names, sizes[:2]).signature == conv_body().signature


def test_the_signature_depends_on_everything_else():
    one = conv_body()
    swapped = Body(one.inputs, one.nodes, one.outputs, None)
    others = [
        conv_body(dtype=DataType.HALF),
        conv_body(stride=2),
        conv_body(sizes=("n", "n")),
        one.substitute({"h": 8}),
        swapped,
        Body(one.inputs, one.nodes, ("c",), one.anchor),
        Body(tuple(BodyInput(i.name, i.type) for i in one.inputs), one.nodes, one.outputs, 0),
    ]
    signatures = {b.signature for b in (one, *others)}
    assert len(signatures) == len(others) + 1


def test_the_signature_survives_json():
    again = Body.from_json(json.loads(json.dumps(conv_body().to_json())), operator_named)
    assert again.signature == conv_body().signature


def test_literals_with_sizes_are_renamed_in_the_signature():
    def reshaped(name):
        n = symbol(name)
        sizes = np.empty(2, object)
        sizes[:] = [n * 2, 3]
        return Body(
            (BodyInput("x", TensorType(DataType.FLOAT, (n, 6))),),
            (constant("s", sizes, DataType.INT64), node("Reshape", ["x", "s"], ["y"])),
            ("y",),
        )

    assert reshaped("a").signature == reshaped("other").signature
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    assert reshaped("a").evaluate({"x": x})["y"].shape == (8, 3)


# -- JSON ---------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", [DataType.FLOAT, DataType.HALF, DataType.BF16, DataType.DOUBLE])
def test_json_comes_back_equal_and_computes_the_same(dtype):
    body = conv_body(dtype=dtype)
    text = json.dumps(body.to_json(), sort_keys=True)
    again = Body.from_json(json.loads(text), operator_named)
    assert json.dumps(again.to_json(), sort_keys=True) == text
    values = values_of(body, n=2, h=5)
    np.testing.assert_array_equal(body.evaluate(values)["y"], again.evaluate(values)["y"])


@pytest.mark.parametrize(
    "array",
    [
        np.float32([0.1, -np.inf, np.inf, 3e38]),
        np.array([1, 2], ml_dtypes.bfloat16),
        np.array([1.5], np.float16),
        np.array([[-8, 7]], ml_dtypes.int4),
        np.array([2**62, -(2**62)]),
        np.array([2**64 - 1], np.uint64),
        np.array([True, False]),
        np.array(3.5),
        np.zeros((0,), np.int64),
        np.array([448.0], ml_dtypes.float8_e4m3fn),
    ],
    ids=lambda a: str(a.dtype),
)
def test_literals_come_back_to_the_last_bit(array):
    body = Body((), (constant("y", array),), ("y",))
    again = Body.from_json(json.loads(json.dumps(body.to_json())), operator_named)
    back = again.evaluate({})["y"]
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


def test_attributes_of_every_kind_come_back():
    inner = conv_body()
    values = {
        "value": Literal.of(np.float32([1, 2])),
        "body": inner,
        "type": DataType.BF16,
        "numbers": (1, 2, (3,)),
        "none": None,
        "text": "abc",
        "real": 0.1,
    }
    body = Body((), (Node(CONSTANT, (), ("y",), values),), ("y",))
    again = Body.from_json(json.loads(json.dumps(body.to_json())), operator_named)
    back = again.nodes[0].attributes
    assert back["body"].signature == inner.signature
    assert {k: v for k, v in back.items() if k != "body"} == {
        k: v for k, v in values.items() if k != "body"
    }


def test_an_unknown_operator_in_json_is_named():
    data = conv_body().to_json()
    data["nodes"][0][0] = "Convolve"
    with pytest.raises(NetworkError, match="operator Convolve is not implemented"):
        Body.from_json(data, operator_named)


# -- sizes --------------------------------------------------------------------------------
def test_shapes_bind_symbols():
    body = conv_body()
    assert body.symbols == ("n", "h")
    assert body.bind({"x": (2, 3, 9, 9)}) == {"n": 2, "h": 9}
    assert body.bind({}) == {}


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((2, 3, 9), "has rank 4"),
        ((2, 4, 9, 9), "size 3 is 3, given 4"),
        ((2, 3, 9, 8), "size h is 9, given 8"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(shape, said):
    with pytest.raises(NetworkError, match=f"input 'x'.*{said}"):
        conv_body().bind({"x": shape})


def test_a_size_that_is_an_expression_is_checked_once_its_symbols_are_bound():
    n = symbol("n")
    body = Body(
        (
            BodyInput("double", TensorType(DataType.FLOAT, (n * 2,))),
            BodyInput("single", TensorType(DataType.FLOAT, (n,))),
        ),
        (node("Relu", ["double"], ["y"]),),
        ("y",),
    )
    assert body.bind({"double": (6,), "single": (3,)}) == {"n": 3}
    with pytest.raises(NetworkError, match=r"input 'double': size 2\*n is 6, given 7"):
        body.bind({"double": (7,), "single": (3,)})


def test_substitution_by_symbols_renames_and_by_numbers_binds():
    body = conv_body()
    renamed = body.substitute({"n": symbol("batch")})
    assert renamed.symbols == ("batch", "h")
    bound = body.substitute({"n": 2, "h": 6})
    assert bound.symbols == ()
    assert bound.output_types == (TensorType(DataType.FLOAT, (2, 4, 4, 4)),)


# -- structure ----------------------------------------------------------------------------
def test_the_prologue_is_what_the_anchor_depends_on():
    body = Body(
        (
            BodyInput("x", TensorType(DataType.INT8, (2, 3, 8, 8))),
            BodyInput("w", TensorType(DataType.INT8, (4, 3, 3, 3)), True),
            BodyInput("s", TensorType(DataType.FLOAT, ()), True),
        ),
        (
            node("DequantizeLinear", ["x", "s"], ["xf"]),
            node("DequantizeLinear", ["w", "s"], ["wf"]),
            node("Conv", ["xf", "wf"], ["c"]),
            node("Relu", ["c"], ["y"]),
        ),
        ("y",),
        2,
    )
    assert body.prologue == {0, 1}
    assert body.anchor_node is not None
    assert body.anchor_node.op == "Conv"
    assert body.compute_type is DataType.INT8
    assert [i.name for i in body.dynamic_inputs] == ["x"]
    assert body.operator_names == ("DequantizeLinear", "DequantizeLinear", "Conv", "Relu")


def test_a_condition_is_not_what_a_layer_computes_in():
    body = Body(
        (
            BodyInput("c", TensorType(DataType.BOOL, (3,))),
            BodyInput("a", TensorType(DataType.HALF, (3,))),
        ),
        (node("Where", ["c", "a", "a"], ["y"]),),
        ("y",),
    )
    assert body.compute_type is DataType.HALF
    assert Body(body.inputs, (), ("a",)).compute_type is DataType.HALF


def test_a_type_error_names_its_node():
    body = Body(
        (
            BodyInput("a", TensorType(DataType.FLOAT, (2, 3))),
            BodyInput("b", TensorType(DataType.FLOAT, (4, 5))),
        ),
        (node("MatMul", ["a", "b"], ["product"]),),
        ("product",),
        0,
    )
    with pytest.raises(InferenceError, match="MatMul 'product': A has K=3, B has K=4"):
        _ = body.types


def test_a_missing_required_input_is_an_inference_error():
    with pytest.raises(InferenceError, match="input 1 is missing"):
        infer((node("MatMul", ["a"], ["y"]),), {"a": TensorType(DataType.FLOAT, (2, 3))})


# -- evaluation ---------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", [DataType.HALF, DataType.BF16])
def test_halves_are_rounded_at_each_node(dtype):
    """1 + 2**-k, minus 1: lost where the type cannot hold the sum."""
    tiny = dtype.info.eps / 4
    body = Body(
        (BodyInput("x", TensorType(dtype, (1,))), BodyInput("one", TensorType(dtype, (1,)))),
        (node("Add", ["x", "one"], ["s"]), node("Sub", ["s", "one"], ["y"])),
        ("y",),
    )
    values = {"x": np.array([tiny], dtype.numpy), "one": np.ones(1, dtype.numpy)}
    typed = body.evaluate(values, keep=True)
    assert typed["y"] == 0
    assert typed["s"].dtype == dtype.numpy
    exact, bound = body.exact(values)["y"]
    assert exact == tiny
    assert bound >= tiny


def test_the_typed_evaluation_lies_within_the_bound_of_the_exact_one():
    for dtype in (DataType.FLOAT, DataType.HALF, DataType.BF16):
        body = conv_body(dtype=dtype)
        values = values_of(body, n=2, h=6)
        exact, bound = body.exact(values)["y"]
        assert (np.abs(body.evaluate(values)["y"].astype(np.float64) - exact) <= bound).all()


def test_storage_near_zero_has_an_absolute_error():
    """The exponential of -17 is below the smallest half: stored as 0 or as the step next to it."""
    body = Body(
        (BodyInput("x", TensorType(DataType.HALF, (1,))),), (node("Exp", ["x"], ["y"]),), ("y",)
    )
    exact, bound = body.exact({"x": np.array([-17], np.float16)})["y"]
    assert 0 < exact < DataType.HALF.info.tiny
    assert bound >= exact


def test_an_overflowing_half_is_infinite_without_a_warning():
    body = Body(
        (BodyInput("x", TensorType(DataType.HALF, (1,))),),
        (node("Mul", ["x", "x"], ["y"]),),
        ("y",),
    )
    assert body.evaluate({"x": np.array([1000], np.float16)})["y"] == np.inf


def test_absent_optional_inputs_and_unasked_outputs_are_left_out():
    body = Body(
        (BodyInput("x", TensorType(DataType.FLOAT, (2, 1, 4))),),
        (
            constant("high", np.float32(0.5)),
            node("Clip", ["x", "", "high"], ["c"]),
            node("MaxPool", ["c"], ["y"], kernel_shape=(2,)),
        ),
        ("y",),
        2,
    )
    x = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 1, 4)
    want = np.maximum(np.minimum(x, 0.5)[..., :-1], np.minimum(x, 0.5)[..., 1:])
    np.testing.assert_array_equal(body.evaluate({"x": x})["y"], want)
    np.testing.assert_array_equal(body.exact({"x": x})["y"][0], want)


# -- the table of operators ---------------------------------------------------------------
def test_every_operator_is_listed_once():
    rows = [row for family in FAMILIES for row in family]
    assert len({row.name for row in rows}) == len(rows) == len(OPERATORS)


def test_attribute_defaults_survive_json():
    for row in OPERATORS.values():
        known = {k: v for k, v in row.attributes.items() if v != "<required>"}
        body = Body((), (Node(row, (), (), known),), ())
        again = Body.from_json(json.loads(json.dumps(body.to_json())), operator_named)
        assert dict(again.nodes[0].attributes) == known, row.name


def test_attributes_are_completed_and_frozen():
    row = operator_named("Conv")
    full = row.complete({"strides": [2, np.int64(2)]})
    assert full["strides"] == (2, 2)
    assert full["group"] == 1
    with pytest.raises(NetworkError, match="MaxPool 'p': MaxPool needs attribute kernel_shape"):
        operator_named("MaxPool").complete({}, place="MaxPool 'p'")


def test_inference_values_reach_shapes():
    """Shape arithmetic is computed while types are inferred, symbols included."""
    n = symbol("n")
    nodes = (
        node("Shape", ["x"], ["s"]),
        constant("index", np.array(0)),
        node("Gather", ["s", "index"], ["first"]),
        constant("axes", np.array([0])),
        node("Unsqueeze", ["first", "axes"], ["one"]),
        constant("rest", np.array([-1])),
        node("Concat", ["one", "rest"], ["target"], axis=0),
        node("Reshape", ["x", "target"], ["y"]),
    )
    types, values = infer(nodes, {"x": TensorType(DataType.FLOAT, (n, 4, 5))})
    assert types["y"].shape == (n, 20)
    assert values["first"].item() == n
    assert Inference({}, (types["x"],), (None,)).input(0).shape == (n, 4, 5)


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (TypeError("no len()"), r"Relu 'y': TypeError while it was computed: no len\(\); .*report"),
        (AttributeError("x"), "AttributeError while it was computed: x; .*report it"),
        (StopIteration(), "StopIteration while it was computed; .*report it"),
        (ValueError("shapes differ"), "its inputs do not fit: shapes differ$"),
        (MemoryError(), "no memory is left$"),
    ],
)
def test_a_mistake_of_ours_asks_for_a_report_and_blames_no_inputs(raised, told):
    def broken(*given):
        raise raised

    relu = operator_named("Relu")
    body = Body((BodyInput("x", TensorType(DataType.FLOAT, (2,))),), (node("Relu", "x", "y"),), "y")
    x = {"x": np.ones(2, np.float32)}
    wrong = replace(relu, reference=broken)
    made = replace(body, nodes=(Node(wrong, ("x",), ("y",), {}),))
    with pytest.raises(NetworkError, match=told):
        made.evaluate(x)
    with pytest.raises(ExecutionError, match=told):
        interpret(made, x)
    with pytest.raises(InferenceError, match=told):
        infer([Node(replace(relu, infer=broken), ("x",), ("y",), {})], {"x": body.inputs[0].type})
