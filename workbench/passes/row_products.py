"""Gemm between reshapes: tokens flattened to rows for a product, and put apart again."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.body import RESHAPES
from workbench.network import NetworkDefinition, Tensor
from workbench.passes.rule_pass import RulePass
from workbench.records import Refusal
from workbench.rewrite import Match, Replaced, RewriteRule
from workbench.rewrite.derive import apply, derive, shape_operand


@dataclass(frozen=True)
class RowProducts(RulePass):
    """Writes Reshape, Gemm, Reshape as a MatMul that gives the last shape, and its bias."""

    name: str = "row_products"

    @property
    def rules(self) -> tuple[RewriteRule, ...]:
        """One rule, rooted at the second reshape."""
        return (ROW_PRODUCTS,)


def _no_row_product(match: Match) -> Refusal | None:
    gemm, result = match.layer("gemm"), match.root.outputs[0]
    given = gemm.attributes
    if given["transA"] or given["alpha"] != 1 or given["beta"] != 1:
        return Refusal(f"'{gemm.name}' scales or turns its operands", code="scaled")
    if result.shape[-1:] != gemm.outputs[0].shape[-1:]:
        return Refusal(
            f"'{gemm.name}' gives {gemm.outputs[0].type}, which is put apart as {result.type}: its "
            "columns are split",
            code="mixes_axes",
        )
    bias = gemm.get_input(2)
    if bias is not None and (len(bias.shape) > 1 and bias.shape[0] != 1):
        return Refusal(f"'{bias.name}' is not one bias per column", code="shape_mismatch")
    return None


def _row_product(network: NetworkDefinition, match: Match) -> Replaced:
    gemm, w = match.layer("gemm"), match["w"]
    bias = gemm.get_input(2)
    weight = w
    if gemm.attributes["transB"]:

        def turned(net: NetworkDefinition, old: Tensor) -> Tensor:
            return apply(net, "Transpose", old, perm=(1, 0))

        weight = derive(network, f"{w.name}_turned", (w,), turned)
    x = match["x"]
    shape = (*match.root.outputs[0].shape[:-1], weight.shape[0])
    if x.shape != shape:
        apart = shape_operand(network, shape, f"{gemm.name}_rows")
        x = apply(network, "Reshape", x, apart, allowzero=1)
    product = network.add_layer("MatMul", [x, weight], name=gemm.name).outputs[0]
    if bias is None:
        return product
    return network.add_layer("Add", [product, bias], name=f"{gemm.name}_bias").outputs[0]


ROW_PRODUCTS = RewriteRule(
    "row_products",
    lambda op, x, w: op.any(
        RESHAPES, op.Gemm(op.any(RESHAPES, x, ...), op.constant(w), ...).called("gemm"), ...
    ),
    _row_product,
    _no_row_product,
    about="A product of rows needs no reshape behind it, and often none before.",
)
