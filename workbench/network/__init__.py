"""NetworkDefinition, Layer, Tensor: the one mutable thing in a build."""

from workbench.network.definition import NetworkDefinition
from workbench.network.graph import Cause, Layer, Recipe, Tensor, Weight
from workbench.network.layer_types import (
    ActivationType,
    ElementWiseOperation,
    GatherMode,
    MatrixOperation,
    PaddingMode,
    PoolingType,
    ReduceOperation,
    ScaleMode,
    UnaryOperation,
)

__all__ = [
    "ActivationType",
    "Cause",
    "ElementWiseOperation",
    "GatherMode",
    "Layer",
    "MatrixOperation",
    "NetworkDefinition",
    "PaddingMode",
    "PoolingType",
    "Recipe",
    "ReduceOperation",
    "ScaleMode",
    "Tensor",
    "UnaryOperation",
    "Weight",
]
