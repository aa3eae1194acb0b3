"""ErrorCode and ParserErrorRecord: one reason why a model cannot be imported."""

from __future__ import annotations

import enum
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from workbench.body.computing import UNFORESEEN
from workbench.errors import ParserError, WorkbenchError

if TYPE_CHECKING:
    from workbench.onnx_parser.source import SourceNode

LISTED = 20
"""Reasons, and nodes a reason, that an error's message spells out; ``errors`` has all."""


class ErrorCode(enum.Enum):
    """TensorRT's ErrorCode of its ONNX parser."""

    SUCCESS = 0
    INTERNAL_ERROR = 1
    MEM_ALLOC_FAILED = 2
    MODEL_DESERIALIZE_FAILED = 3
    INVALID_VALUE = 4
    INVALID_GRAPH = 5
    INVALID_NODE = 6
    UNSUPPORTED_GRAPH = 7
    UNSUPPORTED_NODE = 8
    UNSUPPORTED_NODE_ATTR = 9
    UNSUPPORTED_NODE_INPUT = 10
    UNSUPPORTED_NODE_DATATYPE = 11
    UNSUPPORTED_NODE_DYNAMIC = 12
    UNSUPPORTED_NODE_SHAPE = 13
    REFIT_FAILED = 14


@dataclass(frozen=True)
class ParserErrorRecord:
    """One reason, with the fields of TensorRT's IParserError, and ours: ``rule``, ``remedy``.

    desc: what is wrong, with both values. file, line, func: the check in our source that found it,
    or where an error arose that no check foresaw. node: index in the graph, -1 where the reason is
    not one node's. local_function_stack: names of the model-local functions around the node,
    outermost first. rule: a stable short name of the broken rule. remedy: what would mend it.
    needs: inputs of the model that would mend it if they were constants.
    """

    code: ErrorCode
    desc: str
    file: str
    line: int
    func: str
    node: int = -1
    node_name: str = ""
    node_operator: str = ""
    local_function_stack: tuple[str, ...] = ()
    rule: str = ""
    remedy: str = ""
    needs: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """The node, or nothing."""
        inside = " > ".join(self.local_function_stack)
        node = f"{self.node_operator} '{self.node_name}'" if self.node_name else ""
        return f"{node} in {inside}" if inside else node

    def __str__(self) -> str:
        text = f"{self.place}: {self.desc}" if self.place else self.desc
        return f"{text}; {self.remedy}" if self.remedy else text


def record(
    code: ErrorCode, desc: str, *, rule: str, remedy: str, node: SourceNode | None = None
) -> ParserErrorRecord:
    """A record whose file, line and function are the caller's."""
    return _record(_caller(), code, desc, rule, remedy, node)


def refuse(
    code: ErrorCode, desc: str, *, rule: str, remedy: str, node: SourceNode | None = None
) -> NoReturn:
    """Raise ParserError with one record."""
    reason = _record(_caller(), code, desc, rule, remedy, node)
    raise ParserError(desc, place=reason.place, remedy=remedy, errors=(reason,))


def record_of(error: WorkbenchError, node: SourceNode) -> tuple[ParserErrorRecord, ...]:
    """The reasons in an error that was raised while ``node`` was imported."""
    if isinstance(error.__cause__, UNFORESEEN):
        return (unforeseen(error.__cause__, node),)
    if isinstance(error, ParserError) and error.errors:
        return tuple(_located(e, node) for e in error.errors if isinstance(e, ParserErrorRecord))
    place = f"{error.place}: " if error.place and f"'{node.name}'" not in error.place else ""
    return (
        _record(
            _caller(),
            ErrorCode.INVALID_NODE,
            f"{place}{error.problem}",
            "inference",
            error.remedy or "correct the node's inputs and attributes, or re-export the model",
            node,
        ),
    )


UNEXPECTED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What code raises that meets a model which nobody thought of: reported as INTERNAL_ERROR."""


def unforeseen(error: Exception, node: SourceNode | None = None) -> ParserErrorRecord:
    """The reason that an error is, which no check foresaw: ours to mend, and said so.

    Its file, line and function are those where the error arose.
    """
    memory = isinstance(error, MemoryError)
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    text = " ".join(str(error).split())[:200]
    return _record(
        _caller() if trace is None else (trace.tb_frame, trace.tb_lineno),
        ErrorCode.MEM_ALLOC_FAILED if memory else ErrorCode.INTERNAL_ERROR,
        f"{type(error).__name__} while it was imported{': ' if text else ''}{text}",
        "memory" if memory else "unforeseen",
        "import it where more memory is free"
        if memory
        else "no check foresaw this model: report it, with the model",
        node,
    )


def all_reasons(records: Sequence[ParserErrorRecord], *, place: str) -> ParserError:
    """One ParserError of every reason; its message spells out the first ones."""
    if len(records) == 1:
        only = records[0]
        where = ": ".join(x for x in (place, only.place) if x)
        return ParserError(only.desc, place=where, remedy=only.remedy, errors=records)
    groups: dict[tuple[object, ...], list[ParserErrorRecord]] = {}
    for e in records:
        alike = (e.node_operator, e.desc, e.remedy, e.local_function_stack)
        groups.setdefault(alike, []).append(e)
    lines = [f"{len(records)} reasons why it cannot be imported"]
    lines += [f"  - {_together(alike)}" for alike in list(groups.values())[:LISTED]]
    if len(groups) > LISTED:
        left = sum(len(alike) for alike in list(groups.values())[LISTED:])
        lines.append(f"  and {left} more")
    return ParserError("\n".join(lines), place=place, errors=records)


def _together(alike: Sequence[ParserErrorRecord]) -> str:
    """Reasons that differ in their node only, as one line."""
    names = "', '".join(e.node_name for e in alike[:LISTED])
    more = f" and {len(alike) - LISTED} more" if len(alike) > LISTED else ""
    return str(replace(alike[0], node_name=names)).replace(f"'{names}'", f"'{names}'{more}", 1)


def _located(reason: ParserErrorRecord, node: SourceNode) -> ParserErrorRecord:
    if reason.node_name:
        return reason
    return replace(
        reason,
        node=node.index,
        node_name=node.name,
        node_operator=node.operator,
        local_function_stack=node.stack,
    )


def _record(
    frame: tuple[FrameType, int],
    code: ErrorCode,
    desc: str,
    rule: str,
    remedy: str,
    node: SourceNode | None,
) -> ParserErrorRecord:
    source, line = frame[0].f_code, frame[1]
    at = ("/".join(Path(source.co_filename).parts[-2:]), line, source.co_name)
    if node is None:
        return ParserErrorRecord(code, desc, *at, rule=rule, remedy=remedy)
    return ParserErrorRecord(
        code, desc, *at, node.index, node.name, node.operator, node.stack, rule, remedy
    )


def _caller() -> tuple[FrameType, int]:
    frame = inspect.currentframe()
    for _ in range(2):
        frame = frame.f_back if frame is not None else None
    assert frame is not None
    return frame, frame.f_lineno
