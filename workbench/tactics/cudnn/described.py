"""A Body as cuDNN graphs, or why it is none."""

from __future__ import annotations

from workbench.body import Body
from workbench.datatypes import DataType
from workbench.records import Refusal
from workbench.tactics.cudnn import attention, convolutions, norms, products
from workbench.tactics.cudnn.epilogue import Undescribed
from workbench.tactics.cudnn.graph import Graph, Input
from workbench.tactics.cudnn.library import versions
from workbench.tactics.protocol import Problem
from workbench.tactics.terms import Constants


def graphs_of(problem: Problem) -> tuple[Graph, ...] | Refusal:
    """The graphs that compute the problem's Body, best guess first; needs no GPU."""
    body = problem.body
    constants = Constants(body, problem.constants)
    anchor = body.anchor_node
    if anchor is None:
        return Refusal("cuDNN graphs here are built around a product or a norm", code="operator")
    if any(0 in t.shape for t in body.types.values()):
        return Refusal("a tensor of the layer is empty", code="shape")
    try:
        found = _described(body, constants, anchor.op)
    except Undescribed as e:
        return Refusal(str(e), code=e.code)
    if isinstance(found, Refusal):
        return found
    return _unsafe(found[0]) or found


def _described(body: Body, constants: Constants, op: str) -> tuple[Graph, ...] | Refusal:
    if op in convolutions.ANCHORS:
        return convolutions.describe(body, constants)
    if op in products.ANCHORS:
        return products.describe(body, constants)
    if op in norms.ANCHORS:
        return norms.describe(body, constants)
    if attention.is_attention(body):
        return attention.describe(body, constants)
    return Refusal(f"cuDNN has no graph for {op} here", code="operator")


def _unsafe(graph: Graph) -> Refusal | None:
    """Why a graph is not given to cuDNN though it describes the Body, or None.

    Seen with cuDNN 9.19 and its frontend 1.26 on an H200: deserializing the plan of an INT8
    convolution with a residual ends the process. The same graph in FP8 works.
    """
    read = [t for t in graph.tensors if isinstance(t.place, Input)]
    if graph.io is DataType.INT8 and len(read) > 1:
        reason = (
            "loading a cuDNN plan of INT8 sums with a residual ends the process "
            f"(seen with 9.19; here is {versions()})"
        )
        return Refusal(reason, code="library")
    return None
