"""Whatever a model's bytes say: a WorkbenchError, or a network that verifies; nothing else."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, ModelProto

from workbench.network import NetworkDefinition
from workbench.onnx_parser import OnnxParser

EXPORTS = Path(__file__).parents[1] / "exports"
MODELS = ("bert", "gpt_cached", "resnet", "vit_any_size")
QUIET = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@functools.cache
def model_bytes(name: str) -> bytes:
    """A committed export."""
    return (EXPORTS / f"{name}.onnx").read_bytes()


def parsed(data: bytes) -> None:
    """Import it. Any error but a WorkbenchError fails the test, and so does an unforeseen one."""
    network = NetworkDefinition()
    parser = OnnxParser(network)
    if parser.parse(data):
        network.verify()
        return
    assert parser.num_errors > 0
    reasons = [parser.get_error(k) for k in range(parser.num_errors)]
    assert all(r.desc and r.rule and r.remedy for r in reasons)
    unforeseen = [str(r) for r in reasons if r.rule == "unforeseen"]
    assert not unforeseen, unforeseen


@pytest.mark.parametrize("name", MODELS)
@QUIET
@given(data=st.data())
def test_flipped_and_missing_bytes_give_a_reason_or_a_valid_network(name: str, data: Any) -> None:
    raw = bytearray(model_bytes(name))
    graph = graph_bytes(name)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.sampled_from(graph))
        raw[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del raw[data.draw(st.integers(0, len(raw))) :]
    parsed(bytes(raw))


@functools.cache
def graph_bytes(name: str) -> tuple[int, ...]:
    """Places of the model that are not inside a large weight."""
    raw = model_bytes(name)
    model = ModelProto.FromString(raw)
    covered: list[range] = []
    for t in model.graph.initializer:
        if len(t.raw_data) > 64 and (at := raw.find(t.raw_data)) >= 0:
            covered.append(range(at, at + len(t.raw_data)))
    skipped = {k for r in covered for k in r}
    return tuple(k for k in range(len(raw)) if k not in skipped)


NUMBERS = st.sampled_from(
    (-(2**63), -(2**31), -100, -5, -2, -1, 0, 1, 2, 3, 4, 7, 64, 1000, 2**31, 2**62, 2**63 - 1)
)
OPERATORS = (
    *("Add", "MatMul", "Reshape", "Concat", "Slice", "Gather", "Transpose", "Expand", "Resize"),
    *("Conv", "Softmax", "Shape", "Split", "Pad", "Tile", "Range", "Where", "Cast", "TopK"),
    *("Loop", "If", "Scan", "NonZero", "OneHot", "Unsqueeze", "ReduceSum", "Einsum", "Attention"),
    *("SequenceAt", "GatherND", "ScatterND", "LSTM", "QuantizeLinear", "CumSum", "GridSample"),
)


def mutate(model: ModelProto, draw: Any) -> None:
    """One change of the graph that keeps it a message."""
    graph = model.graph
    node = graph.node[draw(st.integers(0, len(graph.node) - 1))]
    names = [v for n in graph.node for v in (*n.input, *n.output)]
    change = draw(st.integers(0, 9))
    if change == 0:
        node.op_type = draw(st.sampled_from(OPERATORS))
    elif change == 1 and node.input:
        node.input[draw(st.integers(0, len(node.input) - 1))] = draw(st.sampled_from(names))
    elif change == 2 and node.input:
        del node.input[draw(st.integers(0, len(node.input) - 1))]
    elif change == 3:
        node.input.append(draw(st.sampled_from(names)))
    elif change == 4 and node.attribute:
        corrupt(node.attribute[draw(st.integers(0, len(node.attribute) - 1))], draw)
    elif change == 5 and node.attribute:
        del node.attribute[draw(st.integers(0, len(node.attribute) - 1))]
    elif change == 6:
        tensor = graph.initializer[draw(st.integers(0, len(graph.initializer) - 1))]
        if tensor.dims:
            tensor.dims[draw(st.integers(0, len(tensor.dims) - 1))] = draw(NUMBERS)
        tensor.data_type = draw(st.sampled_from((tensor.data_type, 1, 6, 7, 8, 9, 10, 16, 22, 23)))
    elif change == 7:
        integers = [t for t in graph.initializer if t.data_type == 7 and t.raw_data]
        if integers:
            tensor = integers[draw(st.integers(0, len(integers) - 1))]
            values = bytearray(tensor.raw_data)
            at = 8 * draw(st.integers(0, len(values) // 8 - 1))
            values[at : at + 8] = draw(NUMBERS).to_bytes(8, "little", signed=True)
            tensor.raw_data = bytes(values)
    elif change == 8:
        value = graph.input[draw(st.integers(0, len(graph.input) - 1))]
        dims = value.type.tensor_type.shape.dim
        if dims:
            dims[draw(st.integers(0, len(dims) - 1))].dim_value = draw(NUMBERS)
        value.type.tensor_type.elem_type = draw(st.sampled_from((1, 7, 8, 9, 10, 16)))
    else:
        graph.node.insert(draw(st.integers(0, len(graph.node))), node)


def corrupt(attribute: AttributeProto, draw: Any) -> None:
    """Another value, or another kind of value."""
    kind = draw(st.sampled_from(("value", "INT", "FLOAT", "INTS", "STRING")))
    if kind == "value" and attribute.ints:
        attribute.ints[draw(st.integers(0, len(attribute.ints) - 1))] = draw(NUMBERS)
    elif kind in ("value", "INT"):
        attribute.type, attribute.i = AttributeProto.INT, draw(NUMBERS)
    elif kind == "INTS":
        attribute.type = AttributeProto.INTS
        attribute.ints.extend(draw(st.lists(NUMBERS, max_size=3)))
    elif kind == "FLOAT":
        attribute.type = AttributeProto.FLOAT
        attribute.f = draw(st.sampled_from((0.0, -1.0, 1e38, float("nan"), float("inf"))))
    else:
        attribute.type = AttributeProto.STRING
        attribute.s = draw(st.sampled_from((b"", b"linear", b"\xff", b"i,j->k", b"(((")))


@pytest.mark.parametrize("name", MODELS)
@QUIET
@given(data=st.data())
def test_a_mutated_graph_gives_a_reason_or_a_valid_network(name: str, data: Any) -> None:
    model = ModelProto.FromString(model_bytes(name))
    for _ in range(data.draw(st.integers(1, 3))):
        mutate(model, data.draw)
    parsed(model.SerializeToString())
