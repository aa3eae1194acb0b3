"""A Body's values, element by element: pointwise and movement nodes followed back to memory.

``Elements.at(value, coordinates)`` writes the statements that compute one element of any value and
gives the name of the variable that holds it. Shuffles, slices, gathers and joins cost no memory:
they change the coordinates at which their operands are asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from math import prod
from typing import Any

import numpy as np

from workbench.body import CONSTANT, Body, Literal, Node, computed
from workbench.datatypes import DataType
from workbench.formats import LINEAR, Format
from workbench.tactics.nvrtc.scalars import RULES, STORAGE, loaded, number, working, wrapped
from workbench.tactics.nvrtc.small_types import narrowed
from workbench.tactics.scalar_text import Scalars, Untranslatable

LARGEST_TABLE = 1 << 16
"""Elements of an array that is written into the code."""
Index = tuple[str, ...]
Movement = Callable[["Elements", Node, str, Index], str]
"""(elements, node, one of its outputs, coordinates) -> the element's text."""


class Elements:
    """Statements in order; ``lines`` grows. layouts: of Body inputs that are not linear.

    ready: values computed elsewhere (an anchor's result, a vector that was loaded), by name: given
    coordinates, the text of the element, or None where it is not there.
    """

    def __init__(
        self, body: Body, layouts: Mapping[str, Format], rules: Mapping[str, Movement]
    ) -> None:
        self.body = body
        self.layouts = layouts
        self.rules = rules
        self.lines: list[str] = []
        self.tables: list[str] = []
        self.ready: dict[str, Callable[[Index], str | None]] = {}
        self._memo: dict[tuple[str, Index], str] = {}
        self._names: Iterator[int] = iter(range(1 << 30))
        self._producers = {o: n for n in body.nodes for o in n.outputs if o}
        self._inputs = {i.name: k for k, i in enumerate(body.inputs)}

    def at(self, name: str, index: Index) -> str:
        """One element of a value, in its working type. Raises Untranslatable."""
        given = self.ready.get(name)
        if given is not None and (text := given(index)) is not None:
            return text
        key = (name, index)
        if key not in self._memo:
            self._memo[key] = self._make(name, index)
        return self._memo[key]

    def variable(self, kind: str, text: str) -> str:
        """A new variable that holds ``text``."""
        name = self.fresh()
        self.lines.append(f"{kind} {name} = {text};")
        return name

    def fresh(self) -> str:
        """A name that nothing has yet."""
        return f"v{next(self._names)}"

    @contextmanager
    def within(self, header: str) -> Generator[None]:
        """Statements under an if or a for; what they compute is not known outside."""
        kept = dict(self._memo)
        self.lines.append(f"{header} {{")
        yield
        self.lines.append("}")
        self._memo = kept

    def branch(self, condition: str) -> AbstractContextManager[None]:
        """Statements that run where a condition holds."""
        return self.within(f"if ({condition})")

    @contextmanager
    def loops(self, sizes: Sequence[int | str]) -> Generator[Index]:
        """Statements that run for every index below these sizes; gives the loops' variables."""
        names = tuple("0" if size == 1 else self.fresh() for size in sizes)
        with ExitStack() as stack:
            for name, size in zip(names, sizes, strict=True):
                if size != 1:
                    stack.enter_context(
                        self.within(f"for (idx {name} = 0; {name} < {size}; ++{name})")
                    )
            yield names

    def helper(self, text: str) -> None:
        """A function that the kernel calls, or a table: written once, before the kernel."""
        if text not in self.tables:
            self.tables.append(text)

    def table(self, values: Sequence[Any], kind: DataType) -> str:
        """The name of an array of numbers in the kernel's code. Raises Untranslatable."""
        if len(values) > LARGEST_TABLE:
            raise Untranslatable(f"a table of {len(values)} numbers")
        text = ", ".join(number(v, kind) for v in values)
        name = f"t{hashlib.sha256(f'{kind}{text}'.encode()).hexdigest()[:12]}"
        self.helper(f"static __device__ const {working(kind)} {name}[] = {{{text}}};")
        return name

    def begin(self) -> None:
        """Start another section: nothing of the last one is in scope."""
        self.lines, self._memo = [], {}

    # -- stored elements ------------------------------------------------------------------
    def stored_offset(self, name: str, index: Index) -> str:
        """Offset of a Body input's element."""
        type_ = self.body.types[name]
        return offset(type_.shape, self.layouts.get(name, LINEAR), index)

    def raw(self, name: str, index: Index) -> str:
        """A Body input's element as it is stored; empty for what lies in no memory."""
        if name not in self._inputs or name in self.ready:
            return ""
        return f"in{self._inputs[name]}[{self.stored_offset(name, index)}]"

    def _make(self, name: str, index: Index) -> str:
        type_ = self.body.types[name]
        if type_.dtype not in STORAGE:
            raise Untranslatable(f"kernels here store no {type_.dtype.value} ('{name}')")
        kind = working(type_.dtype)
        if name in self._inputs:
            place = f"in{self._inputs[name]}[{self.stored_offset(name, index)}]"
            return self.variable(kind, loaded(type_.dtype, place))
        node = self._producers[name]
        if node.operator is CONSTANT:
            return self._literal(node.attributes["value"], index)
        if node.op in ("QuantizeLinear", "DequantizeLinear"):
            return self.variable(kind, self._affine(node, index))
        if node.operator.pointwise and node.op in RULES:
            return self.variable(kind, wrapped(type_.dtype, self._pointwise(node, index)))
        rule = self.rules.get(node.op)
        made = self._made(node, name, index) if rule is None else None
        if made is not None:
            return made
        if rule is None:
            raise Untranslatable(f"there is no NVRTC kernel for {node.op}")
        return rule(self, node, name, index)

    def _made(self, node: Node, name: str, index: Index) -> str | None:
        """An element of a value that literals alone decide; None for another."""
        given = [self._producers.get(v) for v in node.inputs if v]
        literals = [
            n.attributes["value"] for n in given if n is not None and "value" in n.attributes
        ]
        if not node.operator.deterministic or len(literals) != len(node.inputs):
            return None
        arrays = [v.array({}) for v in literals]
        values = computed(node, node.operator.reference, arrays, checked=True)
        value = np.asarray(values[node.outputs.index(name)])
        return self._literal(Literal.of(value), index)

    def _literal(self, value: Literal, index: Index) -> str:
        if value.is_symbolic:
            raise Untranslatable("a literal has sizes that are not known")
        if len(value.values) == 1:
            return number(value.values[0], value.dtype)
        return f"{self.table(value.values, value.dtype)}[{offset(value.shape, LINEAR, index)}]"

    def literal(self, name: str) -> tuple[Any, ...] | None:
        """The values of a literal operand; None for another value."""
        node = self._producers.get(name)
        if node is None or node.operator is not CONSTANT:
            return None
        return tuple(node.attributes["value"].values)

    # -- computed elements ----------------------------------------------------------------
    def broadcast(self, name: str, index: Index) -> str:
        """An operand's element at the coordinates of a result that it is broadcast to."""
        shape = self.body.types[name].shape
        own = index[len(index) - len(shape) :]
        return self.at(name, tuple("0" if d == 1 else i for d, i in zip(shape, own, strict=True)))

    def _pointwise(self, node: Node, index: Index) -> str:
        types = self.body.types
        texts = [self.broadcast(v, index) if v else "" for v in node.inputs]
        kinds = [types[v].dtype if v else None for v in node.inputs]
        return RULES[node.op](Scalars(node, texts, kinds, types[node.outputs[0]].dtype, number))

    def _affine(self, node: Node, index: Index) -> str:
        """(De)quantization: scale and zero point of the tensor, of a channel, or of a block."""
        types = self.body.types
        x = self.at(node.inputs[0], index)
        shape = types[node.inputs[1]].shape
        block = node.attributes["block_size"]
        if block:
            axis = node.attributes["axis"] % len(index)
            own: Index = tuple(f"({i}) / {block}" if a == axis else i for a, i in enumerate(index))
        else:
            own = (index[node.attributes["axis"] % len(index)],) if shape else ()
            own = ("0",) if shape == (1,) else own
        scale = self.at(node.inputs[1], own)
        point = operand(node, 2)
        zero = self.at(point, own) if point else ""
        if node.op == "DequantizeLinear":
            return f"((float)({f'{x} - {zero}' if zero else x}) * (float){scale})"
        out = types[node.outputs[0]].dtype
        ratio = f"((float){x} / (float){scale})"
        if out.is_float:
            ratio = f"{ratio} + (float){zero}" if zero else ratio
            return narrowed(out, ratio, saturate=bool(node.attributes["saturate"]))
        low, high = out.info.low, out.info.high
        whole = f"rintf({ratio}){f' + (float){zero}' if zero else ''}"
        return f"(i64)fminf(fmaxf({whole}, {float(low):.1f}f), {float(high):.1f}f)"


