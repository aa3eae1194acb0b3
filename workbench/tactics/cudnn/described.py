"""A Body as cuDNN graphs, or why it is none."""

from __future__ import annotations

from workbench.records import Refusal
from workbench.tactics.cudnn import attention, convolutions, norms, products
from workbench.tactics.cudnn.epilogue import Undescribed
from workbench.tactics.cudnn.graph import Graph
from workbench.tactics.terms import Constants
from workbench.tactics.protocol import Problem


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
        if anchor.op in convolutions.ANCHORS:
            return convolutions.describe(body, constants)
        if anchor.op in products.ANCHORS:
            return products.describe(body, constants)
        if anchor.op in norms.ANCHORS:
            return norms.describe(body, constants)
        if attention.is_attention(body):
            return attention.describe(body, constants)
    except Undescribed as e:
        return Refusal(str(e), code=e.code)
    return Refusal(f"cuDNN has no graph for {anchor.op} here", code="operator")
