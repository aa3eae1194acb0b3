"""Cast of a Cast: the first goes where its type holds every value of the one before."""

from __future__ import annotations

from workbench.datatypes import DataType
from workbench.fusions.swaps import MOVERS, in_turn, second_output
from workbench.network import Layer, NetworkDefinition
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


# -- past what lies between ---------------------------------------------------------------
def _follows_cast(mover: Layer) -> bool:
    """Whether only layers that move elements lie between it and a Cast that loses nothing.

    Behind another one a Cast could not go away, and the shuffles would come back.
    """
    layer: Layer | None = mover
    while layer is not None and layer.op in MOVERS and layer.operator is not None:
        given = layer.inputs[0]
        if len(layer.outputs[0].users) > 1 or given is None:
            return False
        layer = given.producer
    if layer is None or layer.op != "Cast" or layer.operator is None:
        return False
    before = layer.inputs[0]
    return before is not None and holds(layer.outputs[0].dtype, before.dtype)


def _keeps_place(match: Match) -> Refusal | None:
    mover, result = match.layer("mover"), match.root.outputs[0]
    if mover.op == "MaxPool" and not (result.dtype.is_float and mover.outputs[0].dtype.is_float):
        return Refusal("MaxPool of another kind of numbers", code="type_mismatch")
    return second_output(mover)


def _earlier(network: NetworkDefinition, match: Match) -> Replaced:
    mover = match.layer("mover")
    return in_turn(network, match.root, mover, mover.inputs[0])


CAST_EARLIER = RewriteRule(
    "cast_earlier",
    lambda op: op.Cast(
        op.layer(
            lambda x: x.op in MOVERS and _follows_cast(x),
            described="a shuffle of what was cast",
            operators=MOVERS,
        ).called("mover")
    ),
    _earlier,
    _keeps_place,
    about="A Cast moves past reshapes, transposes and max pools to the Cast before it.",
)
