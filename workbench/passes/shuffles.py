"""Shuffles that cancel: pairs of Transpose, pairs of Reshape, and transposes in disguise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from workbench.body import RESHAPES
from workbench.network import NetworkDefinition
from workbench.passes.rule_pass import RulePass
from workbench.records import Refusal
from workbench.rewrite import Match, Replaced, RewriteRule
from workbench.rewrite.derive import shape_operand


@dataclass(frozen=True)
class Shuffles(RulePass):
    """Merges shuffles that follow each other; what cancels goes.

    Shapes are written out, symbolic where they have to be: a merged Reshape needs no -1.
    """

    name: str = "shuffles"

    @property
    def rules(self) -> tuple[RewriteRule, ...]:
        """Four rules, the simplest first."""
        return (TRANSPOSE_PAIR, TRANSPOSE_OF_ONES, TRANSPOSE_BETWEEN_RESHAPES, RESHAPE_PAIR)


def permutation(attributes: Any, rank: int) -> tuple[int, ...]:
    """The axes of a Transpose; by default reversed."""
    perm = attributes["perm"]
    return tuple(range(rank))[::-1] if perm is None else tuple(perm)


def _merged_transpose(network: NetworkDefinition, match: Match) -> Replaced:
    x, root = match["x"], match.root
    rank = len(x.shape)
    first = permutation(match.layer("first").attributes, rank)
    second = permutation(root.attributes, rank)
    perm = tuple(first[a] for a in second)
    if perm == tuple(range(rank)):
        return x
    return network.add_layer("Transpose", [x], {"perm": perm}, name=root.name).outputs[0]


TRANSPOSE_PAIR = RewriteRule(
    "transpose_pair",
    lambda op, x: op.Transpose(op.Transpose(x).called("first")),
    _merged_transpose,
    shares_inner=True,
    about="Two transposes are one, or none.",
)


def _reshape(network: NetworkDefinition, match: Match) -> Replaced:
    x, root = match["x"], match.root
    out = root.outputs[0]
    if x.shape == out.shape:
        return x
    shape = shape_operand(network, out.shape, f"{root.name}_shape")
    return network.add_layer("Reshape", [x, shape], {"allowzero": 1}, name=root.name).outputs[0]


RESHAPE_PAIR = RewriteRule(
    "reshape_pair",
    lambda op, x: op.any(RESHAPES, op.any(RESHAPES, x, ...), ...),
    _reshape,
    shares_inner=True,
    about="Two reshapes are one, or none.",
)


def _moves_ones_only(match: Match) -> Refusal | None:
    x = match["x"]
    perm = permutation(match.root.attributes, len(x.shape))
    large = [a for a in perm if x.shape[a] != 1]
    if large == sorted(large):
        return None
    return Refusal("it moves elements", code="moves_elements")


TRANSPOSE_OF_ONES = RewriteRule(
    "transpose_of_ones",
    lambda op, x: op.layer(
        lambda layer: layer.op == "Transpose" and 1 in layer.outputs[0].shape,
        x,
        described="Transpose with an axis of size 1",
    ),
    _reshape,
    _moves_ones_only,
    about="A transpose that only moves axes of size 1 is a reshape.",
)


def merged_axes(inner: Sequence[Any], outer: Sequence[Any]) -> list[list[int]] | None:
    """For each outer axis the inner axes that it merges; None if it does not merge whole ones."""
    groups: list[list[int]] = []
    i = 0
    for size in outer:
        group: list[int] = []
        product: Any = 1
        while product != size and i < len(inner):
            product = product * inner[i]
            group.append(i)
            i += 1
        if product != size:
            return None
        groups.append(group)
    if any(d != 1 for d in inner[i:]):
        return None
    if groups:
        groups[-1].extend(range(i, len(inner)))
    return groups


def _hidden_perm(match: Match) -> tuple[int, ...] | None:
    """The axes of the one transpose that Reshape, Transpose, Reshape amount to."""
    x, first, middle = match["x"], match.layer("first"), match.layer("middle")
    groups = merged_axes(x.shape, first.outputs[0].shape)
    if groups is None:
        return None
    perm = permutation(middle.attributes, len(groups))
    axes = tuple(a for p in perm for a in groups[p])
    fits = match.root.outputs[0].shape == tuple(x.shape[a] for a in axes)
    return axes if fits else None


def _no_transpose(match: Match) -> Refusal | None:
    if _hidden_perm(match) is not None:
        return None
    return Refusal("its reshapes do not merge and split the same whole axes", code="mixes_axes")


def _one_transpose(network: NetworkDefinition, match: Match) -> Replaced:
    perm = _hidden_perm(match)
    name = match.layer("middle").name
    return network.add_layer("Transpose", [match["x"]], {"perm": perm}, name=name).outputs[0]


TRANSPOSE_BETWEEN_RESHAPES = RewriteRule(
    "transpose_between_reshapes",
    lambda op, x: op.any(
        RESHAPES,
        op.Transpose(op.any(RESHAPES, x, ...).called("first")).called("middle"),
        ...,
    ),
    _one_transpose,
    _no_transpose,
    shares_inner=True,
    about="Merging axes, transposing and splitting them again is one transpose.",
)
"""PyTorch's exporter writes the transposed keys of attention like this."""
