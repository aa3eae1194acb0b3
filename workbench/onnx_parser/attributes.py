"""A node's attributes as the operators' rows spell them, and the value of a Constant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from workbench.body import Array
from workbench.onnx_parser.element_types import DATA_TYPE_ATTRIBUTES, FROM_ONNX
from workbench.onnx_parser.problems import ErrorCode, refuse
from workbench.onnx_parser.schemas import OPSET, schema
from workbench.onnx_parser.site import Step
from workbench.onnx_parser.source import SourceNode
from workbench.operators import OPERATORS


def row_attributes(node: SourceNode, step: Step) -> dict[str, Any]:
    """The attributes as the operator's row spells them."""
    row, standard = OPERATORS[step.operator], schema(step.operator, OPSET)
    assert standard is not None
    result: dict[str, Any] = {}
    for key, value in step.attributes.items():
        formal = standard.attributes.get(key)
        if (step.operator, key) in DATA_TYPE_ATTRIBUTES and isinstance(value, int):
            if not value:
                continue
            if value not in FROM_ONNX:
                refuse(
                    ErrorCode.INVALID_VALUE,
                    f"attribute '{key}' is {value}, which is no element type known here",
                    rule="attribute",
                    remedy="re-export the model",
                    node=node,
                )
            value = FROM_ONNX[value]
        if key in row.attributes:
            result[key] = value
        elif formal is None or formal.default != value:
            refuse(
                ErrorCode.UNSUPPORTED_NODE_ATTR,
                f"attribute '{key}' of {step.operator} is {value!r}; "
                f"only the default {None if formal is None else formal.default!r} is supported",
                rule="attribute",
                remedy="export the model without it",
                node=node,
            )
    return result


_PLAIN_CONSTANTS: Mapping[str, Any] = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
    "value_string": np.object_,
    "value_strings": np.object_,
}


def constant_value(node: SourceNode) -> Array:
    """The array of a Constant, whichever of its attributes holds it."""
    if len(node.attributes) != 1:
        refuse(
            ErrorCode.INVALID_NODE,
            f"it has {len(node.attributes)} values ({', '.join(node.attributes) or 'none'}), "
            "Constant has one",
            rule="attribute",
            remedy="re-export the model",
            node=node,
        )
    key, value = next(iter(node.attributes.items()))
    if key in ("value", "sparse_value"):
        return value
    array = np.array(value, _PLAIN_CONSTANTS[key])
    array.flags.writeable = False
    return array
