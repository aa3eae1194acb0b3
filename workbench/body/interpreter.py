"""The interpreter: a Body run value by value, with the types that the values turn out to have.

What ``Body.evaluate`` cannot run, because a rank, a size or a kind is only known at run time:
sequences, optionals, strings, control flow, results whose size the data decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from workbench.body.body import Body
from workbench.body.computing import FAILURES, check_values, failure
from workbench.body.inference import infer_node
from workbench.body.operator import CONSTANT
from workbench.body.values import Array, HostType, TensorType, Value, type_of, widened
from workbench.devices import LARGE, free_bytes
from workbench.dimensions import SymbolicDim, is_static
from workbench.errors import ExecutionError, NetworkError, WorkbenchError


def interpret(body: Body, inputs: Mapping[str, Value]) -> dict[str, Value]:
    """The outputs by name: arrays, lists (sequences), None (an empty optional).

    Raises ExecutionError naming the node whose inputs do not fit.
    """
    values: dict[str, Value] = dict(inputs)
    bindings: dict[str, int] = {}
    for i in body.inputs:
        bind_sizes(i.type, values[i.name], bindings)
    with np.errstate(all="ignore"):
        for index, node in enumerate(body.nodes):
            made = _run(body, index, values, bindings)
            for name, value in zip(node.outputs, made, strict=False):
                if name:
                    values[name] = value
                    bind_sizes(body.types[name], value, bindings)
    return {o: values[o] for o in body.outputs}


def _run(
    body: Body, index: int, values: Mapping[str, Value], bindings: Mapping[str, int]
) -> tuple[Value, ...]:
    node = body.nodes[index]
    if node.operator is CONSTANT:
        return (node.attributes["value"].array(bindings),)
    place = f"{node.op} '{node.outputs[0]}'"
    args = [values[v] if v else None for v in node.inputs]
    try:
        made = _types(body, index, args, place)
        if not node.operator.stored:
            args = [widened(a) if isinstance(a, np.ndarray) and not _texts(a) else a for a in args]
        check_values(node, args)
        check_room(made)
        results = node.operator.reference(node.attributes, args)
    except ExecutionError as e:
        raise ExecutionError(
            e.problem, place=f"{place}/{e.place}" if e.place else place, remedy=e.remedy
        ) from None
    except NetworkError as e:
        raise ExecutionError(e.problem, place=e.place or place, remedy=e.remedy) from None
    except WorkbenchError:
        raise
    except FAILURES as e:
        raise failure(ExecutionError, e, place) from e
    return tuple(_stored(r, t) for r, t in zip(results, made, strict=False))


def _types(body: Body, index: int, args: Sequence[Value], place: str) -> tuple[TensorType, ...]:
    """The types of a node's outputs; remembered where no value decides them."""
    node = body.nodes[index]
    structural = node.operator.structural
    deciding = any(i in structural and isinstance(a, np.ndarray) for i, a in enumerate(args))
    key = None
    if not deciding and all(isinstance(a, np.ndarray) for a in args):
        key = (index, *((a.dtype, a.shape) for a in args))
        if key in body.inferred:
            return body.inferred[key]
    given = tuple(
        type_of(a, body.types[v]) if v else None for a, v in zip(args, node.inputs, strict=True)
    )
    known = tuple(
        a if i in structural and isinstance(a, np.ndarray) else None for i, a in enumerate(args)
    )
    made, _ = infer_node(
        node.operator,
        node.attributes,
        given,
        known,
        len(node.outputs),
        names=node.outputs,
        place=place,
    )
    if key is not None:
        body.inferred[key] = made
    return made


def check_room(types: Sequence[TensorType]) -> None:
    """Raise ExecutionError where the results would not fit into the memory that is free."""
    ranked = [t for t in types if not isinstance(t, HostType) and is_static(t.shape)]
    nbytes = sum(int(t.nbytes()) for t in ranked)
    if nbytes > LARGE and nbytes > (free := free_bytes()):
        raise ExecutionError(
            f"its result {', '.join(map(str, ranked))} has {nbytes:,} bytes, {free:,} are free",
            remedy="give inputs that make it smaller, or run it where more memory is free",
        )


def _stored(value: Value, type_: TensorType) -> Value:
    """The value in its type: what a half cannot hold is rounded."""
    if not isinstance(value, np.ndarray | np.generic) and isinstance(type_, HostType):
        return value
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
