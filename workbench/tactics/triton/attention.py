"""An attention's Body taken apart: two products with a softmax between them, read by strides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from workbench.body import CONSTANT, Body, Node
from workbench.datatypes import DataType
from workbench.records import Refusal
from workbench.tactics.strided import SHUFFLES, Strided, follow, unfollow
from workbench.tactics.triton.kernel import LARGEST_INDEX
from workbench.tactics.triton.scalars import Untranslatable

MULTIPLIED = (DataType.HALF, DataType.BF16, DataType.FLOAT)


@dataclass(frozen=True, eq=False)
class View:
    """Where a head's rows and columns lie in a tensor. runs: (size, step) of the heads' axes."""

    name: str
    offset: int
    runs: tuple[tuple[int, int], ...]
    row: int
    column: int
    nodes: tuple[Node, ...] = ()
    """Pointwise nodes of one number that its elements go through."""


@dataclass(frozen=True, eq=False)
class Attention:
    """softmax(q·kᵀ …)·v. sizes: of a head's queries, keys, query elements, value elements.

    between, after: what the softmax reads and what the second product reads. zeroed: whether rows
    of which every key is masked become zeros.
    """

    body: Body
    heads: tuple[int, ...]
    sizes: tuple[int, int, int, int]
    queries: View
    keys: View
    values: View
    result: View
    scores: Node
    softmax: Node
    mix: Node
    after: tuple[Node, ...]
    zeroed: bool

    @property
    def kinds(self) -> tuple[DataType, DataType]:
        """The types in which both products multiply."""
        types = self.body.types
        return types[self.scores.inputs[0]].dtype, types[self.mix.inputs[1]].dtype


def attention_of(body: Body) -> Attention:
    """The attention that a Body is. Raises Untranslatable, naming what does not fit."""
    return _Reader(body).read()


class _Reader:
    def __init__(self, body: Body) -> None:
        self.body = body
        self.producers = {o: n for n in body.nodes for o in n.outputs if o}
        self.inputs = {i.name for i in body.inputs}

    def read(self) -> Attention:
        body, softmax = self.body, self.body.anchor_node
        products = [k for k, n in enumerate(body.nodes) if n.op == "MatMul"]
        if softmax is None or softmax.op != "Softmax" or len(products) != 2 or body.anchor is None:
            raise Untranslatable("it is not two products with a softmax between them")
        if len(body.outputs) != 1 or not products[0] < body.anchor < products[1]:
            raise Untranslatable("it has other outputs than the second product's")
        scores, mix = (body.nodes[k] for k in products)
        shape = body.types[scores.outputs[0]].shape
        if softmax.attributes["axis"] % len(shape) != len(shape) - 1 or 0 in shape:
            raise Untranslatable("its softmax does not run over the keys, or there are none")
        if any(prod(t.shape) > LARGEST_INDEX for t in body.types.values()):
            raise Untranslatable("a tensor has 2**31 elements or more: offsets are 32-bit")
        heads = shape[:-2]
        views = [self._factor(v, heads) for v in (*scores.inputs, mix.inputs[1])]
        turned = views[1][1]
        rank = len(turned.axes)
        turned = turned.transposed((*range(rank - 2), rank - 1, rank - 2))
        named = [
            self._view(source, view, nodes)
            for (source, _, nodes), view in zip(
                views, (views[0][1], turned, views[2][1]), strict=True
            )
        ]
        after, zeroed = self._after(softmax, mix)
        target, finish = self._result(mix)
        sizes = (*shape[-2:], views[0][1].shape[-1], views[2][1].shape[-1])
        found = Attention(
            body,
            heads,
            sizes,
            named[0],
            named[1],
            named[2],
            self._view(body.outputs[0], target, finish),
            scores,
            softmax,
            mix,
            after,
            zeroed,
        )
        if any(k not in MULTIPLIED for k in found.kinds):
            raise Untranslatable(f"its products are of {', '.join(map(str, found.kinds))}")
        return found

    # -- queries, keys, values ------------------------------------------------------------
    def _factor(self, value: str, heads: Sequence[int]) -> tuple[str, Strided, tuple[Node, ...]]:
        source, view, nodes = self._way(value)
        shape = (*heads, *view.shape[-2:])
        wide = view.broadcast(shape) if len(view.axes) <= len(shape) else None
        if wide is None:
            raise Untranslatable(f"'{value}' does not broadcast to the scores' heads")
        return source, wide, nodes

    def _way(self, value: str) -> tuple[str, Strided, tuple[Node, ...]]:
        if value in self.inputs:
            return value, Strided.whole(self.body.types[value].shape), ()
        node = self.producers[value]
        if node.op in SHUFFLES:
            source, view, nodes = self._way(node.inputs[0])
            views = follow(node, view, self.body)
            if isinstance(views, Refusal):
                raise Untranslatable(views.reason)
            return source, views[node.outputs.index(value)], nodes
        carried = [v for v in node.inputs if not self._is_number(v)]
        if not node.operator.pointwise or len(carried) != 1:
            raise Untranslatable(f"{node.op} '{value}' is neither a shuffle nor a scale")
        source, view, nodes = self._way(carried[0])
        return source, view, (*nodes, node)

    def _is_number(self, value: str) -> bool:
        node = self.producers.get(value)
        literal = node is not None and node.operator is CONSTANT
        return literal and prod(self.body.types[value].shape) == 1

    def _view(self, name: str, view: Strided, nodes: tuple[Node, ...]) -> View:
        rank = len(view.axes)
        row, column = view.step(rank - 2), view.step(rank - 1)
        if row is None or column is None:
            raise Untranslatable("a head's rows are not evenly spaced")
        runs = tuple(run for axis in view.axes[:-2] for run in axis)
        wide = zip(view.axes[:-2], view.shape[:-2], strict=True)
        full: list[tuple[int, int]] = []
        for axis, size in wide:
            full += axis or [(size, 0)]
        return View(name, view.offset, tuple(full) or runs, row, column, nodes)

    # -- between the products -------------------------------------------------------------
    def _after(self, softmax: Node, mix: Node) -> tuple[tuple[Node, ...], bool]:
        """Nodes from the softmax to the second product, none of which may tell rows' sums apart."""
        chain: list[Node] = []
        value, zeroed = mix.inputs[0], False
        while value != softmax.outputs[0]:
            node = self.producers.get(value)
            if node is None:
                raise Untranslatable("the second product reads no softmax")
            if node.op == "Where" and self._is_literal_zero(node.inputs[1]):
                test = self.producers.get(node.inputs[0])
                value = node.inputs[2]
                if test is not None and test.op == "IsNaN" and test.inputs[0] == value:
                    zeroed = True
                    continue
                chain.insert(0, node)
            elif node.op == "Cast" and self.body.types[node.outputs[0]].dtype.is_float:
                value = node.inputs[0]
                chain.insert(0, node)
            else:
                raise Untranslatable(f"{node.op} '{value}' lies between softmax and product")
        return tuple(chain), zeroed

    def _is_literal_zero(self, value: str) -> bool:
        node = self.producers.get(value)
        if node is None or node.operator is not CONSTANT:
            return False
        return set(node.attributes["value"].values) == {0.0}

    # -- result ---------------------------------------------------------------------------
    def _result(self, mix: Node) -> tuple[Strided, tuple[Node, ...]]:
        """Where the second product's elements are stored, and what becomes of them first."""
        way: list[Node] = []
        value = mix.outputs[0]
        while value != self.body.outputs[0]:
            readers = [n for n in self.body.nodes if value in n.inputs]
            if len(readers) != 1:
                raise Untranslatable(f"'{value}' is read {len(readers)} times")
            way.append(readers[0])
            value = readers[0].outputs[0]
        view = Strided.whole(self.body.output_types[0].shape)
        finish: list[Node] = []
        for node in reversed(way):
            if node.op in SHUFFLES:
                before = unfollow(node, view, self.body)
                if isinstance(before, Refusal):
                    raise Untranslatable(before.reason)
                view = before
            elif node.operator.pointwise and sum(not self._is_number(v) for v in node.inputs) == 1:
                finish.insert(0, node)
            else:
                raise Untranslatable(f"{node.op} '{node.outputs[0]}' follows the second product")
        return view, tuple(finish)
