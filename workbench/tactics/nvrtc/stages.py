"""Parts of kernels in which a thread makes more than an element, or which follow one another."""

from __future__ import annotations

from workbench.body import Body, Node
from workbench.formats import LINEAR
from workbench.tactics.nvrtc.elements import Elements, Index, offset
from workbench.tactics.nvrtc.frame import Stage
from workbench.tactics.nvrtc.scalars import stored
from workbench.tactics.scalar_text import Untranslatable

THREADS = 128


def stage(count: int, lines: list[str], threads: int = THREADS) -> Stage:
    """A kernel with a thread for each i below ``count``."""
    head = [
        f"const idx i = (idx)blockIdx.x * {threads} + threadIdx.x;",
        f"if (i >= {count}) return;",
    ]
    return Stage([*head, *lines], -(-count // threads), threads)


def written(e: Elements, body: Body, node: Node, value: str, full: Index) -> list[str]:
    """What stores the anchor's element, after what follows it."""
    if any(t.shape != body.types[node.outputs[0]].shape for t in body.output_types):
        raise Untranslatable("an output has another shape than the anchor's")
    e.ready[node.outputs[0]] = lambda asked: value if asked == full else None
    before, e.lines = e.lines, []
    for k, o in enumerate(body.outputs):
        text = stored(body.output_types[k].dtype, e.at(o, full))
        e.lines.append(f"out{k}[{offset(body.output_types[k].shape, LINEAR, full)}] = {text};")
    lines, e.lines = e.lines, before
    e.ready.clear()
    return lines
