"""Transpose: a reorder from a permuted view."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from workbench.formats import LINEAR
from workbench.records import Refusal
from workbench.tactics.onednn.constants import Argument
from workbench.tactics.onednn.library import Library
from workbench.tactics.onednn.parts import Layer
from workbench.tactics.onednn.primitives import reorder
from workbench.tactics.onednn.recipe import Describer, Recipe, Variant, linear_formats

ANCHORS = ("Transpose",)


def variants(layer: Layer) -> Iterator[Variant]:
    """Row-major in and out."""
    yield Variant("transpose", linear_formats(layer), LINEAR)


def describe(library: Library, layer: Layer, variant: Variant) -> Recipe | Refusal:
    """The reorder."""
    x = layer.operand(0)
    if x is None or x.index is None or x.permutation is not None:
        return layer.refusal("its input is a constant or transposed")
    if layer.post:
        return layer.refusal("oneDNN runs nothing after a reorder")
    axes = layer.anchor.attributes["perm"] or tuple(reversed(range(len(x.shape))))
    scaled = x.affine is not None or layer.affine is not None
    alike = not scaled and x.type.dtype is layer.output.dtype
    d = Describer(library, layer, replace(variant, moves=alike))
    source = d.input(Argument.SRC, replace(x, permutation=tuple(axes)))
    destination = d.output()
    refusal = d.quantized_source(Argument.SRC, x)
    if refusal is not None:
        return refusal
    d.quantized_output()
    return d.recipe(reorder(source, destination, attributes=d.attributes), destination)
