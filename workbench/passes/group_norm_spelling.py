"""Group normalization as exporters write it: an instance norm between two reshapes.

Channels are gathered in groups, [N, C, ...] as [N, G, -1]; each group is normalized with scale 1
and bias 0, the shape is restored, and a factor and an offset a channel follow.
Source: Wu and He, arXiv:1803.08494.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workbench.body import RESHAPES
from workbench.network import Layer, NetworkDefinition, Tensor
from workbench.passes.rule_pass import RulePass
from workbench.records import Refusal
from workbench.rewrite import Match, Replaced, RewriteRule, not_constant, not_same_type
from workbench.rewrite.derive import apply, derive


@dataclass(frozen=True)
class GroupNormSpelling(RulePass):
    """Folds reshape, instance norm, reshape, and what scales the channels, into one operator."""

    name: str = "group_norm_spelling"

    @property
    def rules(self) -> tuple[RewriteRule, ...]:
        """The norm itself, its scale, its bias."""
        return (GROUP_NORM_SPELLING, GROUP_NORM_SCALE, GROUP_NORM_BIAS)


def _is_all(tensor: Tensor | None, value: float) -> bool:
    if tensor is None or tensor.weight is None:
        return False
    return bool((tensor.weight.array == value).all())


def _no_group_norm(match: Match) -> Refusal | None:
    x, norm, root = match["x"], match.layer("norm"), match.root
    out, grouped = root.outputs[0], norm.outputs[0]
    if out.shape != x.shape:
        return Refusal(f"'{out.name}' is {out.type}, not {x.type} again", code="shape_mismatch")
    channels, groups = x.shape[1], grouped.shape[1]
    whole = isinstance(channels, int) and isinstance(groups, int) and groups > 0
    if len(x.shape) < 2 or grouped.shape[0] != x.shape[0] or not whole or channels % groups:
        return Refusal(
            f"'{grouped.name}' is {grouped.type}: not whole groups of {channels} channels",
            code="shape_mismatch",
        )
    if not _is_all(norm.inputs[1], 1) or not _is_all(norm.inputs[2], 0):
        return Refusal(f"'{norm.name}' scales each group by itself", code="scaled")
    return None


def _one_norm(network: NetworkDefinition, match: Match) -> Replaced:
    x, norm = match["x"], match.layer("norm")
    kind = x.dtype.numpy
    scale = network.constant(np.ones(x.shape[1], kind), f"{norm.name}_scale")
    bias = network.constant(np.zeros(x.shape[1], kind), f"{norm.name}_bias")
    attributes = {
        "num_groups": norm.outputs[0].shape[1],
        "epsilon": norm.attributes["epsilon"],
    }
    return network.add_layer(
        "GroupNormalization", [x, scale, bias], attributes, name=norm.name
    ).outputs[0]


GROUP_NORM_SPELLING = RewriteRule(
    "group_norm_spelling",
    lambda op, x: op.any(
        RESHAPES,
        op.InstanceNormalization(op.any(RESHAPES, x, ...), ...).called("norm"),
        ...,
    ),
    _one_norm,
    _no_group_norm,
    shares_inner=True,
    about="An instance norm of groups of channels is a group norm.",
)


def _misfit(norm: Layer, constant: Tensor) -> Refusal | None:
    """Why a constant is not one number a channel, or None."""
    out = norm.outputs[0]
    if not constant.is_constant:
        return not_constant(constant)
    if constant.dtype is not out.dtype:
        return not_same_type(constant, out)
    shape = (*(1,) * (len(out.shape) - len(constant.shape)), *constant.shape)
    along = {a for a, d in enumerate(shape) if d != 1}
    if len(shape) == len(out.shape) and along <= {1} and shape[1] in (1, out.shape[1]):
        return None
    return Refusal(
        f"'{constant.name}' has shape {constant.shape}: not one number a channel",
        code="shape_mismatch",
    )


def _no_scale(match: Match) -> Refusal | None:
    norm = match.layer("norm")
    if not _is_all(norm.inputs[1], 1) or not _is_all(norm.inputs[2], 0):
        return Refusal(f"'{norm.name}' has a scale or bias already", code="scaled")
    return _misfit(norm, match["s"])


def _no_bias(match: Match) -> Refusal | None:
    norm = match.layer("norm")
    if not _is_all(norm.inputs[2], 0):
        return Refusal(f"'{norm.name}' has a bias already", code="scaled")
    return _misfit(norm, match["b"])


def _with_constant(network: NetworkDefinition, match: Match, name: str, index: int) -> Replaced:
    norm, given = match.layer("norm"), match[name]
    channels = norm.outputs[0].shape[1]
    assert norm.operator is not None

    def spread(net: NetworkDefinition, old: Tensor) -> Tensor:
        flat = apply(net, "Reshape", old, net.constant(np.array([-1], np.int64)))
        return apply(net, "Expand", flat, net.constant(np.array([channels], np.int64)))

    inputs = list(norm.inputs)
    inputs[index] = derive(network, f"{given.name}_channels", (given,), spread)
    return network.add_layer(norm.operator, inputs, norm.attributes, name=norm.name).outputs[0]


GROUP_NORM_SCALE = RewriteRule(
    "group_norm_scale",
    lambda op, s: op.Mul(op.GroupNormalization(...).called("norm"), op.constant(s)),
    lambda network, match: _with_constant(network, match, "s", 1),
    _no_scale,
    about="A constant factor a channel is the group norm's own scale.",
)

GROUP_NORM_BIAS = RewriteRule(
    "group_norm_bias",
    lambda op, b: op.Add(op.GroupNormalization(...).called("norm"), op.constant(b)),
    lambda network, match: _with_constant(network, match, "b", 2),
    _no_bias,
    about="A constant offset a channel is the group norm's own bias.",
)
