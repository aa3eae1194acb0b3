"""Rewrites of a drawn graph: scales that meet constants, sums in another order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from workbench.datatypes import DataType
from workbench.tactics.cudnn.graph import Drawing, Operation
from workbench.tactics.terms import Constant, Term


@dataclass
class Folding:
    """Multiplies a value by a positive scale without an operation more: constants take it up."""

    drawing: Drawing
    factor: Term

    def __post_init__(self) -> None:
        self.makers = {o.output: o for o in self.drawing.operations}
        self.done: dict[str, str] = {}

    def possible(self, tensor: str) -> bool:
        """Whether every way from the tensor ends in a constant that can take the scale up."""
        own = self.drawing.tensors[tensor]
        if isinstance(own.place, Constant):
            return True
        made = self.makers.get(tensor)
        if made is None:
            return False
        operands = [v for _, v in made.inputs]
        match made.kind:
            case "relu":
                return not made.options and self.possible(operands[0])
            case "add" | "sub" | "max" | "min":
                return all(self.possible(v) for v in operands)
            case "mul":
                return any(self._constant(v) for v in operands)
            case _:
                return False

    def scaled(self, tensor: str) -> str:
        """The tensor times the scale."""
        if tensor not in self.done:
            self.done[tensor] = self._scaled(tensor)
        return self.done[tensor]

    def _scaled(self, tensor: str) -> str:
        own = self.drawing.tensors[tensor]
        if isinstance(own.place, Constant):
            term = own.place.term * self.factor
            place = replace(own.place, term=term, kind=DataType.FLOAT)
            return self.drawing.tensor("c", own.dims, own.strides, DataType.FLOAT, place)
        made = self.makers[tensor]
        pairs = list(made.inputs)
        if made.kind == "mul":
            k = next(k for k, (_, v) in enumerate(pairs) if self._constant(v))
            pairs[k] = (pairs[k][0], self.scaled(pairs[k][1]))
        else:
            pairs = [(n, self.scaled(v)) for n, v in pairs]
        return self.drawing.add(made.kind, pairs, own.dims, own.strides, **dict(made.options))

    def _constant(self, tensor: str) -> bool:
        return isinstance(self.drawing.tensors[tensor].place, Constant)


def residual_first(drawing: Drawing, result: str) -> str | None:
    """The result with its residual added before its bias, or None where there is no such pair.

    (x + bias) + residual and (x + residual) + bias differ by roundings of float32 sums alone.
    """
    makers = {o.output: o for o in drawing.operations}

    def rebuilt(tensor: str) -> str | None:
        o = makers.get(tensor)
        if o is None:
            return None
        other = _swapped(drawing, makers, o)
        if other is not None:
            return other
        for k, (name, v) in enumerate(o.inputs):
            changed = rebuilt(v)
            if changed is not None:
                pairs = [*o.inputs[:k], (name, changed), *o.inputs[k + 1 :]]
                t = drawing.tensors[tensor]
                return drawing.add(o.kind, pairs, t.dims, t.strides, **dict(o.options))
        return None

    return rebuilt(result)


def _swapped(drawing: Drawing, makers: Mapping[str, Operation], o: Operation) -> str | None:
    """(x + bias) + residual as (x + residual) + bias; None for anything else."""

    def constant(tensor: str) -> bool:
        return isinstance(drawing.tensors[tensor].place, Constant)

    if o.kind != "add":
        return None
    t = drawing.tensors[o.output]
    for inner, residual in (o.inputs, o.inputs[::-1]):
        first = makers.get(inner[1])
        if first is None or first.kind != "add" or constant(residual[1]):
            continue
        biases = [v for _, v in first.inputs if constant(v)]
        others = [v for _, v in first.inputs if not constant(v)]
        if len(biases) == 1:
            pairs = (("a", others[0]), ("b", residual[1]))
            total = drawing.add("add", pairs, t.dims, t.strides)
            return drawing.add("add", (("a", total), ("b", biases[0])), t.dims, t.strides)
    return None
