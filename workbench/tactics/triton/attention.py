"""An attention's Body taken apart: two products with a softmax between them, read by strides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from workbench.body import CONSTANT, Array, Body, Node
from workbench.datatypes import DataType
from workbench.tactics.attention_body import AttentionBody, Way, read_attention
from workbench.tactics.product import LARGEST_INDEX, positive_scales, zero_points
from workbench.tactics.scalar_text import Untranslatable

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
    """Pointwise nodes of one number that its elements go through, at last a QuantizeLinear."""


@dataclass(frozen=True, eq=False)
class Attention:
    """softmax(q·kᵀ …)·v. sizes: of a head's queries, keys, query elements, value elements.

    between, after: what the softmax reads and what the second product reads. zeroed: whether rows
    of which every key is masked become zeros. positive, zeros: see ``Product``.
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
    positive: bool
    zeros: frozenset[str]

    @property
    def kinds(self) -> tuple[DataType, DataType]:
        """The types in which both products multiply."""
        types = self.body.types
        return types[self.scores.inputs[0]].dtype, types[self.mix.inputs[1]].dtype


def attention_of(body: Body, constants: Mapping[str, Array]) -> Attention:
    """The attention that a Body is. Raises Untranslatable, naming what does not fit."""
    read = read_attention(body)
    if any(prod(t.shape) > LARGEST_INDEX for t in body.types.values()):
        raise Untranslatable("a tensor has 2**31 elements or more: offsets are 32-bit")
    after, zeroed = _after(read)
    found = Attention(
        body,
        read.heads,
        read.sizes,
        _view(read.queries),
        _view(read.keys),
        _view(read.values),
        _view(read.result),
        read.scores,
        read.softmax,
        read.mix,
        after,
        zeroed,
        positive_scales(body, constants),
        zero_points(body, constants),
    )
    if any(k not in MULTIPLIED for k in found.kinds):
        raise Untranslatable(f"its products are of {', '.join(map(str, found.kinds))}")
    return found


def _view(way: Way) -> View:
    row, column = way.steps
    full: list[tuple[int, int]] = []
    for axis, size in zip(way.view.axes[:-2], way.view.shape[:-2], strict=True):
        full += axis or [(size, 0)]
    return View(way.source, way.view.offset, tuple(full), row, column, way.nodes)


def _after(read: AttentionBody) -> tuple[tuple[Node, ...], bool]:
    """Nodes from the softmax to the second product, none of which may tell rows' sums apart."""
    body = read.body
    producers = {o: n for n in body.nodes for o in n.outputs if o}
    chain: list[Node] = []
    value, zeroed = read.mix.inputs[0], False
    while value != read.softmax.outputs[0]:
        node = producers.get(value)
        if node is None:
            raise Untranslatable("the second product reads no softmax")
        if node.op == "Where" and _is_zero(producers.get(node.inputs[1])):
            test = producers.get(node.inputs[0])
            value = node.inputs[2]
            if test is not None and test.op == "IsNaN" and test.inputs[0] == value:
                zeroed = True
                continue
            chain.insert(0, node)
        elif node.op == "Cast" and body.types[node.outputs[0]].dtype.is_float:
            value = node.inputs[0]
            chain.insert(0, node)
        else:
            raise Untranslatable(f"{node.op} '{value}' lies between softmax and product")
    return tuple(chain), zeroed


def _is_zero(node: Node | None) -> bool:
    if node is None or node.operator is not CONSTANT:
        return False
    return set(node.attributes["value"].values) == {0.0}
