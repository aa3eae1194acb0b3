"""Cast of a Cast: the first goes where its type holds every value of the one before."""

from __future__ import annotations

from workbench.datatypes import DataType
from workbench.network import NetworkDefinition
from workbench.records import Refusal
from workbench.rewrite import Match, Replaced, RewriteRule


def holds(wide: DataType, narrow: DataType) -> bool:
    """Whether every value of ``narrow`` is a value of ``wide``."""
    a, b = wide.info, narrow.info
    if wide is narrow:
        return True
    if b.kind == "bool":
        return a.kind in ("integer", "float")
    if a.kind == b.kind == "integer":
        return a.low <= b.low and b.high <= a.high
    if a.kind == b.kind == "float":
        return a.eps <= b.eps and a.high >= b.high and wide in _SPACIOUS
    if a.kind == "float" and b.kind == "integer":
        return max(-b.low, b.high) <= 2 / a.eps
    return False


_SPACIOUS = frozenset({DataType.FLOAT, DataType.DOUBLE})
"""Floats whose exponents reach below every smaller type's subnormals."""


def _lossy(match: Match) -> Refusal | None:
    first, x = match.layer("first").outputs[0], match["x"]
    if holds(first.dtype, x.dtype):
        return None
    return Refusal(
        f"{first.dtype.value} does not hold every {x.dtype.value}: the values would change",
        remedy="request the same precision on both sides",
        code="lossy_cast",
    )


def _direct(network: NetworkDefinition, match: Match) -> Replaced:
    x, root = match["x"], match.root
    if x.dtype is root.outputs[0].dtype:
        return x
    return network.add_layer("Cast", [x], root.attributes, name=root.name).outputs[0]


CAST_PAIRS = RewriteRule(
    "cast_pairs",
    lambda op, x: op.Cast(op.Cast(x).called("first")),
    _direct,
    _lossy,
    shares_inner=True,
    exact=True,
    about="A Cast to a wider type and back is no Cast at all.",
)
"""A→B→C becomes A→C where B holds every value of A."""
