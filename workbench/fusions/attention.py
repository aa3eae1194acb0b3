"""Attention: softmax(Q·Kᵀ·scale + mask)·V is one layer, anchored at its Softmax.

First the two products with what lies between them, then, step by step, the shuffles and scales
that queries, keys and values come through (heads split off, keys turned, grouped heads repeated),
and the shuffles that put the heads side by side again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from workbench.body import RESHAPES, SHUFFLES, VIEWS, Body, Node
from workbench.datatypes import DataType
from workbench.fusions.anchors import PRODUCTS, main_output, node_of, too_large
from workbench.network import Layer, Tensor
from workbench.records import Refusal
from workbench.rewrite import Match, Miss, RewriteRule
from workbench.tactics.strided import whole_axes

BETWEEN = 8
"""Most pointwise layers between the products: scale, soft cap, masks, Casts."""


def is_attention(layer: Layer) -> bool:
    """Whether the layer is a fused attention: a Softmax between two products."""
    if layer.fused is None or layer.op != "Softmax":
        return False
    return layer.operator_names.count("MatMul") >= 2


def ends_attention(layer: Layer) -> bool:
    """Whether the layer is an attention, or the product with the values of one to be fused."""
    if is_attention(layer):
        return True
    found = _attention(layer) if layer.op == "MatMul" else None
    return isinstance(found, Match) and _refuse(found) is None


# -- the two products ---------------------------------------------------------------------
@dataclass(frozen=True)
class SoftmaxBetweenProducts:
    """Finds the product with V; ``scores`` is the one of Q and K, ``softmax`` lies between."""

    operators: frozenset[str] = frozenset({"MatMul"})
    depth: int = 6
    size: int = 2 + 2 * BETWEEN

    def find(self, layer: Layer) -> Iterator[Match]:
        """The one attention that ends here, if one does."""
        found = _attention(layer)
        if not isinstance(found, Match):
            return
        yield found

    def nearest_miss(self, layer: Layer) -> Miss | None:
        """A Softmax that a product reads, whose own input is no product's."""
        found = _attention(layer)
        return found if isinstance(found, Miss) else None


def _attention(layer: Layer) -> Match | Miss | None:
    """The attention that this product ends, or what came near."""
    if layer.operator is None:
        return None
    after = pointwise_span(layer.inputs[0], "Softmax")
    if after is None:
        return None
    softmax = after[-1]
    before = pointwise_span(softmax.inputs[0], "MatMul")
    if before is None:
        x = softmax.inputs[0]
        if x is None or (x.producer is not None and x.producer.op in PRODUCTS):
            return None  # an attention that was refused; its products then fused otherwise
        made = f"{x.producer.op} '{x.producer.name}'" if x.producer else f"'{x.name}'"
        reason = f"wants a product of queries and keys before the Softmax, found {made}"
        return Miss((layer, *after), reason)
    scores = before[-1]
    rest = sorted((layer, *after[:-1], *before), key=lambda x: x.place)
    named = {"scores": scores, "softmax": softmax, "values": layer}
    return Match((softmax, *rest), layer, {}, named, softmax)


def pointwise_span(tensor: Tensor | None, operator: str) -> list[Layer] | None:
    """Pointwise layers from a tensor up to the one layer of an operator, which comes last.

    The way may fork and join. None where it leads to no such layer of the tensor's shape.
    """
    if tensor is None:
        return None
    reached: dict[Layer, bool] = {}
    ends: dict[Layer, None] = {}

    def leads(t: Tensor | None, left: int) -> bool:
        made = t.producer if t is not None and t.value is None else None
        if made is None or made.operator is None or made.on_host:
            return False
        if made.op == operator:
            fits = made.outputs[0].shape == tensor.shape
            ends.update({made: None} if fits else {})
            return fits
        if made not in reached:
            # Not a generator: every way up is followed.
            ways = (
                [leads(i, left - 1) for i in made.inputs]
                if made.operator.pointwise and left
                else []
            )
            reached[made] = any(ways)
        return reached[made]

    if not leads(tensor, BETWEEN) or len(ends) != 1:
        return None
    return [*(x for x, led in reached.items() if led), *ends]


def wrong_axis(softmax: Layer) -> Refusal | None:
    """Why a Softmax is not over an attention's keys, or None."""
    rank = len(softmax.outputs[0].shape)
    axis = softmax.attributes["axis"] % rank
    if axis == rank - 1:
        return None
    return Refusal(
        f"'{softmax.name}' runs along axis {axis}; attention sums over its keys, axis {rank - 1}",
        code="wrong_axis",
    )


def _refuse(match: Match) -> Refusal | None:
    scores, softmax, values = (match.layer(n) for n in ("scores", "softmax", "values"))
    rank = len(softmax.outputs[0].shape)
    refusal = wrong_axis(softmax)
    if refusal is not None:
        return refusal
    factors = (scores.inputs[0], scores.inputs[1], values.inputs[1])
    for label, t in zip(("queries", "keys", "values"), factors, strict=True):
        assert t is not None
        if t.value is not None:
            return Refusal(
                f"its {label} '{t.name}' are a constant: a product with weights has its own kernel",
                code="constant_factor",
            )
        if t.producer is not None and t.producer.op == "DequantizeLinear":
            return Refusal(
                f"its {label} '{t.name}' are quantized: INT8 products are kernels of their own",
                remedy="request a float precision for both products",
                code="quantized_factor",
            )
        if len(t.shape) != rank:
            return Refusal(f"its {label} '{t.name}' have {len(t.shape)} axes", code="rank")
    return _mixes_types(scores, softmax, values) or too_large(*match.layers)


