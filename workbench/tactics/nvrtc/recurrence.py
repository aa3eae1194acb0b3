"""Recurrent layers: a block walks along one sequence in one direction, its state in shared memory.

A warp computes a unit's gates, its lanes along the operands; nothing leaves the kernel between two
steps. LinearAttention: a thread keeps one column of the state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from workbench.body import Body, Node
from workbench.formats import LINEAR
from workbench.operators.recurrence import activations_of
from workbench.records import Refusal
from workbench.tactics.nvrtc.element_rules import elements_of
from workbench.tactics.nvrtc.elements import Elements, Index, offset, operand, split
from workbench.tactics.nvrtc.frame import KernelText, Stage, program_text
from workbench.tactics.nvrtc.row_families import HELPERS
from workbench.tactics.nvrtc.scalars import stored, working
from workbench.tactics.nvrtc.stages import stage
from workbench.tactics.scalar_text import Untranslatable

SHARED_BYTES = 48 << 10
"""What a block may hold without asking for more. Source: CUDA C++ Programming Guide, table 30."""

_ACTIVATIONS = {
    "affine": "{a} * {x} + {b}",
    "elu": "({x} < 0 ? {a} * ({k})expm1((double){x}) : {x})",
    "hardsigmoid": "min_nan(max_nan({a} * {x} + {b}, ({k})0), ({k})1)",
    "leakyrelu": "({x} < 0 ? {a} * {x} : {x})",
    "relu": "max_nan({x}, ({k})0)",
    "scaledtanh": "{a} * tanh_({b} * {x})",
    "sigmoid": "sigmoid_({x})",
    "softplus": "softplus_({x})",
    "softsign": "{x} / (1 + ({x} < 0 ? -{x} : {x}))",
    "tanh": "tanh_({x})",
    "thresholdedrelu": "({x} > {a} ? {x} : ({k})0)",
}


@dataclass(frozen=True)
class _Layer:
    """One recurrent node. gates: of its cell. width, hidden: of the input and of the state."""

    body: Body
    node: Node
    gates: int
    defaults: tuple[str, ...]
    kind: str
    steps: int
    batch: int
    width: int
    hidden: int
    directions: int

    def input(self, e: Elements, k: int, index: Index) -> str:
        """An element of an optional input; 0 where it is absent."""
        name = operand(self.node, k)
        return f"({self.kind}){e.at(name, index)}" if name else f"({self.kind})0"

    def function(self, e: Elements, which: int, text: str) -> str:
        """Activation number ``which`` of the block's direction."""
        clip, k = self.node.attributes["clip"], self.kind
        x = e.variable(k, text)
        if clip is not None:
            x = e.variable(k, f"min_nan(max_nan({x}, ({k}){-clip!r}), ({k}){clip!r})")
        count = len(self.defaults)
        rows = activations_of(self.node.attributes, self.defaults)[which::count]
        texts = [
            _ACTIVATIONS[name].format(x=x, a=f"({k}){a!r}", b=f"({k}){b!r}", k=k)
            for name, a, b in rows
        ]
        same = all(t == texts[0] for t in texts)
        return e.variable(k, texts[0] if same else f"d == 0 ? {texts[0]} : {texts[1]}")


def recurrent_kernel(body: Body, threads: int, lanes: int = 32) -> KernelText | Refusal:
    """The kernel of an RNN, a GRU or an LSTM; a block has ``threads``, a unit ``lanes``."""
    node = body.anchor_node
    assert node is not None
    try:
        return _recurrent(body, node, threads, lanes)
    except Untranslatable as problem:
        return Refusal(str(problem), code="operator")


