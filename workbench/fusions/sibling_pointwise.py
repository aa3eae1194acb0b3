"""Pointwise layers that read one tensor: computed in one pass over it, each with its output."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from workbench.body import CONSTANT
from workbench.datatypes import DataType
from workbench.fusions.anchors import too_large
from workbench.fusions.pointwise_chain import MAX_OPERANDS
from workbench.network import Layer, Tensor
from workbench.records import Refusal
from workbench.rewrite import Match, Miss, RewriteRule

MAX_READERS = 8
"""A tensor with more readers is left as it is: they are no family of siblings."""


def _computes_elements(layer: Layer) -> bool:
    """Whether it is pointwise, with one output or several; Q and DQ belong to products."""
    if layer.on_host:
        return False
    if layer.operator is not None:
        return layer.operator.pointwise and layer.operator.family != "quantization"
    nodes = (n for n in layer.body.nodes if n.operator is not CONSTANT)
    return layer.op == "Pointwise" and all(n.operator.pointwise for n in nodes)


def _whole(layer: Layer, tensor: Tensor) -> bool:
    """Whether every output has the tensor's shape: one pass gives them all."""
    return all(t.shape == tensor.shape for t in layer.outputs)


@dataclass(frozen=True)
class PointwiseSiblings:
    """Finds two pointwise layers of one computed tensor's shape; the root is the later one."""

    operators: frozenset[str] | None = None
    depth: int = 1
    size: int = 2

    def find(self, layer: Layer) -> Iterator[Match]:
        """Each earlier sibling with this layer."""
        if not _computes_elements(layer):
            return
        seen: set[Layer] = set()
        for tensor in layer.operands:
            if tensor.is_constant or len(tensor.users) > MAX_READERS or not _whole(layer, tensor):
                continue
            for x in tensor.users:
                older = x.place < layer.place and x not in seen
                if older and _computes_elements(x) and _whole(x, tensor):
                    seen.add(x)
                    yield Match((x, layer), layer, named={"first": x})

    def nearest_miss(self, layer: Layer) -> Miss | None:
        """None: layers that read the same tensor either fit or are refused."""
        return None


def _refuse(match: Match) -> Refusal | None:
    made = {t for x in match.layers for t in x.outputs}
    if any(t.dtype is DataType.STRING for t in made):
        return Refusal("strings stay on the host", code="type_mismatch")
    read = {t for x in match.layers for t in x.operands} - made
    if len(read) + len(made) > MAX_OPERANDS:
        return Refusal(
            f"together they read and write {len(read) + len(made)} tensors, one kernel "
            f"{MAX_OPERANDS}",
            code="too_large",
        )
    return too_large(*match.layers)


SIBLING_POINTWISE = RewriteRule(
    "sibling_pointwise",
    PointwiseSiblings(),
    refuse=_refuse,
    shares_inner=True,
    about="Pointwise layers of one tensor read it once: one kernel writes all their results.",
)
"""Last: a layer that something else takes in has no need of a sibling."""
