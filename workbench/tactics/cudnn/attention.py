"""Attention as one cuDNN graph: queries, keys and values read where they lie, by strides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from workbench.body import VIEWS, Body, Node
from workbench.datatypes import DataType
from workbench.formats import LINEAR
from workbench.records import Refusal
from workbench.tactics.cudnn.epilogue import Undescribed
from workbench.tactics.cudnn.graph import Drawing, Graph, Input, dense
from workbench.tactics.strided import Run, Strided, follow, unfollow
from workbench.tactics.terms import Constant, Constants, Term

HALVES = frozenset({DataType.HALF, DataType.BF16})
ALIGNMENT = 16
"""Bytes to which every row of a factor must be aligned."""


@dataclass(frozen=True)
class Way:
    """Where a factor comes from: a dynamic input, its view, and the number it is scaled by."""

    source: str
    view: Strided
    scale: float


def is_attention(body: Body) -> bool:
    """Whether the Body is a softmax between two products."""
    anchor = body.anchor_node
    return (
        anchor is not None and anchor.op == "Softmax" and body.operator_names.count("MatMul") == 2
    )


def describe(body: Body, constants: Constants) -> tuple[Graph, ...]:
    """The graph that computes the Body. Raises Undescribed."""
    return _Reader(body, constants).graphs()


class _Reader:
    """Takes an attention's Body apart."""

    def __init__(self, body: Body, constants: Constants) -> None:
        self.body = body
        self.constants = constants
        self.producers = constants.producers
        self.dynamic = {i.name: k for k, i in enumerate(body.dynamic_inputs)}

    def graphs(self) -> tuple[Graph, ...]:
        body = self.body
        anchor = body.anchor
        assert anchor is not None
        products = [k for k, n in enumerate(body.nodes) if n.op == "MatMul"]
        if len(body.outputs) != 1 or not products[0] < anchor < products[1]:
            raise Undescribed("it is not two products with a softmax between them", "order")
        scores, softmax, mix = body.nodes[products[0]], body.nodes[anchor], body.nodes[products[1]]
        shape = body.types[scores.outputs[0]].shape
        if softmax.attributes["axis"] % len(shape) != len(shape) - 1 or len(shape) > 4:
            raise Undescribed("its softmax does not run over the keys of two axes of heads", "axis")
        ways = [
            self.factor(v, shape[:-2]) for v in (scores.inputs[0], scores.inputs[1], mix.inputs[1])
        ]
        self.same_probabilities(softmax, mix)
        scale, mask = self.between(scores, softmax)
        kinds = {body.types[w.source].dtype for w in ways} | {body.output_types[0].dtype}
        if len(kinds) != 1 or not kinds <= HALVES:
            raise Undescribed("cuDNN's attention reads and writes one half type", "type")
        (kind,) = kinds
        drawing = Drawing()
        q, k, v = (self.drawn(drawing, w, kind, turned=n == 1) for n, w in enumerate(ways))
        pairs = [("q", q), ("k", k), ("v", v)]
        options: dict[str, Any] = {"attn_scale": scale * ways[0].scale * ways[1].scale}
        if mask is not None:
            if self.is_causal(mask, shape):
                options["use_causal_mask"] = True
            else:
                pairs.append(("bias", self.mask(drawing, mask, shape)))
        target = self.result(mix, ways[2].scale)
        dims = (*drawing.tensors[q].dims[:3], drawing.tensors[v].dims[3])
        strides = _steps(target, _heads_of(target))
        if target.offset or strides[3] not in (0, 1):
            raise Undescribed("its result's rows are not together", "layout")
        o = drawing.add("sdpa", pairs, dims, strides, result=kind, **options)
        graph = drawing.graph(
            o,
            kind,
            variant="as written",
            io=kind,
            inputs=(LINEAR,) * len(body.dynamic_inputs),
            outputs=(LINEAR,),
        )
        return (graph,)

    # -- queries, keys, values ------------------------------------------------------------
    def factor(self, value: str, heads: Sequence[int]) -> Way:
        way = self.way(value)
        shape = (*heads, *way.view.shape[-2:])
        view = way.view.broadcast(shape) if len(way.view.axes) <= len(shape) else None
        if view is None:
            raise Undescribed(f"'{value}' does not broadcast to the scores' heads", "shape")
        return Way(way.source, view, way.scale)

    def way(self, value: str) -> Way:
        if value in self.dynamic:
            return Way(value, Strided.whole(self.body.types[value].shape), 1.0)
        node = self.producers.get(value)
        if node is None or self.constants.knows(value):
            raise Undescribed(f"'{value}' is a constant", "constant")
        if node.op in VIEWS:
            way = self.way(node.inputs[0])
            views = follow(node, way.view, self.body)
            if isinstance(views, Refusal):
                raise Undescribed(views.reason, views.code)
            return Way(way.source, views[node.outputs.index(value)], way.scale)
        carried, factor = self.scaling(node)
        way = self.way(carried)
        return Way(way.source, way.view, way.scale * factor)

    def scaling(self, node: Node) -> tuple[str, float]:
        """What a node scales, and by which number. Raises Undescribed for any other node."""
        if node.op in ("Cast", "Identity"):
            kinds = {self.body.types[v].dtype for v in (node.inputs[0], node.outputs[0])}
            if not all(k.is_float for k in kinds):
                raise Undescribed("it casts integers", "type")
            return node.inputs[0], 1.0
        if node.op in ("Mul", "Div"):
            known = [v for v in node.inputs if self.is_number(v)]
            rest = [v for v in node.inputs if not self.is_number(v)]
            if len(known) == len(rest) == 1 and (node.op == "Mul" or node.inputs[1] == known[0]):
                number = self.constants.number(known[0])
                return rest[0], number if node.op == "Mul" else 1 / number
        raise Undescribed(f"{node.op} '{node.outputs[0]}' is neither a shuffle nor a scale")

    def is_number(self, value: str) -> bool:
        return self.constants.knows(value) and prod(self.body.types[value].shape) == 1

    def drawn(self, drawing: Drawing, way: Way, kind: DataType, *, turned: bool) -> str:
        view = way.view
        rank = len(view.axes)
        if turned:
            view = view.transposed((*range(rank - 2), rank - 1, rank - 2))
        heads = _heads_of(view)
        steps = _steps(view, heads)
        dims = (*(n for n, _ in heads), view.shape[-2], view.shape[-1])
        size = kind.itemsize
        rows = [s for s, d in zip(steps[:3], dims[:3], strict=True) if d > 1]
        if steps[3] != 1 or any(s * size % ALIGNMENT for s in (*rows, view.offset)):
            raise Undescribed(f"rows of '{way.source}' are not aligned and together", "layout")
        place = Input(self.dynamic[way.source], view.offset)
        return drawing.tensor("x", dims, steps, kind, place)

    # -- between the products -------------------------------------------------------------
    def between(self, scores: Node, softmax: Node) -> tuple[float, str | None]:
        """The scale of the scores, and what is added to them afterwards."""
        scale, mask = 1.0, None
        value = softmax.inputs[0]
        while value != scores.outputs[0]:
            node = self.producers.get(value)
            if node is None:
                raise Undescribed(f"'{value}' does not come from the product", "order")
            if node.op == "Add" and mask is None and scale == 1.0:
                leading = [v for v in node.inputs if self.leads(v, scores)]
                if len(leading) != 1:
                    raise Undescribed("two masks are added", "mask")
                value = leading[0]
                mask = next(v for v in node.inputs if v != value)
                continue
            value, factor = self.scaling(node)
            scale *= factor
        return scale, mask

    def leads(self, value: str, scores: Node) -> bool:
        if value == scores.outputs[0]:
            return True
        node = self.producers.get(value)
        return node is not None and any(self.leads(v, scores) for v in node.inputs if v)

    def same_probabilities(self, softmax: Node, mix: Node) -> None:
        value = mix.inputs[0]
        while value != softmax.outputs[0]:
            node = self.producers[value]
            if node.op not in ("Cast", "Identity"):
                raise Undescribed(f"{node.op} '{value}' follows the softmax", "order")
            value = node.inputs[0]

    def mask(self, drawing: Drawing, value: str, shape: Sequence[int]) -> str:
        t = self.body.types[value]
        dims = (*(1,) * (4 - len(t.shape)), *t.shape)
        if t.dtype not in (DataType.FLOAT, *HALVES):
            raise Undescribed(f"its mask is {t.dtype.value}", "mask")
        if dims[-1] != shape[-1]:
            raise Undescribed("its mask is one number for all keys", "mask")
        if self.constants.knows(value):
            stored = Constant(Term.of(value), t.dtype, dims)
            return drawing.tensor("c", dims, dense(dims), t.dtype, stored)
        if value not in self.dynamic:
            raise Undescribed(f"its mask '{value}' is computed within the layer", "mask")
        return drawing.tensor("x", dims, dense(dims), t.dtype, Input(self.dynamic[value]))

    def is_causal(self, mask: str, shape: Sequence[int]) -> bool:
        """Whether a constant mask hides exactly the keys that come after each query."""
        queries, keys = shape[-2:]
        if not self.constants.knows(mask):
            return False
        values = self.constants.value(mask).astype(np.float64)
        if values.size != queries * keys:
            return False
        flat = values.reshape(queries, keys)
        later = np.triu(np.ones((queries, keys), bool), 1)
        return bool((flat[~later] == 0).all() and (flat[later] <= -1e4).all())

    # -- result ---------------------------------------------------------------------------
    def result(self, mix: Node, scale: float) -> Strided:
        """Where the result's elements are stored, as (heads..., query, element)."""
        if scale != 1.0:
            raise Undescribed("its values are scaled", "scale")
        way: list[Node] = []
        value = mix.outputs[0]
        while value != self.body.outputs[0]:
            readers = [n for n in self.body.nodes if value in n.inputs]
            if len(readers) != 1:
                raise Undescribed(f"'{value}' is read {len(readers)} times", "order")
            way.append(readers[0])
            value = readers[0].outputs[0]
        view = Strided.whole(self.body.output_types[0].shape)
        for node in reversed(way):
            if node.op in ("Cast", "Identity"):
                continue
            before = unfollow(node, view, self.body) if node.op in VIEWS else None
            if before is None or isinstance(before, Refusal):
                raise Undescribed(f"{node.op} follows the second product", "order")
            view = before
        return view


