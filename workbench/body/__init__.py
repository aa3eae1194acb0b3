"""Operator, Body and the reference interpreter: what a computation means.

A Body is a closed little network with explicit inputs: the inside of a fused layer, of control
flow, of a function, of a weight's recipe. It is always linear (row-major); layouts live on the
edges of the plan. Two evaluations are defined:

- ``evaluate``: typed. Halves are computed in float32 and rounded at each node's output.
- ``exact``: float64 without inner rounding, with a bound on how far a correct implementation
  may be from it (see ``Operator.bound``).
"""

from workbench.body.body import Body, BodyInput
from workbench.body.inference import infer, infer_node
from workbench.body.operator import (
    CONSTANT,
    REQUIRED,
    Attributes,
    BoundRule,
    Cost,
    CostRule,
    Inference,
    InferRule,
    Node,
    Operator,
    Reference,
    default_cost,
)
from workbench.body.values import Array, Literal, TensorType

__all__ = [
    "CONSTANT",
    "REQUIRED",
    "Array",
    "Attributes",
    "Body",
    "BodyInput",
    "BoundRule",
    "Cost",
    "CostRule",
    "InferRule",
    "Inference",
    "Literal",
    "Node",
    "Operator",
    "Reference",
    "TensorType",
    "default_cost",
    "infer",
    "infer_node",
]
