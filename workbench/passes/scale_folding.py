"""Scale folding: a constant factor after a product goes into its weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workbench.body import SHUFFLES
from workbench.fusions.anchors import PRODUCTS, channel_axis, not_per_channel, per_channel
from workbench.network import Layer, NetworkDefinition, Tensor
from workbench.passes.rule_pass import RulePass
from workbench.records import Refusal
from workbench.rewrite import Match, Replaced, RewriteRule, not_constant
from workbench.rewrite.derive import apply, derive


@dataclass(frozen=True)
class ScaleFolding(RulePass):
    """Multiplies weights and bias by a constant factor: (W x + b) * s = (W * s) x + b * s.

    A factor that is one number also moves there through reshapes and transposes, as the scaling
    of queries and keys does. Error: each weight rounds once more.
    """

    name: str = "scale_folding"

    @property
    def rules(self) -> tuple[RewriteRule, ...]:
        """Towards the product, past its bias, into its weights."""
        return (SCALE_EARLIER, SCALE_BEFORE_BIAS, SCALE_FOLDING)


# -- towards the product ------------------------------------------------------------------
def _follows_product(layer: Layer) -> bool:
    """Whether only shuffles and a bias lie between this shuffle and a product of weights."""
    while layer.op in SHUFFLES or (layer.op == "Add" and layer.operator is not None):
        given = [t for t in layer.inputs if t is not None and t.value is None]
        tensor = given[0] if len(given) == 1 else None
        if tensor is None or tensor.producer is None or len(tensor.users) > 1:
            return False
        layer = tensor.producer
    weight = layer.get_input(1)
    return layer.op in PRODUCTS and weight is not None and weight.is_constant


def _one_number(match: Match) -> Refusal | None:
    s = match["s"]
    if np.prod(s.shape, dtype=int) == 1:
        return None
    return Refusal(
        f"'{s.name}' has shape {s.shape}: only one number is the same before a shuffle",
        code="shape_mismatch",
    )


def _earlier(network: NetworkDefinition, match: Match) -> Replaced:
    shuffle, mul = match.layer("shuffle"), match.root
    assert shuffle.operator is not None and mul.operator is not None
    scaled = network.add_layer(
        mul.operator, [shuffle.inputs[0], match["s"]], name=mul.name, origin=mul.origin
    )
    return network.add_layer(
        shuffle.operator,
        [scaled.outputs[0], *shuffle.inputs[1:]],
        shuffle.attributes,
        name=shuffle.name,
        origin=shuffle.origin,
    ).outputs[0]


SCALE_EARLIER = RewriteRule(
    "scale_earlier",
    lambda op, s: op.Mul(
        op.layer(
            lambda x: x.op in SHUFFLES and _follows_product(x),
            described="a shuffle of a product",
        ).called("shuffle"),
        op.constant(s),
    ),
    _earlier,
    _one_number,
    about="A factor on its way to a product's weights passes reshapes and transposes.",
)


# -- into the weights ---------------------------------------------------------------------
def _factor_refusal(match: Match) -> Refusal | None:
    product, s = match.layer("product"), match["s"]
    out, axis = product.outputs[0], channel_axis(product)
    if s.dtype is not match["w"].dtype:
        return Refusal(f"'{s.name}' is {s.dtype.value}", code="type_mismatch")
    if not per_channel(s, out, axis):
        return not_per_channel(s, out, axis)
    return None


def _before_bias(network: NetworkDefinition, match: Match) -> Replaced:
    product, s, b = match.layer("product"), match["s"], match["b"]
    mul, add = match.root, match.layer("bias")

    def scaled(net: NetworkDefinition, bias: Tensor, factor: Tensor) -> Tensor:
        return apply(net, "Mul", bias, factor)

    bias = derive(network, f"{b.name}_scaled", (b, s), scaled)
    first = network.add_layer("Mul", [product.outputs[0], s], name=mul.name, origin=mul.origin)
    return network.add_layer(
        "Add", [first.outputs[0], bias], name=add.name, origin=(*add.origin, *mul.origin)
    ).outputs[0]


SCALE_BEFORE_BIAS = RewriteRule(
    "scale_before_bias",
    lambda op, x, w, b, s: op.Mul(
        op.Add(op.any(PRODUCTS, x, w, ...).called("product"), op.constant(b)).called("bias"),
        op.constant(s),
    ),
    _before_bias,
    _factor_refusal,
    constants=("w", "b", "s"),
    changes_weights=True,
    any_size=True,
    about="A factor passes the bias, which it multiplies too.",
)


def _cannot_fold(match: Match) -> Refusal | None:
    product, s = match.layer("product"), match["s"]
    bias = product.get_input(2)
    if bias is not None and not bias.is_constant:
        return not_constant(bias)
    if product.op == "ConvTranspose" and product.attributes["group"] != 1:
        return Refusal("the transposed convolution is grouped", code="grouped")
    if product.op == "MatMul" and len(match["w"].shape) < 2:
        return Refusal(f"'{match['w'].name}' is a vector", code="shape_mismatch")
    one = np.prod(s.shape, dtype=int) == 1
    if bias is not None and not one and bias.shape[-1:] != product.outputs[0].shape[1:2]:
        return Refusal(f"'{bias.name}' is not one bias per channel", code="shape_mismatch")
    return _factor_refusal(match)


def _weight_shape(product: Layer, rank: int) -> list[int]:
    """The shape in which a factor per output channel multiplies the weight."""
    if product.op == "MatMul":
        return [-1]
    axis = 0 if product.op == "Conv" else 1
    if product.op == "Gemm":
        axis = 0 if product.attributes["transB"] else 1
    return [-1 if a == axis else 1 for a in range(rank)]


def _folded(network: NetworkDefinition, match: Match) -> Replaced:
    product, s, w = match.layer("product"), match["s"], match["w"]
    bias = product.get_input(2)

    def shaped(net: NetworkDefinition, factor: Tensor, sizes: list[int]) -> Tensor:
        return apply(net, "Reshape", factor, net.constant(np.array(sizes, np.int64)))

    def weight(net: NetworkDefinition, old: Tensor, factor: Tensor) -> Tensor:
        sizes = _weight_shape(product, len(w.shape))
        return apply(net, "Mul", old, shaped(net, factor, sizes))

    def offset(net: NetworkDefinition, old: Tensor, factor: Tensor) -> Tensor:
        return apply(net, "Mul", old, shaped(net, factor, [-1]))

    inputs: list[Tensor | None] = [
        product.inputs[0],
        derive(network, f"{w.name}_scaled", (w, s), weight),
    ]
    if bias is not None:
        inputs.append(derive(network, f"{bias.name}_scaled", (bias, s), offset))
    assert product.operator is not None
    return network.add_layer(
        product.operator, inputs, product.attributes, name=product.name
    ).outputs[0]


SCALE_FOLDING = RewriteRule(
    "scale_folding",
    lambda op, x, w, s: op.Mul(op.any(PRODUCTS, x, w, ...).called("product"), op.constant(s)),
    _folded,
    _cannot_fold,
    constants=("w", "s"),
    changes_weights=True,
    any_size=True,
    about="A constant factor after a product of weights is a factor of the weights.",
)
