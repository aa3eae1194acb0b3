"""LayerNormalization and RMSNormalization as cuDNN graphs: rows along the last axis."""

from __future__ import annotations

from math import prod

from workbench.body import Body
from workbench.datatypes import DataType
from workbench.formats import LINEAR
from workbench.tactics.cudnn.epilogue import FLOATS, Undescribed
from workbench.tactics.cudnn.graph import Drawing, Graph, Input, Number
from workbench.tactics.terms import Constant, Constants, Term

ANCHORS = ("LayerNormalization", "RMSNormalization")


def describe(body: Body, constants: Constants) -> tuple[Graph, ...]:
    """The graph that computes the Body. Raises Undescribed."""
    anchor = body.anchor_node
    assert anchor is not None
    others = [n.op for n in body.nodes if n is not anchor and n.op not in ("Constant", "Cast")]
    if others or len(body.outputs) != 1:
        reason = f"cuDNN normalizes alone, not with {' + '.join(others) or 'a second output'}"
        raise Undescribed(reason)
    source = body.dynamic_inputs
    if len(source) != 1 or anchor.inputs[0] != source[0].name or any(anchor.outputs[1:]):
        raise Undescribed("it reads more than one tensor", "prologue")
    t = source[0].type
    rank = len(t.shape)
    if anchor.attributes["axis"] % rank != rank - 1 or t.dtype not in FLOATS:
        raise Undescribed("it runs over more than the last axis", "axis")
    rows, width = prod(t.shape[:-1]), t.shape[-1]
    drawing = Drawing()
    dims, strides = (rows, width, 1, 1), (width, 1, width, width)
    x = drawing.tensor("x", dims, strides, t.dtype, Input(0))
    pairs = [("input", x)]
    weights = list(zip(("scale", "bias"), anchor.inputs[1:], strict=False))
    if anchor.op == "LayerNormalization" and len([v for _, v in weights if v]) != 2:
        raise Undescribed("cuDNN's layer norm has a scale and a bias", "bias")
    for label, value in weights:
        if not constants.knows(value) or prod(body.types[value].shape) != width:
            raise Undescribed(f"its {label} is no constant of one number a column", label)
        stored = Constant(Term.of(value), DataType.FLOAT, (width,))
        one = (1, width, 1, 1)
        pairs.append((label, drawing.tensor("w", one, strides, DataType.FLOAT, stored)))
    number = Number(float(anchor.attributes["epsilon"]))
    epsilon = drawing.tensor("e", (1, 1, 1, 1), (1, 1, 1, 1), DataType.FLOAT, number)
    pairs.append(("epsilon", epsilon))
    kind = "layernorm" if anchor.op == "LayerNormalization" else "rmsnorm"
    y = drawing.add(kind, pairs, dims, strides)
    stored = body.output_types[0].dtype
    if stored not in FLOATS:
        raise Undescribed(f"its output is {stored.value}", "type")
    graph = drawing.graph(
        y, stored, variant="as written", io=t.dtype, inputs=(LINEAR,), outputs=(LINEAR,)
    )
    return (graph,)
