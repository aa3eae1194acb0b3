"""Batch norm folding: an affine map per channel goes into the weights before it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workbench.network import Layer, NetworkDefinition, Tensor
from workbench.network.remedies import CastOperand
from workbench.passes.rule_pass import RulePass
from workbench.records import Refusal, Remedy
from workbench.rewrite import Match, Replaced, RewriteRule, not_constant
from workbench.rewrite.derive import apply, derive

PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm"})


@dataclass(frozen=True)
class BatchNormFolding(RulePass):
    """Folds BatchNormalization into Conv, ConvTranspose or Gemm; else makes it Mul and Add.

    y = (W x + b - mean) * inv + bias with inv = scale / sqrt(var + epsilon) is
    W' x + b' with W' = W * inv per output channel and b' = (b - mean) * inv + bias.
    Error: W' and b' round a few times in their own type.
    Source: Ioffe and Szegedy 2015, arXiv:1502.03167, algorithm 2.
    """

    name: str = "batch_norm_folding"

    @property
    def rules(self) -> tuple[RewriteRule, ...]:
        """Folding first; what could not fold is lowered."""
        return (BATCH_NORM_FOLDING, BATCH_NORM_LOWERING)


STATISTICS = ("scale", "bias", "mean", "var")


def _cannot_fold(match: Match) -> Refusal | None:
    layer, norm = match.layer("product"), match.root
    for t in layer.inputs[1:]:
        if t is not None and not t.is_constant:
            return not_constant(t)
    unfit = _unfit(norm)
    if unfit is not None:
        return unfit
    return _mixed(norm) or _shape_refusal(layer)


def _unfit(norm: Layer) -> Refusal | None:
    if norm.attributes["training_mode"] or len(norm.outputs) > 1:
        return Refusal(
            "it is in training mode: its statistics are the batch's",
            remedy="export the model in evaluation mode",
            code="training_mode",
        )
    return None


def _mixed(norm: Layer) -> Refusal | None:
    """ONNX allows statistics of another type than the data's; arithmetic wants one type."""
    given = [t for t in norm.inputs if t is not None]
    data = given[0].dtype
    others = [t for t in given if t.dtype is not data]
    if not others:
        return None
    names = ", ".join(sorted({t.dtype.value for t in given}))
    edits = tuple(CastOperand(norm.name, norm.inputs.index(t), data.value) for t in others)
    return Refusal(
        f"its operands have different types: {names}",
        remedy="make the types equal",
        code="type_mismatch",
        tensors=tuple(t.name for t in others),
        mend=Remedy(f"cast its statistics to {data.value}", edits),
    )


def _shape_refusal(layer: Layer) -> Refusal | None:
    if layer.op == "ConvTranspose" and layer.attributes["group"] != 1:
        return Refusal("the transposed convolution is grouped", code="grouped")
    if layer.op != "Gemm" or len(layer.inputs) < 3 or layer.inputs[2] is None:
        return None
    width = layer.outputs[0].shape[1]
    if layer.attributes["beta"] == 1 and layer.inputs[2].shape in ((width,), (1, width)):
        return None
    return Refusal(
        f"Gemm's C has shape {layer.inputs[2].shape} and beta {layer.attributes['beta']}, "
        f"a bias has ({width},) and 1",
        code="shape_mismatch",
    )


def _channel_axis(layer: Layer) -> int:
    """The axis of the weight that runs over output channels."""
    if layer.op == "Conv":
        return 0
    if layer.op == "ConvTranspose":
        return 1
    return 0 if layer.attributes["transB"] else 1


def inverse(net: NetworkDefinition, scale: Tensor, var: Tensor, epsilon: float) -> Tensor:
    """scale / sqrt(var + epsilon)."""
    eps = net.constant(np.array(epsilon, var.dtype.numpy))
    return apply(net, "Div", scale, apply(net, "Sqrt", apply(net, "Add", var, eps)))


def _per_channel(net: NetworkDefinition, vector: Tensor, rank: int, axis: int) -> Tensor:
    shape = np.array([-1 if i == axis else 1 for i in range(rank)], np.int64)
    return apply(net, "Reshape", vector, net.constant(shape))


