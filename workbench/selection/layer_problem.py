"""A layer to tune: its Body at the sizes where it is timed, checked and must work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from workbench.body import Array, Body, TensorType
from workbench.datatypes import DataType
from workbench.dimensions import volume
from workbench.errors import NetworkError
from workbench.network import Layer
from workbench.tactics.launch import reformat_body

CHECK_LIMIT_FLOPS = 4e9
CHECK_LIMIT_ELEMENTS = 4_000_000
"""A float64 reference of more work than this is evaluated at the smallest shape only, and there on
one item of the batch, where the tactic prepares for one."""

Key = tuple[str, tuple[str, ...], str, DataType]
"""What layers share tactics and timings by; see ``LayerProblem.key``."""


def constants_of(layer: Layer) -> dict[str, Array]:
    """Values of a layer's constant operands, by the names of its Body's inputs."""
    pairs = zip(layer.body.inputs, layer.operands, strict=True)
    return {i.name: t.weight.array for i, t in pairs if t.weight is not None}


def bodies_at(
    body: Body, opt: Mapping[str, int], sizes: Iterable[Mapping[str, int]]
) -> dict[str, Body]:
    """A Body bound at the opt's sizes, then at each other, by signature."""
    bound = (body.substitute(b) for b in ((opt, *sizes) if body.symbols else (opt,)))
    return {b.signature: b for b in bound}


@dataclass(frozen=True, eq=False)
class LayerProblem:
    """A layer's Body bound at the profile's opt, and at each shape where it must work.

    decided: digest of the constants that sources decide by; see ``tactics.deciding``.
    last_product: whether no later layer sums products, see ``last_products``.
    """

    name: str
    opt: Body
    shapes: tuple[Body, ...]
    constants: Mapping[str, Array]
    built: DataType
    decided: str = ""
    last_product: bool = False

    @cached_property
    def other_sizes(self) -> tuple[str, ...]:
        """Signatures at the shapes beside the opt's: a tactic must work there, too."""
        found = (b.signature for b in self.shapes if b is not self.opt)
        return tuple(sorted(set(found) - {self.opt.signature}))

    @property
    def key(self) -> Key:
        """Layers of one key share their tactics and timings."""
        return (self.opt.signature, self.other_sizes, self.decided, self.built)

    @property
    def tensors(self) -> tuple[TensorType, ...]:
        """What a kernel reads and writes at the opt, constants aside."""
        return (*(i.type for i in self.opt.dynamic_inputs), *self.opt.output_types)

    @property
    def smallest(self) -> Body:
        """The Body of the least work."""
        return min(self.shapes, key=lambda b: b.flops)

    @property
    def check_at(self) -> tuple[Body, ...]:
        """The shapes at which outputs are compared with the float64 reference."""
        small = tuple(b for b in self.shapes if b.flops <= CHECK_LIMIT_FLOPS)
        return small or (self.smallest,)

    @cached_property
    def single(self) -> Body | None:
        """The smallest shape's Body on one item of the batch, if all of them are too much work."""
        smallest = self.smallest
        types = [i.type for i in smallest.dynamic_inputs] + list(smallest.output_types)
        elements = sum(int(volume(t.shape)) for t in types)
        if smallest.flops <= CHECK_LIMIT_FLOPS and elements <= CHECK_LIMIT_ELEMENTS:
            return None
        if len({t.shape[:1] for t in types}) != 1:
            return None
        inputs = tuple(
            i if i.constant else replace(i, type=TensorType(i.type.dtype, (1, *i.type.shape[1:])))
            for i in smallest.inputs
        )
        one = replace(smallest, inputs=inputs)
        try:
            return one if all(t.shape[0] == 1 for t in one.output_types) else None
        except NetworkError:
            return None


def reformat_problem(type_: TensorType) -> LayerProblem:
    """A tensor, its sizes bound, to be rewritten from one layout to another."""
    body = reformat_body(type_)
    return LayerProblem("reformat", body, (body,), {}, type_.dtype)
