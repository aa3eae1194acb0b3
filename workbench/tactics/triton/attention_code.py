"""The kernel of an attention: keys block by block, softmax on the way, no scores in memory.

Source: Dao et al., FlashAttention (2022), and Milakov and Gimelshein, online softmax (2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from workbench.body import CONSTANT, Body, BodyInput, Node, TensorType
from workbench.datatypes import DataType
from workbench.tactics.scalar_text import Untranslatable
from workbench.tactics.triton.attention import Attention, View
from workbench.tactics.triton.frame import Frame, Group, flat_offset
from workbench.tactics.triton.kernel import STORED, Arguments, Kernel, Program, masked
from workbench.tactics.triton.tiles import ROUNDED, chip_of
from workbench.tactics.triton.values import Values

OFFERED = 12
LARGEST_HEAD = 256
LOG2_E = 1.4426950408889634


@dataclass(frozen=True)
class Block:
    """What one program computes: queries, keys at a time; warps and stages.

    multiply: how floats are multiplied (Triton's input_precision), empty for three TF32 products.
    """

    queries: int
    keys: int
    warps: int
    stages: int
    multiply: str = ""

    @property
    def parameters(self) -> tuple[tuple[str, Any], ...]:
        """As a Tactic's parameters."""
        return tuple((k, v) for k, v in self.__dict__.items())

    @property
    def title(self) -> str:
        multiply = f" {self.multiply}" if self.multiply else ""
        return f"{self.queries}x{self.keys} w{self.warps} s{self.stages}{multiply}"


def block_of(parameters: Sequence[tuple[str, Any]]) -> Block:
    """The block that a Tactic's parameters name."""
    known = dict(parameters)
    return Block(**{k: known[k] for k in Block.__dataclass_fields__ if k in known})


def _wide(size: int) -> int:
    """A head's elements as a power of two that the matrix units take."""
    return max(16, 1 << (size - 1).bit_length())


def blocks(attention: Attention, capability: int, *, tf32: bool = False) -> tuple[Block, ...]:
    """Blocks worth timing, best guess first. tf32: whether float32 may be rounded to it."""
    queries, keys, depth, width = attention.sizes
    if max(depth, width) > LARGEST_HEAD:
        raise Untranslatable(f"heads of {max(depth, width)} elements")
    chip = chip_of(capability)
    size = attention.kinds[0].itemsize
    deep, wide = _wide(depth), _wide(width)
    found: list[tuple[float, Block]] = []
    for bm in (128, 64, 32, 16):
        for bn in (128, 64, 32, 16):
            for warps in (8, 4, 2):
                for stages in (2, 3, 4):
                    if bm > max(16, 2 * queries - 1) or bn > max(16, 2 * keys - 1):
                        continue
                    if (bm >= 64 and warps < 4) or (bm <= 64 and warps == 8) or warps * 8 > bm:
                        continue
                    shared = (bm * deep + stages * bn * (deep + wide)) * size
                    scores = bm * bn / (32 * warps) + bm * wide / (32 * warps)
                    if shared > chip.shared or scores > 192:
                        continue
                    programs = -(-queries // bm) * prod(attention.heads)
                    resident = max(1, min(chip.shared // shared, 64 // warps, 4))
                    waves = -(-programs // (chip.processors * resident))
                    padded = -(-queries // bm) * bm * -(-keys // bn) * bn
                    work = padded / (queries * keys) * (1 + 24 / bm + 16 / bn)
                    share = programs / (waves * chip.processors * resident)
                    cost = work * (2 - share) * (1 if resident > 1 else 1.2)
                    cost *= 1 + 0.05 * abs(stages - 3)
                    found.append((cost, Block(bm, bn, warps, stages)))
    found.sort(key=lambda f: (f[0], f[1].title))
    best = tuple(b for _, b in found[:OFFERED])
    if tf32 and DataType.FLOAT in attention.kinds:
        return (*(replace(b, multiply=ROUNDED) for b in best), *best)
    return best


def attention_program(attention: Attention, block: Block) -> Program:
    """The one launch of an attention. Raises Untranslatable."""
    return Program(f"attention {block.title}", (_Writer(attention, block).kernel(),))


class _Writer:
    def __init__(self, attention: Attention, block: Block) -> None:
        self.attention, self.block = attention, block
        self.body = attention.body
        self.arguments = Arguments(self.body)
        self.count = 0
        self.darkens = any(n.op == "Where" for n in attention.after)

    def kernel(self) -> Kernel:
        a, b = self.attention, self.block
        queries, keys, depth, width = a.sizes
        deep, wide = _wide(depth), _wide(width)
        heads = prod(a.heads)
        if heads > 65535 * 32:
            raise Untranslatable(f"{heads} heads")
        down = -(-queries // b.queries)
        lines = [
            "pid = tl.program_id(0)",
            f"head = pid // {down}",
            f"rm = pid % {down} * {b.queries} + tl.arange(0, {b.queries})",
            f"rd = tl.arange(0, {deep})",
            f"rv = tl.arange(0, {wide})",
            f"am = tl.minimum(rm, {queries - 1})",
        ]
        dmask = f"(rd < {depth})" if depth != deep else ""
        vmask = f"(rv < {width})" if width != wide else ""
        lines += self._load(a.queries, "q", "am[:, None]", "rd[None, :]", [_row(dmask)])
        lines.append(f"q = q.to({STORED[a.kinds[0]]})")
        lines += [
            f'high = tl.full(({b.queries},), float("-inf"), tl.float32)',
            f"total = tl.zeros(({b.queries},), tl.float32)",
            f"acc = tl.zeros(({b.queries}, {wide}), tl.float32)",
            *([f"lit = tl.zeros(({b.queries},), tl.float32)"] if self.darkens else []),
            f"for t in range(0, {-(-keys // b.keys)}):",
        ]
        ragged = keys % b.keys != 0
        lines += [f"    {line}" for line in self._step(dmask, vmask, ragged)]
        total = "total"
        if a.zeroed:
            # A row of which every key is masked: zeros instead of 0 / 0.
            total = "tl.where(total == 0.0, 1.0, total)"
        elif self.darkens:
            # The same where a condition of the Body's own zeroes the whole row, and there alone.
            total = "tl.where((total == 0.0) & (lit == 0.0), 1.0, total)"
        lines.append(f"y = acc / ({total})[:, None]")
        lines += self._through(a.result.nodes, a.mix.outputs[0], "y")
        row = f"(rm < {queries})[:, None]" if queries % b.queries else ""
        masks = [m for m in (row, _row(vmask)) if m]
        suffix = f", mask={' & '.join(masks)}" if masks else ""
        at = self._at(a.result, "rm[:, None]", "rv[None, :]")
        kind = STORED[self.body.output_types[0].dtype]
        lines.append(
            f"tl.store({self.arguments.value(a.result.name)} + ({at}), y.to({kind}){suffix})"
        )
        return self.arguments.kernel(lines, (down * heads, 1, 1), warps=b.warps, stages=b.stages)

    def _step(self, dmask: str, vmask: str, ragged: bool) -> list[str]:
        """One block of keys."""
        a, b = self.attention, self.block
        keys = a.sizes[1]
        lines = [f"rn = t * {b.keys} + tl.arange(0, {b.keys})"]
        inside = f"(rn < {keys})" if ragged else ""
        column = f"{inside}[None, :]" if inside else ""
        down = f"{inside}[:, None]" if inside else ""
        high = f"{dmask}[:, None]" if dmask else ""
        lines += self._load(a.keys, "k", "rn[None, :]", "rd[:, None]", [high, column])
        first, second = (STORED[k] for k in a.kinds)
        lines.append(f"k = k.to({first})")
        lines.append(f"s = tl.dot(q, k{_how(a.kinds[0], b)})")
        values = self._values(a.scores.outputs[0], "s", column)
        lines += [*values.lines_of(a.softmax.inputs[0]), f"s = {values.text}"]
        if inside:
            lines.append(f's = tl.where({column}, s, float("-inf"))')
        lines += [
            "peak = tl.maximum(high, tl.max(s, 1))",
            # Where all keys so far are masked the largest score is -inf, and inf - inf no number.
            'base = tl.where(peak == float("-inf"), 0.0, peak)',
            f"p = tl.exp2((s - base[:, None]) * {LOG2_E!r})",
            f"fade = tl.exp2((high - base) * {LOG2_E!r})",
            "total = total * fade + tl.sum(p, 1)",
            "acc = acc * fade[:, None]",
            "high = peak",
        ]
        if a.after:
            values = self._values(a.softmax.outputs[0], "p", column)
            lines += [*values.lines_of(a.mix.inputs[0]), f"p = {values.text}"]
        if self.darkens:
            kept = self._values(a.softmax.outputs[0], "one", column)
            lines.append(f"one = tl.full(({b.queries}, {b.keys}), 1.0, tl.float32)")
            lines += [*kept.lines_of(a.mix.inputs[0]), f"one = {kept.text}"]
            if inside:
                lines.append(f"one = tl.where({column}, one, 0.0)")
            lines.append("lit = tl.maximum(lit, tl.max(one.to(tl.float32), 1))")
        width = f"{vmask}[None, :]" if vmask else ""
        lines += self._load(a.values, "v", "rn[:, None]", "rv[None, :]", [down, width])
        lines.append(f"v = v.to({second})")
        lines.append(f"acc = tl.dot(p.to({second}), v, acc{_how(a.kinds[1], b)})")
        return lines

    # -- pieces ---------------------------------------------------------------------------
    def _at(self, view: View, row: str, column: str) -> str:
        terms = [f"({row}) * {view.row}", f"({column}) * {view.column}"]
        runs = [r for r in view.runs if r[0] != 1]
        if any(step for _, step in runs):
            terms.append(flat_offset("head", runs))
        if view.offset:
            terms.append(str(view.offset))
        return " + ".join(terms)

    def _load(
        self, view: View, name: str, row: str, column: str, masks: Sequence[str]
    ) -> list[str]:
        """Statements that set ``name`` to a tile of a factor after its pointwise nodes."""
        given = [m for m in masks if m]
        suffix = masked(" & ".join(given), self.body.types[view.name].dtype)
        pointer = self.arguments.value(view.name)
        lines = [f"{name} = tl.load({pointer} + ({self._at(view, row, column)}){suffix})"]
        if view.nodes:
            lines.append(f"{name} = {name}.to(tl.float32)")
            lines += self._through(view.nodes, view.name, name)
        return lines

    def _through(self, nodes: Sequence[Node], source: str, name: str) -> list[str]:
        """Statements that put ``name`` through pointwise nodes of one number, or quantize it."""
        if not nodes:
            return []
        literals = [n for n in self.body.nodes if n.operator is CONSTANT]
        scales = [
            i for i in self.body.inputs if i.constant and any(i.name in n.inputs for n in nodes)
        ]
        known = {*(o for n in literals for o in n.outputs), *(i.name for i in scales)}
        chain: list[Node] = []
        value = "x"
        for k, n in enumerate(nodes):
            inputs = tuple(v if v in known else value for v in n.inputs)
            value = f"x{k}"
            chain.append(Node(n.operator, inputs, (value,), n.attributes))
        start = BodyInput("x", TensorType(self.body.types[source].dtype, ()))
        small = Body((start, *scales), (*literals, *chain), (value,))
        values = Values(
            small,
            self.arguments,
            Frame((1,), ()),
            {},
            prefix=f"{name}_",
            positive=self.attention.positive,
            zeros=self.attention.zeros,
        )
        values.define("x", name)
        text = values.at(value)
        return [*values.lines, f"{name} = {text}"]

    def _values(self, start: str, text: str, column: str) -> _Between:
        shape = self.body.types[start].shape
        rank = len(shape)
        # Rows beyond the last read the last one's mask; theirs is not stored.
        groups = (
            Group(tuple(range(rank - 2)), "head"),
            Group((rank - 2,), "am[:, None]"),
            Group((rank - 1,), "rn[None, :]", column),
        )
        self.count += 1
        values = Values(
            self.body, self.arguments, Frame(shape, groups), {}, prefix=f"b{self.count}_"
        )
        values.define(start, text)
        return _Between(values)


@dataclass
class _Between:
    """Pointwise nodes between the products."""

    values: Values
    text: str = ""

    def lines_of(self, end: str) -> list[str]:
        """The statements that compute a value; ``text`` names it."""
        self.text = self.values.at(end)
        return self.values.lines


def _row(mask: str) -> str:
    return f"{mask}[None, :]" if mask else ""


def _how(kind: DataType, block: Block) -> str:
    return f', input_precision="{block.multiply or "tf32x3"}"' if kind is DataType.FLOAT else ""
