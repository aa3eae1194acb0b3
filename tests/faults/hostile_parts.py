"""Parts of models that mean harm, and what a case of one is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import (
    ModelProto,
    NodeProto,
    TensorProto,
    helper,
    numpy_helper,
)

FLOAT, INT64, BOOL, STRING = (
    TensorProto.FLOAT,
    TensorProto.INT64,
    TensorProto.BOOL,
    TensorProto.STRING,
)
HUGE = 2**40
"""A size that no machine holds."""

Made = ModelProto | bytes | Path
Feeds = Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """make: writes what it needs into an empty folder (``model`` inside it is the model's own).

    error: name of the error's class. names: what its text must hold. feeds: where given, the model
    imports and builds, and its first run with these is what must fail, whichever source runs it.
    """

    name: str
    make: Callable[[Path], Made]
    error: str
    names: tuple[str, ...]
    feeds: Feeds | None = None


def value(name: str, shape: Any = (2, 3), kind: int = FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def untyped(name: str) -> Any:
    return helper.make_empty_tensor_value_info(name)


def weight(name: str, array: Any) -> TensorProto:
    return numpy_helper.from_array(np.asarray(array), name)


def node(operator: str, inputs: str, outputs: str, name: str = "", **attributes: Any) -> NodeProto:
    return helper.make_node(
        operator, inputs.split(), outputs.split(), name=name or f"the_{operator}", **attributes
    )


def model(
    nodes: Sequence[NodeProto],
    weights: Sequence[TensorProto] = (),
    *,
    inputs: Sequence[Any] | None = None,
    outputs: Sequence[Any] | None = None,
    opset: int = 21,
    **parts: Any,
) -> ModelProto:
    """Float [2, 3] ``x`` in, ``y`` out, unless said otherwise."""
    graph = helper.make_graph(
        nodes,
        "hostile",
        [value("x")] if inputs is None else inputs,
        [untyped("y")] if outputs is None else outputs,
        weights,
    )
    opsets = [helper.make_opsetid("", opset), *parts.pop("opset_imports", ())]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, **parts)


def external(name: str, shape: Sequence[int], **entries: Any) -> TensorProto:
    tensor = TensorProto(name=name, data_type=FLOAT, dims=shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in entries.items():
        tensor.external_data.add(key=key, value=str(text))
    return tensor
