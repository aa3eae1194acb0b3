"""DFT by two sums: of n = a·b numbers, a + b products for each instead of n.

X[k1 + a·k2] = Σq W_b^(q·k2) · W_n^(q·k1) · Σp W_a^(p·k1) · x[b·p + q], with W_n = exp(-2πi/n).
Source: Cooley and Tukey, An algorithm for the machine calculation of complex Fourier series, 1965
"""

from __future__ import annotations

import math
from math import prod

from workbench.body import Body, Node
from workbench.records import Refusal
from workbench.tactics.nvrtc.element_rules import elements_of
from workbench.tactics.nvrtc.elements import Elements, split
from workbench.tactics.nvrtc.frame import KernelText, program_text
from workbench.tactics.nvrtc.movements import known
from workbench.tactics.nvrtc.scalars import working
from workbench.tactics.nvrtc.stages import stage, written
from workbench.tactics.nvrtc.sums import dft_lengths, twiddle
from workbench.tactics.scalar_text import Untranslatable

LEAST = 32
"""Numbers below which the sum itself is as good."""
PAIR_BYTES = 16


def factors(length: int) -> tuple[int, int] | None:
    """The two factors of a length that are nearest to each other; None where it has none."""
    near = next((a for a in range(math.isqrt(length), 1, -1) if length % a == 0), 1)
    return (near, length // near) if near > 1 else None


def split_dft(body: Body) -> KernelText | Refusal:
    """The two kernels of a Body anchored at DFT, or why there are none."""
    node = body.anchor_node
    assert node is not None
    try:
        return _split(body, node)
    except Untranslatable as problem:
        return Refusal(str(problem), code="operator")


def _split(body: Body, node: Node) -> KernelText:
    x, y = body.types[node.inputs[0]].shape, body.types[node.outputs[0]].shape
    axis = int(known(elements_of(body, {}), node, 2, (-2,))[0]) % len(x)
    length, count = dft_lengths(elements_of(body, {}), node, axis)
    found = factors(length)
    if node.attributes["inverse"] and node.attributes["onesided"]:
        raise Untranslatable("half a spectrum stands for the other half, too")
    if found is None or length < LEAST:
        raise Untranslatable(f"a signal of {length} is summed as it is")
    a, b = found
    rest = [d for k, d in enumerate(x[:-1]) if k != axis]
    tables: list[str] = []
    stages = (
        stage(prod(rest) * length, _first(body, node, axis, count, (a, b), rest, tables)),
        stage(prod(rest) * y[axis], _second(body, node, axis, (a, b), rest, tables)),
    )
    space = prod(rest) * length * PAIR_BYTES
    return program_text(body, stages, tables, workspace=space)


def _turned(
    e: Elements, node: Node, length: int, turn: str, real: str, imaginary: str
) -> tuple[str, str]:
    """A number times W^turn, or its inverse: real and imaginary part."""
    cosine, sine = twiddle(e, length, e.variable("const int", f"(int)({turn})"))
    sign = "-" if node.attributes["inverse"] else ""
    c, s = e.variable("const double", cosine), e.variable("const double", f"{sign}{sine}")
    return f"{real} * {c} + {imaginary} * {s}", f"{imaginary} * {c} - {real} * {s}"


def _first(
    body: Body,
    node: Node,
    axis: int,
    count: int,
    ab: tuple[int, int],
    rest: list[int],
    tables: list[str],
) -> list[str]:
    """The sum over p, for each q and k1, turned; pairs of doubles in the workspace."""
    (a, b), x = ab, body.types[node.inputs[0]].shape
    e = elements_of(body, {})
    e.tables = tables
    *outer, q, k1 = split(e, "i", [*rest, b, a])
    real, imaginary = e.variable("double", "0"), e.variable("double", "0")
    with e.loops([a]) as (p,):
        j = e.variable("const idx", f"{p} * {b} + {q}")
        with e.branch(f"{j} < {count}"):
            at = [*outer[:axis], j, *outer[axis:]]
            own = f"(double){e.at(node.inputs[0], (*at, '0'))}"
            other = f"(double){e.at(node.inputs[0], (*at, '1'))}" if x[-1] == 2 else "0.0"
            r, m = _turned(e, node, a, f"((i64){p} * {k1}) % {a}", own, other)
            e.lines += [f"{real} += {r};", f"{imaginary} += {m};"]
    r, m = _turned(e, node, a * b, f"{q} * {k1}", real, imaginary)
    space = "((double*)workspace)"
    return [*e.lines, f"{space}[2 * (i64)i] = {r};", f"{space}[2 * (i64)i + 1] = {m};"]


def _second(
    body: Body, node: Node, axis: int, ab: tuple[int, int], rest: list[int], tables: list[str]
) -> list[str]:
    """The sum over q of each number of the spectrum, and what follows."""
    (a, b), y = ab, body.types[node.outputs[0]]
    e = elements_of(body, {})
    e.tables = tables
    bins = y.shape[axis]
    *outer, k = split(e, "i", [*rest, bins])
    line = e.variable("const idx", f"i / {bins}")
    k1, k2 = e.variable("const idx", f"{k} % {a}"), e.variable("const idx", f"{k} / {a}")
    real, imaginary = e.variable("double", "0"), e.variable("double", "0")
    with e.loops([b]) as (q,):
        at = e.variable("const i64", f"2 * (((i64){line} * {b} + {q}) * {a} + {k1})")
        space = "((const double*)workspace)"
        r, m = _turned(e, node, b, f"(i64){q} * {k2} % {b}", f"{space}[{at}]", f"{space}[{at} + 1]")
        e.lines += [f"{real} += {r};", f"{imaginary} += {m};"]
    kind, share = working(y.dtype), f" / {a * b}" if node.attributes["inverse"] else ""
    lines = list(e.lines)
    for part, value in (("0", real), ("1", imaginary)):
        e.begin()
        full = (*outer[:axis], k, *outer[axis:], part)
        text = f"({kind})({value}{share})"
        lines += written(e, body, node, text, full)
    return lines
