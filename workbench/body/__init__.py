"""Operator, Body and the reference interpreter: what a computation means.

A Body is a closed little network with explicit inputs: the inside of a fused layer, of control
flow, of a function, of a weight's recipe. It is always linear (row-major); layouts live on the
edges of the plan. Two evaluations are defined:

- ``evaluate``: typed. Halves are computed in float32 and rounded at each node's output.
- ``exact``: float64 without inner rounding, with a bound on how far a correct implementation
  may be from it (see ``Operator.bound``).
"""

from workbench.body.body import TF32_EPS, Body, BodyInput
from workbench.body.computing import computed
from workbench.body.inference import infer, infer_node
from workbench.body.interpreter import bind_sizes, interpret
from workbench.body.moving import MOVING, RESHAPES, SAME_ORDER, SHUFFLES, VIEWS
from workbench.body.operator import (
    CONSTANT,
    REQUIRED,
    Attributes,
    BoundRule,
    Cost,
    CostRule,
    Inference,
    InferRule,
    MisfitRule,
    Node,
    Operator,
    Reference,
    default_cost,
    later_size,
)
from workbench.body.values import (
    Array,
    HostType,
    Literal,
    OptionalType,
    SequenceType,
    TensorType,
    UnrankedType,
    Value,
    as_exact,
    general,
    type_from_json,
    type_of,
    type_to_json,
)

__all__ = [
    "CONSTANT",
    "MOVING",
    "REQUIRED",
    "RESHAPES",
    "SAME_ORDER",
    "SHUFFLES",
    "TF32_EPS",
    "VIEWS",
    "Array",
    "Attributes",
    "Body",
    "BodyInput",
    "BoundRule",
    "Cost",
    "CostRule",
    "HostType",
    "InferRule",
    "Inference",
    "Literal",
    "MisfitRule",
    "Node",
    "Operator",
    "OptionalType",
    "Reference",
    "SequenceType",
    "TensorType",
    "UnrankedType",
    "Value",
    "as_exact",
    "bind_sizes",
    "computed",
    "default_cost",
    "general",
    "infer",
    "infer_node",
    "interpret",
    "later_size",
    "type_from_json",
    "type_of",
    "type_to_json",
]
