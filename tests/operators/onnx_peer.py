"""One operator in ONNX Runtime and in ours, on the same arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from workbench.body import CONSTANT, Array, Body, BodyInput, Literal, Node, TensorType
from workbench.checks import CheckResult, check_outputs
from workbench.datatypes import DataType
from workbench.operators import operator_named


def peer(
    op: str,
    inputs: Sequence[Array | None],
    attributes: Mapping[str, Any] | None = None,
    *,
    outputs: int = 1,
    opset: int = 22,
) -> list[Array]:
    """What ONNX Runtime gives for one node."""
    # ONNX Runtime 1.31 crashes on a LayerNormalization whose absent bias is named "".
    while inputs[-1] is None:
        inputs = inputs[:-1]
    names = [f"i{k}" if x is not None else "" for k, x in enumerate(inputs)]
    made = [f"o{k}" for k in range(outputs)]
    given = {k: v for k, v in (attributes or {}).items() if v is not None}
    node = helper.make_node(op, names, made, **given)
    graph = helper.make_graph(
        [node],
        "one",
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
            for n, x in zip(names, inputs, strict=True)
            if x is not None
        ],
        [onnx.ValueInfoProto(name=n) for n in made],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {n: x for n, x in zip(names, inputs, strict=True) if x is not None})


def one_node(
    op: str,
    inputs: Sequence[Array | None],
    attributes: Mapping[str, Any] | None = None,
    *,
    outputs: int = 1,
) -> tuple[Body, dict[str, Array]]:
    """A Body of one node, and its inputs by name. Structural inputs are literals of the Body."""
    row = operator_named(op)
    made = tuple(f"o{k}" for k in range(outputs))
    names = tuple(f"i{k}" if x is not None else "" for k, x in enumerate(inputs))
    values = {f"i{k}": x for k, x in enumerate(inputs) if x is not None}
    literals = {f"i{k}": values.pop(f"i{k}") for k in row.structural if f"i{k}" in values}
    constants = tuple(
        Node(CONSTANT, (), (n,), {"value": Literal.of(np.asarray(x))}) for n, x in literals.items()
    )
    body = Body(
        tuple(BodyInput(n, TensorType(DataType.of(x), x.shape)) for n, x in values.items()),
        (*constants, Node(row, names, made, row.complete(attributes or {}))),
        made,
        None if row.pointwise else len(constants),
    )
    return body, values


def against_peer(
    op: str,
    inputs: Sequence[Array | None],
    attributes: Mapping[str, Any] | None = None,
    *,
    outputs: int = 1,
    opset: int = 22,
    peer_attributes: Mapping[str, Any] | None = None,
) -> CheckResult:
    """ONNX Runtime's result and our own typed one, each checked against the exact one."""
    body, values = one_node(op, inputs, attributes, outputs=outputs)
    ours = check_outputs(body, values, body.evaluate(values))
    assert ours.passed, f"reference: {ours.message}"
    shared = attributes if peer_attributes is None else peer_attributes
    theirs = peer(op, inputs, shared, outputs=outputs, opset=opset)
    return check_outputs(body, values, dict(zip(body.outputs, theirs, strict=True)))


def normal(seed: int, *shape: int, dtype: Any = np.float32) -> Array:
    """N(0, 1) of this shape."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def four_bounds_off(body: Body, values: Mapping[str, Array]) -> CheckResult:
    """The check of a result whose every element is four bounds away from the exact one.

    Rounded away from the exact value where the type cannot hold it.
    """
    wrong: dict[str, Array] = {}
    for name, (exact, bound) in body.exact(values).items():
        dtype = body.types[name].dtype
        low, high = dtype.info.low, dtype.info.high
        up = exact + 4 * bound
        target = np.where(up <= high, up, exact - 4 * bound)
        if dtype.is_integer:
            target = np.where(target > exact, np.ceil(target), np.floor(target))
        wrong[name] = np.clip(target, low, high).astype(dtype.numpy)
    return check_outputs(body, values, wrong)
