"""A Body's values as Triton statements over one tile: loads, pointwise nodes, Q/DQ, stores."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from workbench.body import CONSTANT, Body, Literal, Node
from workbench.datatypes import DataType
from workbench.formats import LINEAR, Format
from workbench.tactics.scalar_text import Scalars, Untranslatable
from workbench.tactics.triton.frame import Frame, strides_of
from workbench.tactics.triton.kernel import STORED, Arguments, masked
from workbench.tactics.triton.scalars import NAN, RULES, loaded, number, working


class Values:
    """Statements that compute values on a tile of ``frame``; ``lines`` grows in order.

    layouts: of Body inputs and outputs that are not linear. prefix: of the variables' names.
    early: if given, receives the loads of dynamic inputs, for an earlier place in the kernel.
    positive: whether every scale of a QuantizeLinear is known to be above 0. zeros: zero points
    that are known to be 0.
    """

    def __init__(
        self,
        body: Body,
        arguments: Arguments,
        frame: Frame,
        layouts: Mapping[str, Format],
        *,
        prefix: str = "v",
        early: list[str] | None = None,
        positive: bool = False,
        zeros: frozenset[str] = frozenset(),
    ) -> None:
        self.body = body
        self.arguments = arguments
        self.frame = frame
        self.layouts = layouts
        self.lines: list[str] = []
        self._prefix = prefix
        self._positive, self._zeros = positive, zeros
        self._early = early
        self._dynamic = {i.name for i in body.dynamic_inputs}
        self._later: dict[str, Callable[[str], str]] = {}
        self._count = 0
        self._known: dict[tuple[str, tuple[int, ...] | None], str] = {}
        self._producers = {o: n for n in body.nodes for o in n.outputs if o}
        self._inputs = {i.name for i in body.inputs}

    def define(self, name: str, text: str) -> None:
        """A value that is computed elsewhere, in its working type."""
        self._known[name, None] = text

    def define_later(self, name: str, text: Callable[[str], str]) -> None:
        """The same for a value whose text takes a factor in; empty for none."""
        self._later[name] = text

    def at(self, name: str) -> str:
        """The variable that holds a value on the tile. Raises Untranslatable."""
        if name in self._later and (name, None) not in self._known:
            self._known[name, None] = self._variable(self._later[name](""))
        if (name, None) not in self._known:
            self._known[name, None] = self._make(name)
        return self._known[name, None]

    def store(self, name: str) -> None:
        """Write an output of the Body."""
        type_ = self.body.types[name]
        value = self.at(name)
        offset, mask = self._place(name, None, full=True)
        kind = STORED[type_.dtype]
        full = self.frame.mask or mask
        suffix = f", mask={full}" if full else ""
        pointer = self.arguments.value(name)
        self.lines.append(f"tl.store({pointer} + ({offset}), ({value}).to({kind}){suffix})")

    def read(self, name: str, *, axis: int | None = None) -> str:
        """A stored element of a Body input in its working type.

        axis: the one axis of the frame that a one-dimensional input lies along.
        """
        key = (name, None if axis is None else (axis,))
        if key not in self._known:
            dtype, text = self.body.types[name].dtype, self.raw(name, axis=axis)
            if self._early is not None and name in self._dynamic:
                self._early.append(f"e{len(self._early)} = {text}")
                text = f"e{len(self._early) - 1}"
            self._known[key] = self._variable(loaded(dtype, text))
        return self._known[key]

    def raw(self, name: str, *, axis: int | None = None) -> str:
        """The load of a Body input as it is stored."""
        if self.body.types[name].dtype not in STORED:
            raise Untranslatable(f"'{name}' is {self.body.types[name].dtype.value}")
        offset, mask = self._place(name, axis)
        suffix = masked(mask, self.body.types[name].dtype)
        return f"tl.load({self.arguments.value(name)} + ({offset}){suffix})"

    def _place(self, name: str, axis: int | None, *, full: bool = False) -> tuple[str, str]:
        shape, rank = self.body.types[name].shape, len(self.frame.shape)
        if axis is not None:
            strides = [0] * rank
            strides[axis] = 1
            return self.frame.offset(strides)
        wide = zip(shape, self.frame.shape[rank - len(shape) :], strict=True)
        if len(shape) > rank or any(a not in (1, b) for a, b in wide):
            raise Untranslatable(f"'{name}' {shape} does not broadcast to {self.frame.shape}")
        strides = strides_of(shape, rank, self.layouts.get(name, LINEAR))
        return self.frame.offset(strides, full=full)

    def _variable(self, text: str) -> str:
        name = f"{self._prefix}{self._count}"
        self._count += 1
        self.lines.append(f"{name} = {text}")
        return name

    def _make(self, name: str) -> str:
        if name in self._inputs:
            return self.read(name)
        node = self._producers[name]
        dtype = self.body.types[name].dtype
        working(dtype)
        if node.operator is CONSTANT:
            return self._literal(node.attributes["value"], name)
        if node.op == "DequantizeLinear":
            return self._variable(self._dequantized(node))
        if node.op == "QuantizeLinear":
            return self._quantized(node)
        if not node.operator.pointwise or node.op not in RULES:
            raise Untranslatable(f"there is no Triton text for {node.op}")
        types = self.body.types
        texts = [self.at(v) if v else "" for v in node.inputs]
        kinds = [types[v].dtype if v else None for v in node.inputs]
        return self._variable(RULES[node.op](Scalars(node, texts, kinds, dtype, number)))

    def _literal(self, value: Literal, name: str) -> str:
        if value.is_symbolic or len(value.values) != 1:
            raise Untranslatable(f"literal '{name}' has {len(value.values)} elements")
        return number(value.values[0], value.dtype)

    # -- quantization ---------------------------------------------------------------------
    def _parameter(self, node: Node, index: int) -> str:
        """A scale or zero point on the tile; empty where it is absent."""
        name = node.inputs[index] if len(node.inputs) > index else ""
        if not name or name in self._zeros:
            return ""
        shape = self.body.types[name].shape
        if node.attributes["block_size"]:
            raise Untranslatable(f"{node.op} by blocks")
        if name not in self._inputs:
            return self.at(name)
        if shape in ((), (1,)):
            return self.read(name)
        rank = len(self.body.types[node.inputs[0]].shape)
        axis = node.attributes["axis"] % rank + len(self.frame.shape) - rank
        return self.read(name, axis=axis)

    def _dequantized(self, node: Node) -> str:
        return f"{self._centred(node)} * {self._parameter(node, 1)}"

    def _centred(self, node: Node) -> str:
        """What a DequantizeLinear multiplies by its scale."""
        x, zero = self.at(node.inputs[0]), self._parameter(node, 2)
        centred = f"({x} - {zero})" if zero else x
        if self.body.types[node.inputs[0]].dtype.is_float:
            return centred
        return f"{centred}.to(tl.float32)"

    def _quantized(self, node: Node) -> str:
        dtype = self.body.types[node.outputs[0]].dtype
        if dtype not in (DataType.INT8, DataType.UINT8, DataType.FP8):
            raise Untranslatable(f"quantizes to {dtype.value}")
        if not self.body.types[node.inputs[0]].dtype.is_float:
            raise Untranslatable("quantizes integers")
        if dtype.is_float and not node.attributes["saturate"]:
            raise Untranslatable("quantizes to FP8 without saturating")
        info, zero = dtype.info, self._parameter(node, 2)
        if dtype is DataType.INT8 and self._positive and not zero:
            return self._saturated(node)
        # One division a scale instead of one an element; a unit of roundoff more.
        inverse = self._variable(f"1.0 / {self._parameter(node, 1)}")
        scaled = self._times(node.inputs[0], inverse)
        if dtype.is_float:
            # Stores saturate: beyond the range lies the largest number, NaN stays NaN.
            return self._variable(f"{scaled} + {zero}" if zero else scaled)
        if zero:
            # A literal is a number of Python's, which has no type to be cast to.
            wide = f"{zero}.to(tl.float32)" if zero.isidentifier() else zero
            scaled = f"libdevice.rint({scaled}) + {wide}"
        clipped = self._variable(f"tl.minimum(tl.maximum({scaled}, {info.low}), {info.high})")
        return self._rounded(clipped)

    def _rounded(self, text: str, offset: int = 0) -> str:
        """Numbers below 2**22, and ``offset`` more, rounded to integers."""
        # Adding 1.5 * 2**23 leaves no bits for a fraction: rounds to nearest, ties to even, and
        # the sum's lowest bits are the integer.
        added = 12582912.0 + offset
        return self._variable(f"({text} + {added}).to(tl.int32, bitcast=True) - 0x4B400000")

    def _saturated(self, node: Node) -> str:
        """An INT8 result clipped as a share of its range: a multiplication clips to 0..1 for free.

        What is not negative has 127 steps, anything else 255, the lowest at -128.
        """
        name = node.inputs[0]
        whole = not self._at_least_zero(name)
        relu = self._producers.get(name)
        if relu is not None and relu.op == "Relu" and not self._read_elsewhere(name):
            name = relu.inputs[0]
        steps, lowest = (255.0, -128) if whole else (127.0, 0)
        factor = self._variable(f"1.0 / ({self._parameter(node, 1)} * {steps})")
        text = self._times(name, factor)
        if whole:
            text = f"{text} + {-lowest / steps!r}"
        share = self._variable(f"tl.minimum(tl.maximum({text}, 0.0), 1.0)")
        return self._rounded(f"{share} * {steps}", lowest)

    # -- scales taken in ------------------------------------------------------------------
    def _times(self, name: str, factor: str) -> str:
        """Text of a value times a positive number, which constants on the way take in.

        A sum of scaled integers is then one multiplication and addition an element for each, and
        an activation is computed on what is rounded.
        """
        if not self._positive or self._read_elsewhere(name):
            return f"{self.at(name)} * {factor}"
        if name in self._later:
            return self._later[name](factor)
        node = self._producers.get(name)
        match node.op if node is not None else "":
            case "Relu" if node is not None:
                return f"tl.maximum({self._times(node.inputs[0], factor)}, 0.0, {NAN})"
            case "Clip" if node is not None:
                return self._clipped(node, factor)
            case "Add" if node is not None:
                parts = [self._variable(self._times(v, factor)) for v in node.inputs]
                return f"({' + '.join(parts)})"
            case "Cast" if node is not None and self.body.types[node.inputs[0]].dtype.is_float:
                return self._times(node.inputs[0], factor)
            case "DequantizeLinear" if node is not None and not self._parameter(node, 2):
                scale = self._variable(f"{self._parameter(node, 1)} * {factor}")
                return f"{self._centred(node)} * {scale}"
            case _:
                return f"{self.at(name)} * {factor}"

    def _clipped(self, node: Node, factor: str) -> str:
        text = self._times(node.inputs[0], factor)
        for function, limit in zip(("maximum", "minimum"), node.inputs[1:], strict=False):
            if limit:
                scaled = self._variable(f"{self.at(limit)} * {factor}")
                text = f"tl.{function}({text}, {scaled}, {NAN})"
        return text

    def _read_elsewhere(self, name: str) -> bool:
        """Whether the value itself is needed, too: by another node, or as an output."""
        readers = sum(v == name for n in self.body.nodes for v in n.inputs)
        return readers > 1 or name in self.body.outputs or (name, None) in self._known

    def _at_least_zero(self, name: str) -> bool:
        """Whether the value times a positive number is not negative (it may be NaN)."""
        node = self._producers.get(name)
        if node is None or not self._positive:
            return False
        if node.op != "Clip" or len(node.inputs) < 2:
            return node.op == "Relu"
        low = self._producers.get(node.inputs[1])
        return (
            low is not None and low.operator is CONSTANT and low.attributes["value"].values[0] >= 0
        )
