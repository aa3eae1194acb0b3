"""support_matrix: every operator of the standard, and what becomes of it here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from onnx import defs

from workbench.body import (
    CONSTANT,
    HostType,
    Operator,
    OptionalType,
    SequenceType,
    TensorType,
    infer_node,
)
from workbench.datatypes import DataType
from workbench.devices import open_device
from workbench.errors import NetworkError
from workbench.network import Layer
from workbench.onnx_parser.accepted import accepted_opsets, refusal_at
from workbench.onnx_parser.element_types import SCHEMA_NAMES
from workbench.onnx_parser.expansion import LOWERED, STANDARD_BODIES
from workbench.onnx_parser.nested import CONTROL_FLOW
from workbench.onnx_parser.schemas import OPSETS, Formal, Schema, operator_key, schema
from workbench.onnx_parser.upgrade import UPGRADES
from workbench.onnx_parser.value_types import schema_type
from workbench.operators import OPERATORS
from workbench.reports.support_cases import Sample, gpu_kernels_for, kernels_for, samples
from workbench.reports.support_gpu import HOST_ON_GPU

ROW = "row"
LOWER = "lowered"
BODY = "standard body"
UPGRADE = "upgrade"
NONE = "not supported"


@dataclass(frozen=True)
class OperatorSupport:
    """One operator of the standard.

    since: its version in the newest opset of its domain. opsets: of the domain, at which its nodes
    are imported, such as ``7–28``; empty where none are. route: ``row``: it is a layer;
    ``lowered``: written as other operators by a rule of ours; ``standard body``: as its function
    body in the standard; ``upgrade``: its old versions are written as newer operators;
    ``not supported``. becomes: the operators of those layers. types: of its first input (of the
    output, where it has none). kernels: the CPU's tactic sources that have one for it; empty where
    only the reference runs it. gpu: the GPU's tactic sources that have one. host: only the host
    runs it, value by value. host_on_gpu: why the host runs it, or what it becomes, in a GPU's
    engine too. reason: why it is not supported. refusals: what of ONNX's own cases is refused, and
    why.
    """

    operator: str
    domain: str
    since: int
    opsets: str
    route: str
    family: str = ""
    layer_type: str = ""
    becomes: tuple[str, ...] = ()
    types: tuple[DataType, ...] = ()
    kernels: tuple[str, ...] = ()
    gpu: tuple[str, ...] = ()
    host: bool = False
    host_on_gpu: str = ""
    reason: str = ""
    refusals: tuple[str, ...] = ()

    @property
    def supported(self) -> bool:
        return self.route != NONE

    @property
    def key(self) -> str:
        """What the registry calls it."""
        return operator_key(self.domain, self.operator)


def support_matrix(*, ask: bool = True) -> tuple[OperatorSupport, ...]:
    """A row an operator: ai.onnx first, by name; then the other domains of the standard.

    ask: parse ONNX's own node cases, and ask each tactic source about what they become (a minute,
    once); without it ``types`` are the standard's, and ``kernels``, ``gpu``, ``refusals`` and what
    a lowered operator becomes are empty.
    """
    rows = [_from_tables(key) for key in standard_operators()]
    if not ask:
        return tuple(rows)
    shown = samples()
    device = open_device("cpu")
    made: list[OperatorSupport] = []
    for row in rows:
        sample = shown.get(row.key, Sample())
        own = OPERATORS.get(row.key)
        made.append(
            replace(
                row,
                becomes=row.becomes or (tuple(sample.becomes) if own is None else ()),
                types=_probed(own, row, sample.layers) if own is not None else row.types,
                kernels=kernels_for(sample.layers, device) if own is not None else (),
                gpu=gpu_kernels_for(row.key, sample.layers, device) if own is not None else (),
                refusals=tuple(sample.refusals) if row.supported else (),
            )
        )
    return tuple(made)


def standard_operators() -> list[str]:
    """Every operator that some opset of a domain known here has."""
    found = {(s.domain, s.name) for s in defs.get_all_schemas_with_history()}
    return [operator_key(d, n) for d, n in sorted(found) if d in OPSETS]


def _from_tables(key: str) -> OperatorSupport:
    domain, _, name = key.rpartition("::")
    newest = schema(key, OPSETS[domain])
    assert newest is not None
    opsets = accepted_opsets(key)
    route = _route(key) if opsets else NONE
    own = OPERATORS.get(key) if route != NONE else None
    return OperatorSupport(
        name,
        domain,
        newest.since,
        _ranges(opsets),
        route,
        family=own.family if own is not None else "",
        layer_type=own.layer_type if own is not None else "",
        becomes=_upgrade_targets(key) if route == UPGRADE else (),
        types=_standard_types(newest) if opsets else (),
        host=own is not None and own.host,
        host_on_gpu=HOST_ON_GPU.get(key, "") if route == ROW else "",
        reason="" if opsets else _reason(key, OPSETS[domain]),
    )


def _reason(key: str, opset: int) -> str:
    return refusal_at(key, opset).removeprefix(f"operator {key} is not supported: ")


def _upgrade_targets(key: str) -> tuple[str, ...]:
    rules = (u for (operator, _), u in UPGRADES.items() if operator == key)
    return tuple(dict.fromkeys(t for u in rules for t in u.targets))


def _route(key: str) -> str:
    if key in OPERATORS:
        return ROW
    if key in LOWERED:
        return LOWER
    return BODY if key in STANDARD_BODIES else UPGRADE


def _ranges(opsets: Sequence[int]) -> str:
    """Numbers as ranges: ``7–28``."""
    parts: list[str] = []
    for _, run in groupby(enumerate(opsets), lambda p: p[1] - p[0]):
        numbers = [v for _, v in run]
        parts.append(f"{numbers[0]}–{numbers[-1]}" if len(numbers) > 1 else str(numbers[0]))
    return ", ".join(parts)


# -- types --------------------------------------------------------------------------------
def _deciding(row: Schema) -> Formal | None:
    """The first input, or the first output where there is none."""
    return next(iter((*row.inputs, *row.outputs)), None)


def _allowed(row: Schema, formal: Formal) -> frozenset[str]:
    return row.constraints.get(formal.type, frozenset({formal.type}))


def _standard_types(row: Schema) -> tuple[DataType, ...]:
    """Element types that the standard allows there, in a tensor or in a sequence or optional."""
    formal = _deciding(row)
    if formal is None:
        return ()
    allowed = _allowed(row, formal)
    return tuple(t for t, n in SCHEMA_NAMES.items() if any(n in a for a in allowed))


def _probed(
    operator: Operator, row: OperatorSupport, layers: Sequence[Layer]
) -> tuple[DataType, ...]:
    """Those of the standard's types for which the row's type rule takes a sample."""
    newest = schema(row.key, OPSETS[row.domain])
    assert newest is not None
    if not layers or operator is CONSTANT or operator.key in CONTROL_FLOW or not newest.inputs:
        return row.types
    return tuple(t for t in row.types if any(_takes(operator, newest, x, t) for x in layers))


def _takes(operator: Operator, newest: Schema, layer: Layer, dtype: DataType) -> bool:
    first = newest.inputs[0]
    types: list[TensorType | None] = []
    values: list[Any] = []
    for i, t in enumerate(layer.inputs):
        formal = newest.formal(i)
        swap = t is not None and formal is not None and formal.type == first.type
        types.append(None if t is None else _of_type(t.type, dtype) if swap else t.type)
        values.append(None if t is None or (swap and i not in operator.structural) else t.value)
    given = types[0]
    if given is None or schema_type(given) not in _allowed(newest, first):
        return False
    try:
        infer_node(
            operator,
            layer.attributes,
            tuple(types),
            tuple(values),
            len(layer.outputs),
            names=tuple(t.name for t in layer.outputs),
            place=layer.name,
        )
    except NetworkError:
        return False
    return True


def _of_type(type_: TensorType, dtype: DataType) -> TensorType:
    """The type with other elements."""
    if isinstance(type_, SequenceType | OptionalType):
        return type(type_)(_of_type(type_.element, dtype))
    if isinstance(type_, HostType):
        return type(type_)(dtype)
    return TensorType(dtype, type_.shape)


# -- rows for people ----------------------------------------------------------------------
_KINDS: tuple[tuple[str, tuple[DataType, ...]], ...] = (
    ("floats", (DataType.FLOAT, DataType.HALF, DataType.BF16, DataType.DOUBLE)),
    (
        "FP8 (4 kinds)",
        (DataType.FP8, DataType.FP8E5M2, DataType.FP8E4M3FNUZ, DataType.FP8E5M2FNUZ),
    ),
    (
        "integers",
        (
            *(DataType.INT8, DataType.INT16, DataType.INT32, DataType.INT64),
            *(DataType.UINT8, DataType.UINT16, DataType.UINT32, DataType.UINT64),
        ),
    ),
    ("2 and 4 bits", (DataType.INT2, DataType.UINT2, DataType.INT4, DataType.UINT4)),
    ("complex", (DataType.COMPLEX64, DataType.COMPLEX128)),
)
"""Types that mostly come together."""


def types_in_words(types: Sequence[DataType]) -> str:
    """``floats, integers, BOOL``: a kind's name where all of its types are there."""
    return ", ".join(_words(set(types)))


def _words(left: set[DataType]) -> Iterator[str]:
    for name, kind in _KINDS:
        if set(kind) <= left:
            left -= set(kind)
            yield name
    yield from (t.value for t in DataType if t in left)
