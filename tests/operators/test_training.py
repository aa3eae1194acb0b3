"""Steps of optimizers against the formulas of the standard, and Dropout in training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from one_node import run_node, types_of
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from workbench.errors import InferenceError

DOMAIN = "ai.onnx.preview.training"
STATES = {"Adagrad": 1, "Adam": 2, "Momentum": 1}


def reference(op: str, inputs: list[Any], attributes: dict[str, Any], outputs: int) -> Any:
    names = [f"i{k}" for k in range(len(inputs))]
    made = [f"o{k}" for k in range(outputs)]
    node = helper.make_node(op, names, made, domain=DOMAIN, **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
            for n, x in zip(names, inputs, strict=True)
        ],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in made],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=opsets)
    return ReferenceEvaluator(model).run(None, dict(zip(names, inputs, strict=True)))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(STATES)),
    st.integers(1, 3),
    st.integers(0, 3),
    st.integers(0, 2**16),
    st.sampled_from(["standard", "nesterov"]),
)
def test_a_step_is_that_of_the_standard_s_reference(
    op: str, count: int, steps: int, seed: int, mode: str
):
    g = np.random.default_rng(seed)
    states = STATES[op]
    shapes = [(2, 3), (4,), ()][:count]
    # What is accumulated of squares is not negative.
    tensors = [
        np.asarray(np.abs(x)) if k == 1 + states else x
        for k in range(2 + states)
        for x in (np.asarray(g.standard_normal(s), np.float32) for s in shapes)
    ]
    inputs = [np.array(0.1, np.float32), np.array(steps), *tensors]
    attributes: dict[str, Any] = {"norm_coefficient": 0.01}
    if op == "Momentum":
        attributes |= {"alpha": 0.95, "beta": 0.5, "mode": mode}
    elif op == "Adam":
        attributes |= {"alpha": 0.9, "beta": 0.99, "norm_coefficient_post": 0.02}
    else:
        attributes |= {"decay_factor": 0.1}
    outputs = (1 + states) * count
    made = run_node(f"{DOMAIN}::{op}", inputs, attributes=attributes, outputs=outputs)
    wanted = reference(op, inputs, attributes, outputs)
    for a, b in zip(made, wanted, strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_tensors_that_make_no_groups_are_refused():
    x = np.zeros(2, np.float32)
    with pytest.raises(InferenceError, match="4 tensors after the rate and the count"):
        types_of(f"{DOMAIN}::Adagrad", [x, np.array(0), x, x, x, x])
    attributes = {"alpha": 1.0, "beta": 1.0, "norm_coefficient": 0.0, "mode": "fast"}
    with pytest.raises(InferenceError, match="mode is 'fast'"):
        types_of(f"{DOMAIN}::Momentum", [x, np.array(0), x, x, x], attributes)