def _recurrent(body: Body, node: Node, threads: int, lanes: int) -> KernelText:
    gates, defaults, cell = _CELLS[node.op]
    x, r = (body.types[node.inputs[k]] for k in (0, 2))
    layout = node.attributes["layout"]
    steps, batch = (x.shape[1], x.shape[0]) if layout else x.shape[:2]
    kind = working(x.dtype)
    sizes = (steps, batch, x.shape[2], r.shape[2], r.shape[0])
    layer = _Layer(body, node, gates, defaults, kind, *sizes)
    held = 4 * layer.hidden * (8 if kind == "double" else 4)
    if held > SHARED_BYTES:
        raise Untranslatable(f"a state takes {held} bytes, {SHARED_BYTES} are the most")
    if set(body.outputs) - set(node.outputs):
        raise Untranslatable(f"something follows {node.op}")
    e = elements_of(body, {})
    lines = [*_start(e, layer, threads, lanes)]
    e.begin()
    with e.within(f"for (idx t = 0; t < {steps}; ++t)"):
        backward = {"reverse": "true", "bidirectional": "d == 1"}
        when = backward.get(node.attributes["direction"], "false")
        e.lines.append("const bool alive = t < length;")
        e.lines.append(f"const idx s = alive && ({when}) ? length - 1 - t : t;")
        cell(e, layer, threads // lanes)
        e.lines.append("__syncthreads();")
        units = f"for (int u = threadIdx.x; u < {layer.hidden}; u += {threads})"
        e.lines.append(f"{units} h[u] = next[u];")
        e.lines.append("__syncthreads();")
    lines += [*e.lines, *_end(layer, threads)]
    text = [v.replace("LANES", str(lanes)) for v in lines]
    whole = Stage(text, layer.directions * batch, threads)
    return program_text(body, (whole,), e.tables, helpers=HELPERS)


def _start(e: Elements, layer: _Layer, threads: int, lanes: int) -> list[str]:
    node, kind, hidden = layer.node, layer.kind, layer.hidden
    place = ("b", "d", "u") if node.attributes["layout"] else ("d", "b", "u")
    head = [f"__shared__ {kind} {v}[{hidden}];" for v in ("h", "c", "next", "extra")]
    head += [
        f"const int lane = threadIdx.x % {lanes}, warp = threadIdx.x / {lanes};",
        f"const idx d = blockIdx.x / {layer.batch}, b = blockIdx.x % {layer.batch};",
    ]
    lengths = operand(node, 4)
    length = f"(idx){e.at(lengths, ('b',))}" if lengths else str(layer.steps)
    e.lines.append(f"const idx length = {length};")
    with e.within(f"for (int u = threadIdx.x; u < {hidden}; u += {threads})"):
        e.lines.append(f"h[u] = {layer.input(e, 5, place)};")
        if node.op == "LSTM":
            e.lines.append(f"c[u] = {layer.input(e, 6, place)};")
    return [*head, *e.lines, "__syncthreads();"]


def _end(layer: _Layer, threads: int) -> list[str]:
    """The last states."""
    body, node = layer.body, layer.node
    index = ("b", "d", "u") if node.attributes["layout"] else ("d", "b", "u")
    lines: list[str] = []
    for k, o in enumerate(body.outputs):
        which = node.outputs.index(o)
        if which:
            t = body.types[o]
            value = stored(t.dtype, ("h", "c")[which - 1] + "[u]")
            lines.append(f"for (int u = threadIdx.x; u < {layer.hidden}; u += {threads})")
            lines.append(f"  out{k}[{offset(t.shape, LINEAR, index)}] = {value};")
    return lines


def _output(layer: _Layer, value: str) -> list[str]:
    """What a step gives; zeros beyond a sequence's end."""
    node, name = layer.node, layer.node.outputs[0]
    if name not in layer.body.outputs:
        return []
    index = ("b", "s", "d", "u") if node.attributes["layout"] else ("s", "d", "b", "u")
    t, k = layer.body.types[name], layer.body.outputs.index(name)
    return [f"out{k}[{offset(t.shape, LINEAR, index)}] = {stored(t.dtype, value)};"]


def _dots(
    e: Elements, layer: _Layer, rows: Sequence[int], state: str = "h"
) -> list[tuple[str, str]]:
    """W·x and R·state of gates of unit u, every lane has them."""
    node, kind = layer.node, layer.kind
    place = ("b", "s", "k") if node.attributes["layout"] else ("s", "b", "k")
    found: list[list[str]] = []
    for source, width in (("x", layer.width), ("h", layer.hidden)):
        totals = [e.variable(kind, "0") for _ in rows]
        with e.within(f"for (int k = lane; k < {width}; k += LANES)"):
            value = e.at(node.inputs[0], place) if source == "x" else f"{state}[k]"
            for total, g in zip(totals, rows, strict=True):
                row = ("d", f"({g * layer.hidden} + u)", "k")
                weight = e.at(node.inputs[1 if source == "x" else 2], row)
                e.lines.append(f"{total} += {value} * {weight};")
        found.append([e.variable(kind, f"across<LANES, Sum>({v})") for v in totals])
    return list(zip(*found, strict=True))


def _biases(e: Elements, layer: _Layer, g: int) -> tuple[str, str]:
    rows = (f"({k * layer.hidden} + u)" for k in (g, layer.gates + g))
    one, two = (layer.input(e, 3, ("d", row)) for row in rows)
    return one, two


def _unit(layer: _Layer, warps: int) -> str:
    return f"for (int u = warp; u < {layer.hidden}; u += {warps})"


def _kept(e: Elements, layer: _Layer, value: str) -> None:
    """Store a unit's new state and output, or where the sequence has ended the old one and 0."""
    with e.branch("lane == 0"):
        e.lines.append(f"next[u] = alive ? {value} : h[u];")
        e.lines += _output(layer, f"(alive ? {value} : ({layer.kind})0)")


def _rnn(e: Elements, layer: _Layer, warps: int) -> None:
    with e.within(_unit(layer, warps)):
        ((x, h),) = _dots(e, layer, [0])
        _kept(e, layer, layer.function(e, 0, " + ".join((x, h, *_biases(e, layer, 0)))))


def _gru(e: Elements, layer: _Layer, warps: int) -> None:
    before = bool(layer.node.attributes["linear_before_reset"])
    with e.within(_unit(layer, warps)):
        pairs = _dots(e, layer, [0, 1, 2] if before else [0, 1])
        sums = [" + ".join((*p, *_biases(e, layer, g))) for g, p in enumerate(pairs[:2])]
        update, reset = (layer.function(e, 0, text) for text in sums)
        if before:
            x, h = pairs[2]
            w, r = _biases(e, layer, 2)
            hidden = layer.function(e, 1, f"{x} + {w} + {reset} * ({h} + {r})")
            _kept(e, layer, f"((1 - {update}) * {hidden} + {update} * h[u])")
        else:
            e.lines.append(f"if (lane == 0) {{ c[u] = {update}; extra[u] = {reset} * h[u]; }}")
    if before:
        return
    e.lines.append("__syncthreads();")
    with e.within(_unit(layer, warps)):
        ((x, h),) = _dots(e, layer, [2], "extra")
        hidden = layer.function(e, 1, " + ".join((x, h, *_biases(e, layer, 2))))
        _kept(e, layer, f"((1 - c[u]) * {hidden} + c[u] * h[u])")


def _lstm(e: Elements, layer: _Layer, warps: int) -> None:
    """Gates in ONNX's order: input, output, forget, cell; peepholes of the first three."""
    kind, hidden = layer.kind, layer.hidden
    with e.within(_unit(layer, warps)):
        pairs = _dots(e, layer, [0, 1, 2, 3])
        sums = [" + ".join((*p, *_biases(e, layer, g))) for g, p in enumerate(pairs)]
        holes = [layer.input(e, 7, ("d", f"({g * hidden} + u)")) for g in range(3)]
        i = layer.function(e, 0, f"{sums[0]} + {holes[0]} * c[u]")
        if layer.node.attributes["input_forget"]:
            forget = e.variable(kind, f"1 - {i}")
        else:
            forget = layer.function(e, 0, f"{sums[2]} + {holes[2]} * c[u]")
        given = layer.function(e, 1, sums[3])
        cell = e.variable(kind, f"{forget} * c[u] + {i} * {given}")
        out = layer.function(e, 0, f"{sums[1]} + {holes[1]} * {cell}")
        value = e.variable(kind, f"{out} * {layer.function(e, 2, cell)}")
        _kept(e, layer, value)
        # The lanes have read it: a warp's own unit is nobody else's.
        e.lines.append(f"__syncwarp(); if (lane == 0 && alive) c[u] = {cell};")


Cell = Callable[[Elements, _Layer, int], None]
_CELLS: dict[str, tuple[int, tuple[str, ...], Cell]] = {
    "RNN": (1, ("Tanh",), _rnn),
    "GRU": (3, ("Sigmoid", "Tanh"), _gru),
    "LSTM": (4, ("Sigmoid", "Tanh", "Tanh"), _lstm),
}
"""Gates, activations and cell."""
RECURRENT = frozenset(_CELLS)
BLOCKS = (512, 1024, 256)
"""Threads of a block, best guess first."""


# -- LinearAttention ----------------------------------------------------------------------
LARGEST_DEPTH = 512
"""Rows of a column of the state that a thread keeps."""


def linear_attention(body: Body, node: Node) -> KernelText:
    """Source: ONNX LinearAttention-27. A thread has a column of one head's state."""
    if set(body.outputs) - set(node.outputs):
        raise Untranslatable("something follows LinearAttention")
    a, query = node.attributes, body.types[node.inputs[0]]
    heads, groups = a["q_num_heads"], a["kv_num_heads"]
    batch, tokens = query.shape[:2]
    depth, width = query.shape[2] // heads, body.types[node.inputs[2]].shape[2] // groups
    if depth > LARGEST_DEPTH:
        raise Untranslatable(f"heads of {depth} numbers, {LARGEST_DEPTH} are the most")
    kind = working(query.dtype)
    e = elements_of(body, {})
    b, g, w = split(e, "i", (batch, groups, width))
    past, decay, beta = (operand(node, k) for k in (3, 4, 5))
    e.lines.append(f"{kind} s[{depth}];")
    with e.within(f"for (int r = 0; r < {depth}; ++r)"):
        e.lines.append(f"s[r] = {e.at(past, (b, g, 'r', w)) if past else '0'};")
    lines = [*e.lines, f"for (idx t = 0; t < {tokens}; ++t) {{"]
    e.begin()
    if decay:
        each = body.types[decay].shape[2] // groups
        with e.loops([depth]) as (r,):
            own = f"({g}) * {each} + {r if each > 1 else 0}"
            e.lines.append(f"s[{r}] *= exp_(({kind}){e.at(decay, (b, 't', own))});")
    value = e.variable(kind, e.at(node.inputs[2], (b, "t", f"({g}) * {width} + ({w})")))
    if beta:
        seen = e.variable(kind, "0")
        with e.loops([depth]) as (r,):
            e.lines.append(f"{seen} += {_key(e, node, b, g, r, depth)} * s[{r}];")
        head = g if body.types[beta].shape[2] > 1 else "0"
        e.lines.append(f"{value} = {e.at(beta, (b, 't', head))} * ({value} - {seen});")
    with e.loops([depth]) as (r,):
        e.lines.append(f"s[{r}] += {_key(e, node, b, g, r, depth)} * {value};")
    each = heads // groups
    if node.outputs[0] in body.outputs:
        k = body.outputs.index(node.outputs[0])
        scale = a["scale"] or 1 / math.sqrt(depth)
        with e.loops([each]) as (q,):
            total, head = e.variable(kind, "0"), f"(({g}) * {each} + {q})"
            with e.loops([depth]) as (r,):
                own = e.at(node.inputs[0], (b, "t", f"{head} * {depth} + {r}"))
                e.lines.append(f"{total} += {own} * s[{r}];")
            t = body.output_types[k]
            spot = offset(t.shape, LINEAR, (b, "t", f"{head} * {width} + ({w})"))
            e.lines.append(f"out{k}[{spot}] = {stored(t.dtype, f'{total} * ({kind}){scale!r}')};")
    lines += [*e.lines, "}"]
    last = node.outputs[1] if len(node.outputs) > 1 else ""
    if last in body.outputs:
        k, t = body.outputs.index(last), body.types[last]
        spot = offset(t.shape, LINEAR, (b, g, "r", w))
        value = stored(t.dtype, f"({working(t.dtype)})s[r]")
        lines.append(f"for (int r = 0; r < {depth}; ++r) out{k}[{spot}] = {value};")
    return program_text(body, (stage(batch * groups * width, lines, 32),), e.tables)


def _key(e: Elements, node: Node, b: str, g: str, r: str, depth: int) -> str:
    return e.at(node.inputs[1], (b, "t", f"({g}) * {depth} + {r}"))