def _mixes_types(scores: Layer, softmax: Layer, values: Layer) -> Refusal | None:
    """One kernel has one type: what was requested of each of the three must be what runs."""
    kinds = {x.name: x.inputs[0].dtype for x in (scores, softmax, values) if x.inputs[0]}
    if len(set(kinds.values())) == 1:
        return None
    told = ", ".join(f"'{name}' is {kind.info.label}" for name, kind in kinds.items())
    return Refusal(
        f"{told}: one kernel computes in one type",
        remedy="request one precision for both products and the Softmax",
        code="mixed_types",
    )


ATTENTION = RewriteRule(
    "attention",
    SoftmaxBetweenProducts(),
    refuse=_refuse,
    about="The scores of attention never go to memory: both products and the Softmax are one.",
)


# -- what queries, keys and values come through -------------------------------------------
@dataclass(frozen=True)
class Factors:
    """Which inputs of an attention's Body lead to which factor, and which to what lies between."""

    queries: frozenset[str]
    keys: frozenset[str]
    values: frozenset[str]
    others: frozenset[str]


def products_of(body: Body) -> tuple[Node, Node]:
    """The product of queries and keys, and that with the values."""
    assert body.anchor is not None
    products = [k for k, n in enumerate(body.nodes) if n.op == "MatMul"]
    first = max(k for k in products if k < body.anchor)
    last = min(k for k in products if k > body.anchor)
    return body.nodes[first], body.nodes[last]


def factors_of(body: Body) -> Factors:
    """The inputs of an attention's Body by what they lead to."""
    scores, values = products_of(body)
    queries, keys = (_sources(body, v) for v in scores.inputs)
    between = _sources(body, values.inputs[0], stop=scores.outputs[0])
    return Factors(queries, keys, _sources(body, values.inputs[1]), between)


def _sources(body: Body, value: str, stop: str = "") -> frozenset[str]:
    """The Body's inputs that a value is computed from; not through ``stop``."""
    inputs, found, todo = {i.name for i in body.inputs}, set[str](), [value]
    while todo:
        v = todo.pop()
        node = node_of(body, v)
        if v in inputs:
            found.add(v)
        elif v != stop and node is not None:
            todo.extend(i for i in node.inputs if i)
    return frozenset(found)


def _scales(layer: Layer) -> bool:
    """Whether the layer multiplies or divides a tensor by one known number, or casts it."""
    if layer.operator is None or layer.op not in ("Mul", "Div", "Cast"):
        return False
    known = [t for t in layer.inputs if t is not None and t.value is not None]
    first = layer.inputs[0]
    divides = layer.op == "Div" and (first is None or first.value is not None)
    return not divides and all(t.value is not None and t.value.size == 1 for t in known)


def _prepares(layer: Layer) -> bool:
    """Whether it is what queries, keys and values come through."""
    kind = layer.outputs[0].dtype
    if layer.operator is None or not (kind.is_float or kind is DataType.INT8):
        return False
    known = all(t is None or t.value is not None for t in layer.inputs[1:])
    return (layer.op in VIEWS and known) or _scales(layer)


def _not_prepared(match: Match) -> Refusal | None:
    attention, before = match.layer("anchor"), match.layer("before")
    body, operands = attention.body, attention.operands
    factors = factors_of(body)
    made = set(before.outputs)
    reads = {i.name for i, t in zip(body.inputs, operands, strict=True) if t in made}
    if reads & factors.others:
        return Refusal(
            f"'{before.name}' makes the mask, which every head reads as it lies in memory",
            code="mask",
        )
    return _mixes_axes(before) or too_large(*match.layers)


def _mixes_axes(layer: Layer) -> Refusal | None:
    x, y = layer.inputs[0], layer.outputs[0]
    if layer.op not in RESHAPES or x is None or whole_axes(x.shape, y.shape):
        return None
    return Refusal(
        f"'{layer.name}' reshapes {x.type} to {y.type}: not whole axes, so it takes a copy",
        code="mixes_axes",
    )


ATTENTION_PROLOGUE = RewriteRule(
    "attention_prologue",
    lambda op: op.layer(
        is_attention,
        op.layer(_prepares, described="a shuffle or a scale").called("before"),
        described="an attention",
        operators={"Softmax"},
    ).called("anchor"),
    refuse=_not_prepared,
    about="Heads are read where they lie: split, turned and repeated by strides alone.",
)


# -- what puts the heads side by side -----------------------------------------------------
FINISHING = SHUFFLES | {"Cast"}


def _finishes(layer: Layer) -> bool:
    return layer.operator is not None and layer.op in FINISHING


def _not_finished(match: Match) -> Refusal | None:
    in_integers = "DequantizeLinear" in match.layer("anchor").operator_names
    if not match.root.outputs[0].dtype.is_float and not in_integers:
        return Refusal(
            f"'{main_output(match.root).name}' is {main_output(match.root).dtype.value}: "
            "attention's kernel shuffles floats",
            code="type_mismatch",
        )
    return _mixes_axes(match.root) or too_large(*match.layers)


ATTENTION_EPILOGUE = RewriteRule(
    "attention_epilogue",
    lambda op: op.layer(
        _finishes,
        op.layer(is_attention, described="an attention").called("anchor"),
        described="a shuffle",
        operators=FINISHING,
    ),
    refuse=_not_finished,
    about="Each head's result is written where the next product reads it.",
)