@dataclass(frozen=True)
class _Norm:
    """What a batch norm's recipes depend on beside its statistics.

    rank, axis: of the tensor that it scales, and of its channels there.
    """

    epsilon: float
    rank: int
    axis: int


def _weight(net: NetworkDefinition, norm: _Norm, w: Tensor, s: Tensor, v: Tensor) -> Tensor:
    factor = inverse(net, s, v, norm.epsilon)
    return apply(net, "Mul", w, _per_channel(net, factor, norm.rank, norm.axis))


def _bias(
    net: NetworkDefinition, norm: _Norm, s: Tensor, b: Tensor, m: Tensor, v: Tensor, *old: Tensor
) -> Tensor:
    before = apply(net, "Sub", old[0], m) if old else apply(net, "Neg", m)
    return apply(net, "Add", apply(net, "Mul", before, inverse(net, s, v, norm.epsilon)), b)


def _folded(network: NetworkDefinition, match: Match) -> Replaced:
    layer, weight = match.layer("product"), match["w"]
    old_bias = layer.inputs[2] if len(layer.inputs) > 2 else None
    scale, bias, mean, var = (match[n] for n in STATISTICS)
    norm = _Norm(match.root.attributes["epsilon"], len(weight.shape), _channel_axis(layer))
    w = derive(network, f"{weight.name}_bn", (weight, scale, var), _weight, norm)
    given = (scale, bias, mean, var, *([old_bias] if old_bias is not None else []))
    b = derive(network, f"{bias.name}_bn", given, _bias, norm)
    assert layer.operator is not None
    new = network.add_layer(
        layer.operator, [layer.inputs[0], w, b], layer.attributes, name=layer.name
    )
    return new.outputs[0]


BATCH_NORM_FOLDING = RewriteRule(
    "batch_norm_folding",
    lambda op, x, w, scale, bias, mean, var: op.BatchNormalization(
        op.any(PRODUCTS, x, w, ...).called("product"), scale, bias, mean, var
    ),
    _folded,
    _cannot_fold,
    constants=("w", *STATISTICS),
    changes_weights=True,
    any_size=True,
    about="An affine map per channel after a convolution is another convolution.",
)


def _cannot_lower(match: Match) -> Refusal | None:
    return _unfit(match.root) or _mixed(match.root)


def _factor(net: NetworkDefinition, norm: _Norm, s: Tensor, v: Tensor) -> Tensor:
    return _per_channel(net, inverse(net, s, v, norm.epsilon), norm.rank, norm.axis)


def _offset(
    net: NetworkDefinition, norm: _Norm, s: Tensor, b: Tensor, m: Tensor, v: Tensor
) -> Tensor:
    moved = apply(net, "Mul", m, inverse(net, s, v, norm.epsilon))
    return _per_channel(net, apply(net, "Sub", b, moved), norm.rank, norm.axis)


def _lowered(network: NetworkDefinition, match: Match) -> Replaced:
    x, root = match["x"], match.root
    scale, bias, mean, var = (match[n] for n in STATISTICS)
    norm = _Norm(root.attributes["epsilon"], len(x.shape) - 1, 0)
    f = derive(network, f"{scale.name}_factor", (scale, var), _factor, norm)
    o = derive(network, f"{bias.name}_offset", (scale, bias, mean, var), _offset, norm)
    scaled = network.add_layer("Mul", [x, f], name=f"{root.name}_scale").outputs[0]
    return network.add_layer("Add", [scaled, o], name=root.name).outputs[0]


BATCH_NORM_LOWERING = RewriteRule(
    "batch_norm_lowering",
    lambda op, x, scale, bias, mean, var: op.BatchNormalization(x, scale, bias, mean, var),
    _lowered,
    _cannot_lower,
    constants=STATISTICS,
    changes_weights=True,
    any_size=True,
    about="Where it cannot fold, batch norm is a multiplication and an addition per channel.",
)
