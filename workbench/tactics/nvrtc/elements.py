"""A Body's values, element by element: pointwise and movement nodes followed back to memory.

``Elements.at(value, coordinates)`` writes the statements that compute one element of any value and
gives the name of the variable that holds it. Shuffles, slices, gathers and joins cost no memory:
they change the coordinates at which their operands are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

from workbench.body import CONSTANT, Body, Literal, Node
from workbench.formats import LINEAR, Format
from workbench.tactics.nvrtc.scalars import RULES, STORAGE, loaded, number, working, wrapped
from workbench.tactics.scalar_text import Scalars, Untranslatable

LARGEST_TABLE = 1024
"""Elements of a literal that is written into the code."""
Index = tuple[str, ...]
Made = Callable[[Index], str]


class Elements:
    """Statements in order; ``lines`` grows. layouts: of Body inputs that are not linear.

    ready: values computed elsewhere (an anchor's result, a vector that was loaded), by name: given
    coordinates, the text of the element, or None where it is not there.
    """

    def __init__(self, body: Body, layouts: Mapping[str, Format]) -> None:
        self.body = body
        self.layouts = layouts
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
        name = f"v{next(self._names)}"
        self.lines.append(f"{kind} {name} = {text};")
        return name

    @contextmanager
    def branch(self, condition: str) -> Generator[None]:
        """Statements that run where a condition holds; what they compute is not known outside."""
        kept = dict(self._memo)
        self.lines.append(f"if ({condition}) {{")
        yield
        self.lines.append("}")
        self._memo = kept

    def begin(self) -> None:
        """Start another section: nothing of the last one is in scope."""
        self.lines, self._memo = [], {}

    # -- stored elements ------------------------------------------------------------------
    def stored_offset(self, name: str, index: Index) -> str:
        """Offset of a Body input's element."""
        type_ = self.body.types[name]
        return offset(type_.shape, self.layouts.get(name, LINEAR), index)

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
            return self._literal(node.attributes["value"], name, index)
        if node.op in ("QuantizeLinear", "DequantizeLinear"):
            return self.variable(kind, self._affine(node, index))
        if node.operator.pointwise and node.op in RULES:
            return self.variable(kind, wrapped(type_.dtype, self._pointwise(node, index)))
        rule = MOVEMENTS.get(node.op)
        if rule is None:
            raise Untranslatable(f"there is no NVRTC kernel for {node.op}")
        return rule(self, node, name, index)

    def _literal(self, value: Literal, name: str, index: Index) -> str:
        if value.is_symbolic:
            raise Untranslatable(f"'{name}' has sizes that are not known")
        if len(value.values) == 1:
            return number(value.values[0], value.dtype)
        if len(value.values) > LARGEST_TABLE:
            raise Untranslatable(f"literal '{name}' has {len(value.values)} elements")
        table = f"table{list(self._producers).index(name)}"
        values = ", ".join(number(v, value.dtype) for v in value.values)
        text = f"static __device__ const {working(value.dtype)} {table}[] = {{{values}}};"
        if text not in self.tables:
            self.tables.append(text)
        return f"{table}[{offset(value.shape, LINEAR, index)}]"

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
            return ratio
        low, high = out.info.low, out.info.high
        whole = f"rintf({ratio}){f' + (float){zero}' if zero else ''}"
        return f"(i64)fminf(fmaxf({whole}, {float(low):.1f}f), {float(high):.1f}f)"


def operand(node: Node, k: int) -> str:
    """The name of a node's input; empty where it has none there."""
    return next(iter(node.inputs[k : k + 1]), "")


# -- coordinates --------------------------------------------------------------------------
def offset(shape: Sequence[int], layout: Format, index: Index) -> str:
    """Offset of the element at ``index`` of a stored tensor."""
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


Movement = Callable[[Elements, Node, str, Index], str]


def _reshape(e: Elements, node: Node, name: str, index: Index) -> str:
    source, target = e.body.types[node.inputs[0]].shape, e.body.types[name].shape
    dropped = [i for d, i in zip(target, index, strict=True) if d != 1]
    if [d for d in source if d != 1] == [d for d in target if d != 1]:
        rest = iter(dropped)
        return e.at(node.inputs[0], tuple("0" if d == 1 else next(rest) for d in source))
    # Equal leading and trailing sizes keep their coordinates.
    head = _common(source, target)
    tail = _common(source[head:][::-1], target[head:][::-1])
    inner = slice(head, len(target) - tail)
    flat = e.variable("const idx", offset(target[inner], LINEAR, index[inner]))
    middle = split(e, flat, source[head : len(source) - tail])
    return e.at(node.inputs[0], (*index[:head], *middle, *index[len(index) - tail :]))


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    count = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        count += 1
    return count


def _transpose(e: Elements, node: Node, name: str, index: Index) -> str:
    perm = node.attributes["perm"] or tuple(reversed(range(len(index))))
    return e.at(node.inputs[0], tuple(index[perm.index(a)] for a in range(len(index))))


def _expand(e: Elements, node: Node, name: str, index: Index) -> str:
    return e.broadcast(node.inputs[0], index)


def _tile(e: Elements, node: Node, name: str, index: Index) -> str:
    shape = e.body.types[node.inputs[0]].shape
    return e.at(node.inputs[0], tuple(f"({i}) % {d}" for i, d in zip(index, shape, strict=True)))


def _known(e: Elements, node: Node, k: int, default: Any = None) -> tuple[Any, ...]:
    name = operand(node, k)
    if not name:
        return tuple(default)
    values = e.literal(name)
    if values is None:
        raise Untranslatable(f"{node.op} reads '{name}' when it runs")
    return values


def _slice(e: Elements, node: Node, name: str, index: Index) -> str:
    shape = e.body.types[node.inputs[0]].shape
    starts = _known(e, node, 1)
    axes = [int(a) % len(shape) for a in _known(e, node, 3, range(len(starts)))]
    steps = _known(e, node, 4, (1,) * len(starts))
    own = list(index)
    for start, axis, step in zip(starts, axes, steps, strict=True):
        size, step = shape[axis], int(step)
        first = int(start) + size if int(start) < 0 else int(start)
        first = min(max(first, 0), size if step > 0 else size - 1)
        own[axis] = f"{first} + ({index[axis]}) * {step}"
        if first == 0 and step == 1:
            own[axis] = index[axis]
    return e.at(node.inputs[0], tuple(own))


def _split(e: Elements, node: Node, name: str, index: Index) -> str:
    axis = node.attributes["axis"] % len(index)
    sizes = [e.body.types[o].shape[axis] for o in node.outputs]
    before = sum(sizes[: node.outputs.index(name)])
    own = tuple(f"{before} + ({i})" if a == axis and before else i for a, i in enumerate(index))
    return e.at(node.inputs[0], own)


def _concat(e: Elements, node: Node, name: str, index: Index) -> str:
    axis = node.attributes["axis"] % len(index)
    result = f"v{next(e._names)}"  # pyright: ignore[reportPrivateUsage]
    e.lines.append(f"{working(e.body.types[name].dtype)} {result} = 0;")
    before = 0
    for operand in node.inputs:
        size = e.body.types[operand].shape[axis]
        if not size:
            continue
        own = tuple(f"({i}) - {before}" if a == axis and before else i for a, i in enumerate(index))
        with e.branch(f"({index[axis]}) >= {before} && ({index[axis]}) < {before + size}"):
            e.lines.append(f"{result} = {e.at(operand, own)};")
        before += size
    return result


def _gather(e: Elements, node: Node, name: str, index: Index) -> str:
    """An index beyond the axis reads its last element: a kernel cannot stop a run."""
    shape, places = (e.body.types[v].shape for v in node.inputs[:2])
    axis = node.attributes["axis"] % len(shape)
    rank = len(places)
    found = e.at(node.inputs[1], index[axis : axis + rank])
    return e.at(
        node.inputs[0], (*index[:axis], _within(e, found, shape[axis]), *index[axis + rank :])
    )


def _gather_elements(e: Elements, node: Node, name: str, index: Index) -> str:
    shape = e.body.types[node.inputs[0]].shape
    axis = node.attributes["axis"] % len(shape)
    found = _within(e, e.at(node.inputs[1], index), shape[axis])
    return e.at(node.inputs[0], (*index[:axis], found, *index[axis + 1 :]))


def _within(e: Elements, place: str, size: int) -> str:
    wrapped_place = f"{place} < 0 ? {place} + {size} : {place}"
    return e.variable(
        "const idx", f"(idx)min_nan(max_nan((i64)({wrapped_place}), (i64)0), (i64){size - 1})"
    )


def _pad(e: Elements, node: Node, name: str, index: Index) -> str:
    shape, mode = e.body.types[node.inputs[0]].shape, node.attributes["mode"]
    pads = [int(p) for p in _known(e, node, 1)]
    axes = [int(a) % len(shape) for a in _known(e, node, 3, range(len(shape)))]
    own = list(index)
    conditions: list[str] = []
    for k, axis in enumerate(axes):
        before, after, size = pads[k], pads[k + len(axes)], shape[axis]
        if not (before or after):
            continue
        i = e.variable("const idx", f"({index[axis]}) - ({before})")
        if mode == "constant":
            conditions.append(f"{i} >= 0 && {i} < {size}")
        elif mode == "edge":
            i = f"({i} < 0 ? 0 : ({i} >= {size} ? {size - 1} : {i}))"
        elif mode == "wrap":
            i = f"(({i} % {size} + {size}) % {size})"
        else:
            i = f"({i} < 0 ? -{i} : ({i} >= {size} ? {2 * size - 2} - {i} : {i}))"
        own[axis] = i
    if not conditions:
        return e.at(node.inputs[0], tuple(own))
    kind = e.body.types[name].dtype
    filling = operand(node, 2)
    value = e.at(filling, ()) if filling else number(0, kind)
    result = e.variable(working(kind), value)
    with e.branch(" && ".join(conditions)):
        e.lines.append(f"{result} = {e.at(node.inputs[0], tuple(own))};")
    return result


def _trilu(e: Elements, node: Node, name: str, index: Index) -> str:
    (k,) = _known(e, node, 1, (0,))
    sign = ">=" if node.attributes["upper"] else "<="
    result = e.variable(working(e.body.types[name].dtype), "0")
    with e.branch(f"(i64)({index[-1]}) - (i64)({index[-2]}) {sign} {int(k)}"):
        e.lines.append(f"{result} = {e.at(node.inputs[0], index)};")
    return result


def _depth_to_space(e: Elements, node: Node, name: str, index: Index) -> str:
    b, (n, c, h, w) = node.attributes["blocksize"], index
    depth = e.body.types[name].shape[1]
    inner = f"(({h}) % {b}) * {b} + ({w}) % {b}"
    channel = f"({inner}) * {depth} + ({c})"
    if node.attributes["mode"] != "DCR":
        channel = f"({c}) * {b * b} + {inner}"
    return e.at(node.inputs[0], (n, channel, f"({h}) / {b}", f"({w}) / {b}"))


def _space_to_depth(e: Elements, node: Node, name: str, index: Index) -> str:
    b, (n, c, h, w) = node.attributes["blocksize"], index
    depth = e.body.types[node.inputs[0]].shape[1]
    block, channel = f"({c}) / {depth}", f"({c}) % {depth}"
    if node.attributes["mode"] != "DCR":
        block, channel = f"({c}) % {b * b}", f"({c}) / {b * b}"
    block = e.variable("const idx", block)
    own = (f"({h}) * {b} + {block} / {b}", f"({w}) * {b} + {block} % {b}")
    return e.at(node.inputs[0], (n, channel, *own))


def _constant_of_shape(e: Elements, node: Node, name: str, index: Index) -> str:
    return number(node.attributes["value"].values[0], e.body.types[name].dtype)


MOVEMENTS: dict[str, Movement] = {
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape),
    "Transpose": _transpose,
    "Expand": _expand,
    "Tile": _tile,
    "Slice": _slice,
    "Split": _split,
    "Concat": _concat,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "Pad": _pad,
    "Trilu": _trilu,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "ConstantOfShape": _constant_of_shape,
}
"""Operators that change coordinates."""
