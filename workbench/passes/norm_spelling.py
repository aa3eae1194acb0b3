"""Layer and root mean square normalization written out are one operator each.

Layer norm is (x - mean) / √(mean((x - mean)²) + ε), RMS norm x / √(mean(x²) + ε), both over the
innermost axes; a constant factor and offset along those axes are the operators' own scale and bias.
Sources: Ba et al., arXiv:1607.06450; Zhang and Sennrich, arXiv:1910.07467.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from workbench.dimensions import is_static
from workbench.network import Layer, NetworkDefinition, Tensor
from workbench.passes.monomials import number, sum_of
from workbench.passes.reduction_shapes import axes_of
from workbench.passes.rule_pass import RulePass
from workbench.records import Refusal
from workbench.rewrite import Match, Miss, Replaced, RewriteRule, not_constant, not_same_type
from workbench.rewrite.derive import apply, derive

NORMS = frozenset({"LayerNormalization", "RMSNormalization"})


@dataclass(frozen=True)
class NormSpelling(RulePass):
    """Folds written-out layer and RMS norms, then their factors and offsets, into one operator."""

    name: str = "norm_spelling"

    @property
    def rules(self) -> tuple[RewriteRule, ...]:
        """The norm itself, its scale, its bias."""
        return (NORM_SPELLING, NORM_SCALE, NORM_BIAS)


# -- the norm -----------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class _Norm:
    """A quotient of a norm's form. mean: the one that is subtracted; None for an RMS norm."""

    x: Tensor
    mean: Layer | None
    square_mean: Layer
    epsilon: Tensor
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class NormFormula:
    """Finds the quotient by √(mean of squares + ε), as Div or as Mul by a Reciprocal."""

    operators: frozenset[str] = frozenset({"Div", "Mul"})
    depth: int = 8
    size: int = 10

    def find(self, layer: Layer) -> Iterator[Match]:
        """The norm whose quotient this is."""
        found = _norm(layer)
        if found is not None:
            rest = sorted(found.layers, key=lambda x: x.place)
            yield Match(tuple(rest), layer, {"x": found.x})

    def nearest_miss(self, layer: Layer) -> Miss | None:
        """None: a norm over other axes is a match, which the rule refuses."""
        return None


def _norm(layer: Layer) -> _Norm | None:
    for above, root, reciprocal in _quotients(layer):
        added = sum_of(root.inputs[0]) if root.inputs[0] is not None else None
        if added is None:
            continue
        (a, b), add = added
        for square_mean, epsilon in ((a.producer, b), (b.producer, a)):
            if square_mean is None or square_mean.op != "ReduceMean" or number(epsilon) is None:
                continue
            square = square_mean.inputs[0]
            if square is None or square.producer is None or _squared(square.producer) is not above:
                continue
            layers = (layer, *reciprocal, root, add, square_mean, square.producer)
            centred = above.producer
            mean = _centring(centred) if centred is not None else None
            if centred is None or mean is None:
                return _Norm(above, None, square_mean, epsilon, layers)
            x = centred.inputs[0]
            assert x is not None
            return _Norm(x, mean, square_mean, epsilon, (*layers, centred, mean))
    return None


def _quotients(layer: Layer) -> Iterator[tuple[Tensor, Layer, tuple[Layer, ...]]]:
    """Readings as above / √..., with the Sqrt and the Reciprocal, where there is one."""
    if layer.operator is None or len(layer.inputs) != 2:
        return
    a, b = layer.inputs
    if a is None or b is None:
        return
    if layer.op == "Div" and b.producer is not None and b.producer.op == "Sqrt":
        yield a, b.producer, ()
    if layer.op != "Mul":
        return
    for above, below in ((a, b), (b, a)):
        made = below.producer
        one_over = made is not None and (
            made.op == "Reciprocal" or (made.op == "Div" and number(made.inputs[0]) == 1)
        )
        if made is None or not one_over:
            continue
        inner = made.inputs[-1]
        if inner is not None and inner.producer is not None and inner.producer.op == "Sqrt":
            yield above, inner.producer, (made,)


def _squared(layer: Layer) -> Tensor | None:
    """What the layer squares: x·x, or x to the power of 2."""
    if layer.operator is None or layer.op not in ("Mul", "Pow"):
        return None
    a, b = layer.inputs
    if layer.op == "Mul":
        return a if a is b else None
    return a if number(b) == 2 else None


def _centring(layer: Layer) -> Layer | None:
    """The mean of its own first operand that a Sub subtracts."""
    if layer.op != "Sub" or layer.operator is None:
        return None
    x, mean = layer.inputs
    made = mean.producer if mean is not None else None
    fits = made is not None and made.op == "ReduceMean" and made.inputs[0] is x
    return made if fits else None


