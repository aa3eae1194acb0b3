"""NetworkDefinition, Layer, Tensor: the one mutable thing in a build."""

from workbench.network.definition import NetworkDefinition
from workbench.network.graph import Cause, Layer, Recipe, Tensor, Weight

__all__ = ["Cause", "Layer", "NetworkDefinition", "Recipe", "Tensor", "Weight"]
