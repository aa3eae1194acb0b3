"""The interpreter: a Body run value by value, with the types that the values turn out to have.

What ``Body.evaluate`` cannot run, because a rank, a size or a kind is only known at run time:
sequences, optionals, strings, control flow, results whose size the data decides.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from workbench.body.body import Body
from workbench.body.inference import infer_node
from workbench.body.operator import CONSTANT, Node
from workbench.body.values import Array, HostType, TensorType, Value, type_of, widened
from workbench.dimensions import SymbolicDim
from workbench.errors import ExecutionError, NetworkError, WorkbenchError


def interpret(body: Body, inputs: Mapping[str, Value]) -> dict[str, Value]:
    """The outputs by name: arrays, lists (sequences), None (an empty optional).

    Raises ExecutionError naming the node whose inputs do not fit.
    """
    values: dict[str, Value] = dict(inputs)
    bindings: dict[str, int] = {}
    for i in body.inputs:
        bind_sizes(i.type, values[i.name], bindings)
    for node in body.nodes:
        made = _run(node, values, body.types, bindings)
        for name, value in zip(node.outputs, made, strict=False):
            if name:
                values[name] = value
                bind_sizes(body.types[name], value, bindings)
    return {o: values[o] for o in body.outputs}


def _run(
    node: Node,
    values: Mapping[str, Value],
    types: Mapping[str, TensorType],
    bindings: Mapping[str, int],
) -> tuple[Value, ...]:
    place = f"{node.op} '{node.outputs[0]}'"
    if node.operator is CONSTANT:
        return (node.attributes["value"].array(bindings),)
    args = [values[v] if v else None for v in node.inputs]
    given = tuple(
        type_of(a, types[v]) if v else None for a, v in zip(args, node.inputs, strict=True)
    )
    structural = node.operator.structural
    known = tuple(
        a if i in structural and isinstance(a, np.ndarray) else None for i, a in enumerate(args)
    )
    try:
        made, _ = infer_node(
            node.operator,
            node.attributes,
            given,
            known,
            len(node.outputs),
            names=node.outputs,
            place=place,
        )
        if not node.operator.stored:
            args = [widened(a) if isinstance(a, np.ndarray) and not _texts(a) else a for a in args]
        with np.errstate(all="ignore"):
            results = node.operator.reference(node.attributes, args)
    except ExecutionError as e:
        raise ExecutionError(
            e.problem, place=f"{place}/{e.place}" if e.place else place, remedy=e.remedy
        ) from None
    except NetworkError as e:
        raise ExecutionError(e.problem, place=e.place or place, remedy=e.remedy) from None
    except WorkbenchError:
        raise
    except (ValueError, IndexError, TypeError, ArithmeticError, MemoryError) as e:
        raise ExecutionError(f"its inputs do not fit: {e}", place=place) from e
    return tuple(_stored(r, t) for r, t in zip(results, made, strict=False))


def _stored(value: Value, type_: TensorType) -> Value:
    """The value in its type: what a half cannot hold is rounded."""
    if not isinstance(value, np.ndarray | np.generic) and isinstance(type_, HostType):
        return value
    with np.errstate(all="ignore"):
        return np.asarray(value).astype(type_.dtype.numpy, copy=False)


def bind_sizes(type_: TensorType, value: Value, bindings: dict[str, int]) -> None:
    """Give size symbols that stand alone, and are not bound yet, the value's sizes."""
    if isinstance(type_, HostType) or not isinstance(value, np.ndarray):
        return
    for size, actual in zip(type_.shape, value.shape, strict=False):
        if isinstance(size, SymbolicDim) and str(size) in size.symbols:
            bindings.setdefault(str(size), actual)


def _texts(array: Array) -> bool:
    return array.dtype.kind in "OUST"
