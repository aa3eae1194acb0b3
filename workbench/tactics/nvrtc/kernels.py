"""The kernels as text: a Body with every size bound gives CUDA C++ specialised to it.

Convolutions compute one pixel and KT output channels a thread, in float, in a fixed order: every
kernel here is deterministic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from workbench.body import Body, Node
from workbench.formats import HWC, LINEAR, Format
from workbench.records import Refusal
from workbench.tactics.nvrtc.expressions import (
    check_types,
    coordinates_from,
    emit,
    index_of,
)
from workbench.tactics.nvrtc.frame import (
    KernelText,
    argument,
    elementwise,
    load_of,
    loader,
    store_of,
)


@dataclass(frozen=True)
class Variant:
    """One way to write a kernel: a name, its tile, and the layouts it reads and writes."""

    name: str
    tile: int
    layout: Format


def variants(body: Body) -> tuple[Variant, ...] | Refusal:
    """What these kernels offer for a Body, or why nothing."""
    if (problem := check_types(body)) is not None:
        return problem
    if len(body.outputs) != 1:
        return Refusal("NVRTC kernels write one output", code="outputs")
    anchor = body.anchor_node
    if (
        body.prologue
        and anchor is not None
        and any(body.nodes[i].op != "Constant" for i in body.prologue)
    ):
        return Refusal("NVRTC kernels take no prologue", code="prologue")
    rank = len(body.output_types[0].shape)
    both = (LINEAR, HWC) if rank == 4 else (LINEAR,)
    if anchor is None:
        if len(body.nodes) == 1 and body.nodes[0].op in COPIES:
            return (Variant("copy", 1, LINEAR),)
        if len(body.nodes) == 1 and body.nodes[0].op == "Transpose":
            return (Variant("transpose", 1, LINEAR),)
        return tuple(Variant("pointwise", 1, f) for f in both)
    match anchor.op:
        case "Conv" if rank == 4:
            tiles = [
                t
                for t in (1, 2, 4, 8)
                if (body.output_types[0].shape[1] // _groups(anchor)) % t == 0
            ]
            return tuple(Variant(f"convolution k{t}", t, f) for f in (HWC, LINEAR) for t in tiles)
        case "Gemm" | "MatMul":
            return tuple(Variant(f"gemm t{t}", t, LINEAR) for t in (8, 16))
        case "MaxPool" | "AveragePool" if rank == 4:
            return tuple(Variant("pooling", 1, f) for f in both)
        case op if op in REDUCTIONS:
            return (Variant("reduction", 1, LINEAR),)
        case op if op in COPIES:
            return (Variant("copy", 1, LINEAR),)
        case "Transpose":
            return (Variant("transpose", 1, LINEAR),)
        case op:
            return Refusal(f"there is no NVRTC kernel for {op}", code="operator")


COPIES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
REDUCTIONS = ("ReduceMean", "ReduceSum", "ReduceMax", "GlobalAveragePool")


def kernel(body: Body, variant: Variant) -> KernelText | Refusal:
    """The kernel of a variant."""
    anchor = body.anchor_node
    match variant.name.split()[0]:
        case "copy":
            return _copy(body)
        case "transpose":
            return _transpose(body)
        case "pointwise":
            return _pointwise(body, variant)
        case "convolution":
            assert anchor is not None
            return _convolution(body, anchor, variant)
        case "gemm":
            assert anchor is not None
            return _gemm(body, anchor, variant)
        case "pooling":
            assert anchor is not None
            return _pooling(body, anchor, variant)
        case _:
            assert anchor is not None
            return _reduction(body, anchor)


def reformat_kernel(body: Body, source: Format, target: Format) -> KernelText:
    """Copy a tensor from one layout to another."""
    t = body.inputs[0].type
    names = [f"c{i}" for i in range(len(t.shape))]
    lines = coordinates_from("i", t.shape, names)
    value = f"{argument(body, 'input')}[{index_of(t, source, names)}]"
    lines.append(f"{argument(body, 'output')}[{index_of(t, target, names)}] = {value};")
    return elementwise(body, prod(t.shape), lines)


# -- bodies -------------------------------------------------------------------------------
def _pointwise(body: Body, variant: Variant) -> KernelText | Refusal:
    out = body.output_types[0]
    names = [f"c{i}" for i in range(len(out.shape))]
    statements = emit(body, body.nodes, {}, loader(body, variant.layout, names))
    if isinstance(statements, Refusal):
        return statements
    lines = [*coordinates_from("i", out.shape, names), *statements]
    value = statements[-1].split(" = ")[0].removeprefix("float ")
    lines.append(store_of(body, variant.layout, names, value))
    return elementwise(body, prod(out.shape), lines)


def _copy(body: Body) -> KernelText:
    source = next(i.name for i in body.inputs)
    line = f"{argument(body, body.outputs[0])}[i] = {argument(body, source)}[i];"
    return elementwise(body, prod(body.output_types[0].shape), [line])


def _transpose(body: Body) -> KernelText:
    node = body.nodes[-1]
    t, out = body.inputs[0].type, body.output_types[0]
    perm = node.attributes["perm"] or tuple(reversed(range(len(t.shape))))
    names = [f"c{i}" for i in range(len(out.shape))]
    own = [names[perm.index(axis)] for axis in range(len(t.shape))]
    lines = coordinates_from("i", out.shape, names)
    source = f"{argument(body, body.inputs[0].name)}[{index_of(t, LINEAR, own)}]"
    lines.append(f"{argument(body, body.outputs[0])}[i] = {source};")
    return elementwise(body, prod(out.shape), lines)


def _convolution(body: Body, anchor: Node, variant: Variant) -> KernelText | Refusal:
    x, w = body.types[anchor.inputs[0]], body.types[anchor.inputs[1]]
    out = body.types[anchor.outputs[0]]
    n, k, p, q = out.shape
    group, tile = _groups(anchor), variant.tile
    channels, rows, columns = w.shape[1:]
    pads = _pads(anchor, x.shape[2:], (rows, columns), out.shape[2:])
    stride, dilation = _pair(anchor, "strides"), _pair(anchor, "dilations")
    load_x = load_of(
        body, anchor.inputs[0], index_of(x, variant.layout, ["n", "g * CG + c", "y", "x"])
    )
    load_w = load_of(body, anchor.inputs[1], index_of(w, LINEAR, ["k0 + t", "c", "r", "s"]))
    lines = [
        *coordinates_from("i", (n, k // tile, p, q), ["n", "kt", "p", "q"]),
        f"const int k0 = kt * {tile}, g = k0 / {k // group}; const int CG = {channels};",
        f"float acc[{tile}];",
        f"#pragma unroll\n    for (int t = 0; t < {tile}; ++t) acc[t] = 0.0f;",
        f"for (int r = 0; r < {rows}; ++r) {{",
        f"  const int y = p * {stride[0]} - {pads[0]} + r * {dilation[0]};",
        f"  if (y < 0 || y >= {x.shape[2]}) continue;",
        f"  for (int s = 0; s < {columns}; ++s) {{",
        f"    const int x = q * {stride[1]} - {pads[1]} + s * {dilation[1]};",
        f"    if (x < 0 || x >= {x.shape[3]}) continue;",
        f"    for (int c = 0; c < {channels}; ++c) {{",
        f"      const float a = {load_x};",
        "      #pragma unroll",
        f"      for (int t = 0; t < {tile}; ++t) acc[t] = fmaf(a, {load_w}, acc[t]);",
        "    } } }",
    ]
    bias = anchor.inputs[2] if len(anchor.inputs) > 2 and anchor.inputs[2] else ""
    return _with_epilogue(
        body,
        anchor,
        variant,
        lines,
        ["n", "k", "p", "q"],
        bias,
        "k0 + t",
        tile,
        n * (k // tile) * p * q,
    )


def _with_epilogue(
    body: Body,
    anchor: Node,
    variant: Variant,
    lines: list[str],
    names: Sequence[str],
    bias: str,
    channel: str,
    tile: int,
    count: int,
) -> KernelText | Refusal:
    """The sums in ``acc``, then bias, epilogue and store, per output channel of the tile."""
    kind = body.types[anchor.outputs[0]].dtype
    value = "acc[t]"
    if bias:
        value = f"acc[t] + {load_of(body, bias, channel)}"
    known = {anchor.outputs[0]: "sum"}
    rest = [n for i, n in enumerate(body.nodes) if n is not anchor and i not in body.prologue]
    literals = [n for i, n in enumerate(body.nodes) if i in body.prologue]
    statements = emit(body, [*literals, *rest], known, loader(body, variant.layout, names))
    if isinstance(statements, Refusal):
        return statements
    result = known[body.outputs[0]]
    index = names[1] if len(names) == 4 else names[-1]
    lines += [
        "#pragma unroll",
        f"for (int t = 0; t < {tile}; ++t) {{",
        f"  const int {index} = {channel};",
        f"  float sum = round_{kind.name}({value});",
        *(f"  {s}" for s in statements),
        f"  {store_of(body, variant.layout, names, result)}",
        "}",
    ]
    return elementwise(body, count, lines)


def _gemm(body: Body, anchor: Node, variant: Variant) -> KernelText | Refusal:
    a, b = body.types[anchor.inputs[0]], body.types[anchor.inputs[1]]
    out = body.types[anchor.outputs[0]]
    if len(b.shape) != 2 or len(a.shape) != len(out.shape):
        return Refusal("the NVRTC product needs a second operand of rank 2", code="rank")
    trans_a = anchor.op == "Gemm" and anchor.attributes["transA"]
    trans_b = anchor.op == "Gemm" and anchor.attributes["transB"]
    alpha = anchor.attributes["alpha"] if anchor.op == "Gemm" else 1.0
    beta = anchor.attributes["beta"] if anchor.op == "Gemm" else 1.0
    if trans_a or beta != 1.0 or alpha != 1.0:
        return Refusal("the NVRTC product takes no transA, alpha or beta", code="attribute")
    rows, columns, depth = prod(out.shape[:-1]), out.shape[-1], a.shape[-1]
    tile = variant.tile
    tiles = -(-columns // tile)
    load_a = load_of(body, anchor.inputs[0], f"(i64)m * {depth} + kk")
    at = f"(i64)n * {depth} + kk" if trans_b else f"(i64)kk * {columns} + n"
    load_b = load_of(body, anchor.inputs[1], at)
    outer = [f"o{i}" for i in range(len(out.shape) - 1)]
    lines = [
        f"const int nt = (int)(i % {tiles}); const int m = (int)(i / {tiles});",
        *coordinates_from("m", out.shape[:-1], outer),
        f"float acc[{tile}];",
        f"#pragma unroll\n    for (int t = 0; t < {tile}; ++t) acc[t] = 0.0f;",
        f"for (int kk = 0; kk < {depth}; ++kk) {{",
        f"  const float a = {load_a};",
        "  #pragma unroll",
        f"  for (int t = 0; t < {tile}; ++t) {{ const int n = nt * {tile} + t;",
        f"    if (n < {columns}) acc[t] = fmaf(a, {load_b}, acc[t]); }}",
        "}",
    ]
    names = [*outer, "n"]
    bias = anchor.inputs[2] if len(anchor.inputs) > 2 and anchor.inputs[2] else ""
    text = _with_epilogue(
        body,
        anchor,
        variant,
        lines,
        names,
        bias,
        f"nt * {tile} + t",
        tile,
        rows * tiles,
    )
    if isinstance(text, Refusal):
        return text
    guard = f"  const int n = nt * {tile} + t;\n"
    code = text.code.replace(guard, guard + f"    if (n >= {columns}) continue;\n")
    return KernelText(code, text.grid, text.block)


def _pooling(body: Body, anchor: Node, variant: Variant) -> KernelText | Refusal:
    x, out = body.types[anchor.inputs[0]], body.types[anchor.outputs[0]]
    rows, columns = anchor.attributes["kernel_shape"]
    pads = _pads(anchor, x.shape[2:], (rows, columns), out.shape[2:])
    stride, dilation = _pair(anchor, "strides"), _pair(anchor, "dilations")
    largest = anchor.op == "MaxPool"
    load = load_of(body, anchor.inputs[0], index_of(x, variant.layout, ["n", "k", "y", "x"]))
    step = "acc = fmaxf(acc, v);" if largest else "acc += v; ++seen;"
    lines = [
        *coordinates_from("i", out.shape, ["n", "k", "p", "q"]),
        f"float acc = {'-__int_as_float(0x7f800000)' if largest else '0.0f'}; int seen = 0;",
        f"for (int r = 0; r < {rows}; ++r) for (int s = 0; s < {columns}; ++s) {{",
        f"  const int y = p * {stride[0]} - {pads[0]} + r * {dilation[0]};",
        f"  const int x = q * {stride[1]} - {pads[1]} + s * {dilation[1]};",
        f"  if (y < 0 || y >= {x.shape[2]} || x < 0 || x >= {x.shape[3]}) continue;",
        f"  const float v = {load}; {step}",
        "}",
    ]
    if not largest:
        if anchor.attributes["count_include_pad"] or anchor.attributes["ceil_mode"]:
            return Refusal(
                "count_include_pad and ceil_mode are not among its kernels", code="attribute"
            )
        lines.append("acc /= (float)seen;")
    names = ["n", "k", "p", "q"]
    return _finish(body, anchor, variant.layout, lines, names, prod(out.shape))


def _reduction(body: Body, anchor: Node) -> KernelText | Refusal:
    x, out = body.types[anchor.inputs[0]], body.types[anchor.outputs[0]]
    rank = len(x.shape)
    if anchor.op == "GlobalAveragePool":
        axes: tuple[int, ...] = tuple(range(2, rank))
    else:
        literal = next(
            (n.attributes["value"] for n in body.nodes if anchor.inputs[1:] == (*n.outputs,)), None
        )
        if literal is None:
            return Refusal("its axes are not known", code="operand")
        axes = tuple(int(v) % rank for v in literal.values)
    kept = [a for a in range(rank) if a not in axes]
    inner = [f"r{a}" for a in axes]
    names = {a: f"o{a}" for a in kept} | {a: f"r{a}" for a in axes}
    count = prod(x.shape[a] for a in axes)
    load = load_of(body, anchor.inputs[0], index_of(x, LINEAR, [names[a] for a in range(rank)]))
    start, step = ("-__int_as_float(0x7f800000)", "fmaxf(acc, v)")
    if anchor.op != "ReduceMax":
        start, step = "0.0f", "acc + v"
    lines = coordinates_from(
        "i", [x.shape[a] for a in kept] or [1], [names[a] for a in kept] or ["z"]
    )
    lines.append(f"float acc = {start};")
    for a, name in zip(axes, inner, strict=True):
        lines.append(f"for (int {name} = 0; {name} < {x.shape[a]}; ++{name})")
    lines.append(f"{{ const float v = {load}; acc = {step}; }}")
    if anchor.op in ("ReduceMean", "GlobalAveragePool"):
        lines.append(f"acc /= {float(count):.1f}f;")
    if [n for n in body.nodes if n is not anchor and n.op != "Constant"]:
        return Refusal("the NVRTC reduction takes no epilogue", code="epilogue")
    kind = out.dtype
    lines.append(f"store_{kind.name}({argument(body, body.outputs[0])}, i, acc);")
    return elementwise(body, prod(out.shape), lines)


# -- pieces -------------------------------------------------------------------------------
def _finish(
    body: Body,
    anchor: Node,
    layout: Format,
    lines: list[str],
    names: Sequence[str],
    count: int,
) -> KernelText | Refusal:
    known = {anchor.outputs[0]: "acc"}
    rest = [n for n in body.nodes if n is not anchor]
    statements = emit(body, rest, known, loader(body, layout, names))
    if isinstance(statements, Refusal):
        return statements
    lines += [*statements, store_of(body, layout, names, known[body.outputs[0]])]
    return elementwise(body, count, lines)


def _groups(node: Node) -> int:
    return int(node.attributes["group"])


def _pair(node: Node, name: str) -> tuple[int, int]:
    given = node.attributes.get(name)
    return (int(given[0]), int(given[1])) if given else (1, 1)


def _pads(
    node: Node, size: Sequence[int], window: Sequence[int], out: Sequence[int]
) -> tuple[int, int]:
    """Leading pads of both axes."""
    mode = node.attributes["auto_pad"]
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        stride, dilation = _pair(node, "strides"), _pair(node, "dilations")
        found: list[int] = []
        for a in range(2):
            need = (out[a] - 1) * stride[a] + (window[a] - 1) * dilation[a] + 1 - size[a]
            total = max(need, 0)
            found.append(total // 2 if mode == "SAME_UPPER" else total - total // 2)
        return found[0], found[1]
    given = node.attributes.get("pads")
    return (int(given[0]), int(given[1])) if given else (0, 0)
