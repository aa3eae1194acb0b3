"""Constant folding: a layer of constants becomes a constant, with the layer as its recipe."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.body import Body
from workbench.dimensions import is_static
from workbench.network import Layer, NetworkDefinition, Tensor, Weight
from workbench.passes.rule_pass import RulePass
from workbench.records import Refusal
from workbench.rewrite import Match, Replaced, RewriteRule
from workbench.rewrite.mending import store

KEPT = frozenset({"DequantizeLinear"})
"""Kernels read the stored integers; folding this would undo a quantization."""


@dataclass(frozen=True)
class ConstantFolding(RulePass):
    """Evaluates layers whose inputs are all constants.

    max_growth_bytes: a result that is larger than what it is made of may grow this much.
    max_flops: operations that one layer may take.
    """

    name: str = "constant_folding"
    max_growth_bytes: int = 1 << 24
    max_flops: int = 1 << 30

    @property
    def rules(self) -> tuple[RewriteRule, ...]:
        """One rule, rooted at the layer."""
        return (
            RewriteRule(
                self.name,
                lambda op: op.layer(_is_constant, described="a layer of constants").called("layer"),
                _evaluated,
                self._too_large,
                exact=True,
                about="A layer that reads only constants is evaluated once, now.",
            ),
        )

    def _too_large(self, match: Match) -> Refusal | None:
        layer = match.layer("layer")
        grown = sum(t.type.nbytes() for t in layer.outputs) - sum(
            t.type.nbytes() for t in layer.inputs if t is not None
        )
        if grown <= self.max_growth_bytes:
            return self._too_long(layer)
        return Refusal(
            f"its result is {grown:,} bytes larger than what it is made of, "
            f"{self.max_growth_bytes:,} are allowed",
            remedy="raise max_growth_bytes",
            code="too_large",
            layers=(layer.name,),
            mend=store(layer.outputs[0]),
        )

    def _too_long(self, layer: Layer) -> Refusal | None:
        assert layer.operator is not None
        types = tuple(None if t is None else t.type for t in layer.inputs)
        made = tuple(t.type for t in layer.outputs)
        flops = layer.operator.cost(layer.attributes, types, made).flops
        if flops <= self.max_flops:
            return None
        return Refusal(
            f"it takes {flops:,} operations, {self.max_flops:,} are allowed",
            remedy="raise max_flops",
            code="too_long",
            layers=(layer.name,),
            mend=store(layer.outputs[0]),
        )


def _is_constant(layer: Layer) -> bool:
    operator = layer.operator
    return (
        operator is not None
        and operator.deterministic
        and operator.name not in KEPT
        and all(t is None or t.is_constant for t in layer.inputs)
        and all(is_static(t.shape) for t in layer.outputs)
    )


def _evaluated(network: NetworkDefinition, match: Match) -> Replaced:
    layer = match.layer("layer")
    body, operands = layer.body, layer.operands
    sources = tuple(t.weight for t in operands if t.weight is not None)
    swaps: dict[Tensor, Tensor] = {}
    for value, tensor in zip(body.outputs, layer.outputs, strict=True):
        one = Body(body.inputs, body.nodes, (value,))
        weight = Weight.derive(network.unique(f"{tensor.name}_folded"), one, sources)
        swaps[tensor] = network.add_weight(weight)
    return swaps
