"""Parts of a fused Body: Bodies of their own that together compute it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workbench.body import CONSTANT, Body, BodyInput
from workbench.tactics.arithmetic import PRODUCTS

UNANCHORED = frozenset({"QuantizeLinear", "DequantizeLinear"})
"""Operators that are not pointwise, yet anchor nothing."""


@dataclass(frozen=True)
class Part:
    """Some nodes of a Body as a Body of their own; its values keep their names.

    nodes: their positions in the Body, literals and constant prologues included (several parts
    may hold the same ones).
    """

    nodes: tuple[int, ...]
    body: Body


def split(body: Body) -> tuple[Part, ...]:
    """One part a node, in order.

    A node that depends on constants alone goes into each part that reads it. Where both operands
    of a product are dequantized, both DequantizeLinear go with it, so that it can run in integers.
    """
    copied = _constant_nodes(body) | _product_dequantizers(body)
    read = {v for n in body.nodes for v in n.inputs}
    parts: list[Part] = []
    for k, n in enumerate(body.nodes):
        wanted = any(o in body.outputs for o in n.outputs)
        absorbed = k in copied and not wanted and any(o in read for o in n.outputs)
        if n.operator is CONSTANT and not wanted:
            continue
        if absorbed and not _read_elsewhere(body, k, copied):
            continue
        parts.append(part_of(body, _with_copied(body, k, copied)))
    return tuple(parts)


def _constant_nodes(body: Body) -> set[int]:
    known = {i.name for i in body.inputs if i.constant}
    found: set[int] = set()
    for k, n in enumerate(body.nodes):
        if n.operator.deterministic and all(v in known for v in n.inputs if v):
            known |= set(n.outputs)
            found.add(k)
    return found


def _product_dequantizers(body: Body) -> set[int]:
    producer = {o: k for k, n in enumerate(body.nodes) for o in n.outputs if o}
    found: set[int] = set()
    for n in body.nodes:
        if n.op in PRODUCTS:
            sources = [producer.get(v) for v in n.inputs[:2]]
            both = [k for k in sources if k is not None and _is_dequantizer(body, k)]
            if len(both) == 2:
                found |= set(both)
    return found


def _is_dequantizer(body: Body, node: int) -> bool:
    return body.nodes[node].op == "DequantizeLinear"


def _read_elsewhere(body: Body, node: int, copied: set[int]) -> bool:
    """Whether a dequantized operand is also read by something other than a product."""
    if node in _constant_nodes(body):
        return False
    outputs = set(body.nodes[node].outputs)
    return any(
        n.op not in PRODUCTS and outputs & set(n.inputs)
        for k, n in enumerate(body.nodes)
        if k not in copied
    )


def _with_copied(body: Body, node: int, copied: set[int]) -> tuple[int, ...]:
    """The node, and the copied nodes that it needs."""
    constants = _constant_nodes(body)
    producer = {o: k for k, n in enumerate(body.nodes) for o in n.outputs if o}
    product = body.nodes[node].op in PRODUCTS
    found = {node}
    todo = [node]
    while todo:
        for v in body.nodes[todo.pop()].inputs:
            k = producer.get(v)
            if k is None or k in found or k not in copied:
                continue
            if k in constants or product:
                found.add(k)
                todo.append(k)
    return tuple(sorted(found))


def part_of(body: Body, nodes: Sequence[int]) -> Part:
    """These nodes of a Body as a Body: what they read from outside are its inputs."""
    chosen = [body.nodes[k] for k in nodes]
    inside = {o for n in chosen for o in n.outputs if o}
    constant = {i.name for i in body.inputs if i.constant}
    reads = dict.fromkeys(v for n in chosen for v in n.inputs if v and v not in inside)
    copies = set(nodes) - {nodes[-1]}
    own = chosen[-1]
    anchored = not (own.operator.pointwise or own.op in UNANCHORED or own.operator is CONSTANT)
    read_later = {v for k, n in enumerate(body.nodes) if k not in copies for v in n.inputs}
    outputs = tuple(o for o in own.outputs if o and (o in body.outputs or o in read_later))
    inputs = tuple(BodyInput(v, body.types[v], v in constant) for v in reads)
    part = Body(inputs, tuple(chosen), outputs, len(chosen) - 1 if anchored else None)
    return Part(tuple(nodes), part)