def operand(node: Node, k: int) -> str:
    """The name of a node's input; empty where it has none there."""
    return next(iter(node.inputs[k : k + 1]), "")


# -- coordinates --------------------------------------------------------------------------
def offset(shape: Sequence[int], layout: Format, index: Index) -> str:
    """Offset of the element at ``index`` of a stored tensor; its channels fill their groups."""
    if layout.block:
        stored = (shape[0], shape[1] // layout.block, *shape[2:], layout.block)
        channel = f"({index[1]})"
        group = f"{channel} / {layout.block}" if stored[1] != 1 else "0"
        return offset(stored, LINEAR, (index[0], group, *index[2:], f"{channel} % {layout.block}"))
    order = list(range(len(shape)))
    if layout.channels_last:
        order = [0, *range(2, len(shape)), 1]
    terms: list[str] = []
    stride = 1
    for axis in reversed(order):
        if shape[axis] != 1 and index[axis] != "0":
            terms.append(f"({index[axis]}) * {stride}" if stride != 1 else f"({index[axis]})")
        stride *= shape[axis]
    return " + ".join(reversed(terms)) or "0"


def split(e: Elements, flat: str, shape: Sequence[int]) -> Index:
    """Coordinates of a row-major position."""
    found: list[str] = []
    stride = prod(shape)
    for k, size in enumerate(shape):
        stride //= max(size, 1)
        if size == 1:
            found.append("0")
            continue
        text = f"{flat} / {stride}" if stride != 1 else flat
        if any(d != 1 for d in shape[:k]):
            text = f"({text}) % {size}"
        found.append(e.variable("const idx", text))
    return tuple(found)