def _no_norm(match: Match) -> Refusal | None:
    found = _norm(match.root)
    assert found is not None
    rank = len(found.x.shape)
    axes = axes_of(found.square_mean)
    for mean in (found.mean, found.square_mean):
        if mean is None:
            continue
        own = axes_of(mean)
        if own is None:
            return Refusal(f"the axes of '{mean.name}' are not known", code="axes")
        if own != axes:
            return Refusal(
                f"'{mean.name}' is over axes {own}, '{found.square_mean.name}' over {axes}",
                code="axes",
            )
        if own != tuple(range(rank - len(own), rank)):
            return Refusal(
                f"'{mean.name}' is over axes {own} of {rank}; a norm's are the innermost",
                remedy="transpose the input before it",
                code="axes",
            )
        if not mean.attributes["keepdims"]:
            return Refusal(f"'{mean.name}' drops its axes: they would not line up", code="axes")
    epsilon = number(found.epsilon)
    if epsilon is None or epsilon <= 0:
        return Refusal(f"epsilon is {epsilon}; a norm's is positive", code="epsilon")
    return None


def _one_norm(network: NetworkDefinition, match: Match) -> Replaced:
    found = _norm(match.root)
    assert found is not None
    axes = axes_of(found.square_mean)
    assert axes is not None
    inner = found.x.shape[axes[0] :]
    ones = np.ones(inner if is_static(inner) else (1,) * len(inner), found.x.dtype.numpy)
    scale = network.constant(ones, f"{match.root.name}_scale")
    operator = "LayerNormalization" if found.mean is not None else "RMSNormalization"
    attributes = {"axis": axes[0], "epsilon": number(found.epsilon)}
    return network.add_layer(operator, [found.x, scale], attributes, name=match.root.name).outputs[
        0
    ]


NORM_SPELLING = RewriteRule(
    "norm_spelling",
    NormFormula(),
    _one_norm,
    _no_norm,
    shares_inner=True,
    about="A layer norm or RMS norm written out is one operator.",
)


# -- scale and bias -----------------------------------------------------------------------
def _misfit(norm: Layer, constant: Tensor) -> Refusal | None:
    """Why a constant does not run along the normalized axes alone, or None."""
    out = norm.outputs[0]
    if not constant.is_constant:
        return not_constant(constant)
    if constant.dtype is not out.dtype:
        return not_same_type(constant, out)
    axis = norm.attributes["axis"] % len(out.shape)
    outer = constant.shape[: max(0, len(constant.shape) - (len(out.shape) - axis))]
    if len(constant.shape) > len(out.shape) or any(d != 1 for d in outer):
        return Refusal(
            f"'{constant.name}' has shape {constant.shape}: it does not run along the normalized "
            f"axes, {axis} and later, alone",
            code="shape_mismatch",
        )
    return None


def _inner(norm: Layer, constant: Tensor) -> list[int]:
    """The constant's shape without the ones before the normalized axes."""
    length = len(norm.outputs[0].shape) - norm.attributes["axis"] % len(norm.outputs[0].shape)
    return list(constant.shape[-length:])


def _is_plain(tensor: Tensor | None) -> bool:
    """Whether a scale is all ones."""
    return (
        tensor is not None and tensor.weight is not None and bool((tensor.weight.array == 1).all())
    )


def _no_scale(match: Match) -> Refusal | None:
    norm = match.layer("norm")
    if not _is_plain(norm.inputs[1]) or norm.get_input(2) is not None:
        return Refusal(f"'{norm.name}' has a scale or bias already", code="scaled")
    return _misfit(norm, match["s"])


def _with_constant(network: NetworkDefinition, match: Match, name: str, index: int) -> Replaced:
    norm, given = match.layer("norm"), match[name]
    assert norm.operator is not None
    sizes = _inner(norm, given)
    value = given
    if tuple(sizes) != given.shape:

        def squeezed(net: NetworkDefinition, old: Tensor) -> Tensor:
            return apply(net, "Reshape", old, net.constant(np.array(sizes, np.int64)))

        value = derive(network, f"{given.name}_inner", (given,), squeezed)
    inputs = list(norm.inputs)
    if index < len(inputs):
        inputs[index] = value
    else:
        inputs.append(value)
    return network.add_layer(norm.operator, inputs, norm.attributes, name=norm.name).outputs[0]


NORM_SCALE = RewriteRule(
    "norm_scale",
    lambda op, x, s: op.Mul(op.any(NORMS, x, ...).called("norm"), op.constant(s)),
    lambda network, match: _with_constant(network, match, "s", 1),
    _no_scale,
    about="A constant factor along the normalized axes is the norm's own scale.",
)


def _no_bias(match: Match) -> Refusal | None:
    norm = match.layer("norm")
    if norm.get_input(2) is not None:
        return Refusal(f"'{norm.name}' has a bias already", code="scaled")
    return _misfit(norm, match["b"])


NORM_BIAS = RewriteRule(
    "norm_bias",
    lambda op, x, b: op.Add(op.LayerNormalization(x, ...).called("norm"), op.constant(b)),
    lambda network, match: _with_constant(network, match, "b", 2),
    _no_bias,
    about="A constant offset along the normalized axes is the layer norm's own bias.",
)
