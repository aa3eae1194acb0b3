"""An attention's Body taken apart: two products with a softmax between them, read where they lie.

Heads are not moved: transposes, reshapes, splits and repeated heads on the way from the Body's
inputs to the products, and from there to its output, are strides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from workbench.body import CONSTANT, VIEWS, Body, Node
from workbench.records import Refusal
from workbench.tactics.scalar_text import Untranslatable
from workbench.tactics.strided import Strided, follow, unfollow


@dataclass(frozen=True, eq=False)
class Way:
    """How a product's factor comes from a Body input, or its result becomes the output.

    source: the input's, or the output's, name. nodes: pointwise nodes of one number on the way; a
    result's may be quantized by one scale, a constant input of the Body, and the factors of an
    integer attention are, or are dequantized.
    """

    source: str
    view: Strided
    nodes: tuple[Node, ...]

    @property
    def steps(self) -> tuple[int, int]:
        """Distance of a head's rows, and of its columns. Raises Untranslatable."""
        rank = len(self.view.axes)
        row, column = self.view.step(rank - 2), self.view.step(rank - 1)
        if row is None or column is None:
            raise Untranslatable("a head's rows are not evenly spaced")
        return row, column


@dataclass(frozen=True, eq=False)
class AttentionBody:
    """softmax(queries·keysᵀ …)·values. heads: sizes of the axes before a head's rows and columns.

    sizes: of a head's queries, keys, query elements, value elements. keys: as [..., key, element].
    """

    body: Body
    scores: Node
    softmax: Node
    mix: Node
    heads: tuple[int, ...]
    sizes: tuple[int, int, int, int]
    queries: Way
    keys: Way
    values: Way
    result: Way


def read_attention(body: Body, *, integers: bool = False) -> AttentionBody:
    """The parts of a Body with bound sizes. Raises Untranslatable, naming what does not fit.

    integers: whether the products' factors may be quantized on their way and dequantized.
    """
    softmax = body.anchor_node
    products = [k for k, n in enumerate(body.nodes) if n.op == "MatMul"]
    if softmax is None or softmax.op != "Softmax" or len(products) != 2 or body.anchor is None:
        raise Untranslatable("it is not two products with a softmax between them")
    if len(body.outputs) != 1 or not products[0] < body.anchor < products[1]:
        raise Untranslatable("it has other outputs than the second product's")
    scores, mix = (body.nodes[k] for k in products)
    shape = body.types[scores.outputs[0]].shape
    if softmax.attributes["axis"] % len(shape) != len(shape) - 1 or 0 in shape:
        raise Untranslatable("its softmax does not run over the keys, or there are none")
    heads = shape[:-2]
    queries, turned, values = (
        _factor(body, v, heads, integers) for v in (*scores.inputs, mix.inputs[1])
    )
    keys = replace(turned, view=_turned(turned.view))
    sizes = (*shape[-2:], queries.view.shape[-1], values.view.shape[-1])
    result = _result(body, mix)
    return AttentionBody(body, scores, softmax, mix, heads, sizes, queries, keys, values, result)


def is_number(body: Body, value: str) -> bool:
    """Whether a value is a literal of one element."""
    node = _producer(body, value)
    literal = node is not None and node.operator is CONSTANT
    return literal and prod(body.types[value].shape) == 1


def _producer(body: Body, value: str) -> Node | None:
    return next((n for n in body.nodes if value in n.outputs), None)


# -- queries, keys, values ----------------------------------------------------------------
def _factor(body: Body, value: str, heads: Sequence[int], integers: bool) -> Way:
    way = _way(body, value, integers)
    shape = (*heads, *way.view.shape[-2:])
    wide = way.view.broadcast(shape) if len(way.view.axes) <= len(shape) else None
    if wide is None:
        raise Untranslatable(f"'{value}' does not broadcast to the scores' heads")
    return replace(way, view=wide)


def _way(body: Body, value: str, integers: bool) -> Way:
    node = _producer(body, value)
    if node is None:
        return Way(value, Strided.whole(body.types[value].shape), ())
    if node.op in VIEWS:
        way = _way(body, node.inputs[0], integers)
        views = follow(node, way.view, body)
        if isinstance(views, Refusal):
            raise Untranslatable(views.reason)
        return replace(way, view=views[node.outputs.index(value)])
    if integers and maps_by_one_scale(body, node):
        way = _way(body, node.inputs[0], integers)
        return replace(way, nodes=(*way.nodes, node))
    carried = [v for v in node.inputs if not is_number(body, v)]
    if not node.operator.pointwise or len(carried) != 1:
        raise Untranslatable(f"{node.op} '{value}' is neither a shuffle nor a scale")
    way = _way(body, carried[0], integers)
    return replace(way, nodes=(*way.nodes, node))


def _turned(view: Strided) -> Strided:
    """Keys as [..., key, element]: the product reads them turned."""
    rank = len(view.axes)
    return view.transposed((*range(rank - 2), rank - 1, rank - 2))


# -- result -------------------------------------------------------------------------------
def _result(body: Body, mix: Node) -> Way:
    """Where the second product's elements are stored, and what becomes of them first."""
    way: list[Node] = []
    value = mix.outputs[0]
    while value != body.outputs[0]:
        readers = [n for n in body.nodes if value in n.inputs]
        if len(readers) != 1:
            raise Untranslatable(f"'{value}' is read {len(readers)} times")
        way.append(readers[0])
        value = readers[0].outputs[0]
    view = Strided.whole(body.output_types[0].shape)
    finish: list[Node] = []
    for node in reversed(way):
        if node.op in VIEWS:
            before = unfollow(node, view, body)
            if isinstance(before, Refusal):
                raise Untranslatable(before.reason)
            view = before
        elif _finishes(body, node):
            finish.insert(0, node)
        else:
            raise Untranslatable(f"{node.op} '{node.outputs[0]}' follows the second product")
    return Way(body.outputs[0], view, tuple(finish))


def _finishes(body: Body, node: Node) -> bool:
    """Whether each element of the result is computed from one before, by known numbers alone."""
    if node.op == "QuantizeLinear":
        return maps_by_one_scale(body, node)
    return node.operator.pointwise and sum(not is_number(body, v) for v in node.inputs) == 1


def maps_by_one_scale(body: Body, node: Node) -> bool:
    """Whether a node quantizes or dequantizes a whole tensor by one known scale and zero point."""
    if node.op not in ("QuantizeLinear", "DequantizeLinear"):
        return False
    constant = {i.name for i in body.inputs if i.constant}
    return all(
        prod(body.types[v].shape) == 1 and (v in constant or is_number(body, v))
        for v in node.inputs[1:]
        if v
    )
