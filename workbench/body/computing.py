"""One node's reference on values, with errors that name the node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from workbench.body.moving import MOVING
from workbench.body.operator import Node, Reference
from workbench.body.values import Array, widened
from workbench.errors import ExecutionError, NetworkError, WorkbenchError

E = TypeVar("E", bound=WorkbenchError)

UNFIT = (ArithmeticError, LookupError, MemoryError, ValueError)
"""What NumPy raises where the values do not fit the operator, or the machine."""
UNFORESEEN = (AttributeError, StopIteration, TypeError)
"""What code raises that meets values which nobody thought of: ours to mend, and said so."""
FAILURES = (*UNFIT, *UNFORESEEN)


def operands(node: Node, values: Mapping[str, Array]) -> list[Array | None]:
    """What a node's reference reads, in the types in which it computes."""
    as_stored = node.operator.stored or node.op in MOVING
    read = np.asarray if as_stored else widened
    return [read(values[v]) if v else None for v in node.inputs]


def computed(
    node: Node, rule: Reference, args: Sequence[Any], *, checked: bool
) -> tuple[Array, ...]:
    """What ``rule`` gives. checked: the operator looks at the values first.

    Raises NetworkError naming the node where they do not fit; a Loop's ExecutionError, too.
    """
    try:
        if checked:
            check_values(node, args)
        with np.errstate(all="ignore"):
            return rule(node.attributes, args)
    except ExecutionError as e:
        place = f"{place_of(node)}/{e.place}" if e.place else place_of(node)
        raise ExecutionError(e.problem, place=place, remedy=e.remedy) from None
    except FAILURES as e:
        raise failure(NetworkError, e, place_of(node)) from e


def check_values(node: Node, args: Sequence[Any]) -> None:
    """Raise NetworkError where the operator is not defined on these values."""
    rule = node.operator.misfit
    if rule is not None and (wrong := rule(node.attributes, args)):
        raise NetworkError(wrong, place=place_of(node), remedy="mend the values that it is given")


def failure(kind: type[E], error: Exception, place: str) -> E:
    """An error of ours that says what one of FAILURES means."""
    if isinstance(error, UNFORESEEN):
        text = f": {error}" if str(error) else ""
        problem = f"{type(error).__name__} while it was computed{text}"
        return kind(problem, place=place, remedy="no check foresaw this: report it, with the model")
    if isinstance(error, MemoryError):
        told = f"there is no memory for its result: {error}"
        return kind(told if str(error) else "no memory is left", place=place)
    return kind(f"its inputs do not fit: {error}", place=place)


def place_of(node: Node) -> str:
    """The node, as errors name it."""
    return f"{node.op} '{next((o for o in node.outputs if o), '')}'"