def _heads_of(view: Strided) -> tuple[Run, Run]:
    """(size, step) of batch and heads. Heads that repeat (grouped queries) count once."""
    found: list[Run] = []
    for runs in view.axes[:-2]:
        kept = [r for r in runs if r[1] != 0]
        if kept != list(runs[: len(kept)]):
            raise Undescribed("its repeated heads are not next to each other", "layout")
        bare = Strided(0, (tuple(kept),))
        step = bare.step(0)
        if step is None:
            raise Undescribed("its heads are not evenly spaced", "layout")
        found.append((prod(n for n, _ in kept), step))
    whole = [(1, 0)] * (2 - len(found)) + found
    return whole[0], whole[1]


def _steps(view: Strided, heads: tuple[Run, Run]) -> tuple[int, ...]:
    """Strides as (batch, head, row, element); an axis of one element gets a dense one's step."""
    rank = len(view.axes)
    row, column = view.step(rank - 2), view.step(rank - 1)
    if row is None or column is None:
        raise Undescribed("a head's rows are not evenly spaced", "layout")
    size = prod(view.shape[-2:])
    steps = [s if n > 1 else size for n, s in heads]
    rows = row if view.shape[-2] > 1 else view.shape[-1]
    return (*steps, rows, column if view.shape[-1] > 1 else 1)
