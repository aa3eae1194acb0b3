"""Movement as copies between strided views: which elements of which buffer go where.

Transpose, Slice, Split, Concat, Expand, reshapes and reformats all become a few
``np.copyto(target, source)`` over views of the buffers, which any kernel can carry out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from workbench.body import CONSTANT, SAME_ORDER, VIEWS, Array, Body, Node, computed
from workbench.errors import NetworkError
from workbench.formats import LINEAR, Format
from workbench.records import Refusal


@dataclass(frozen=True, eq=False)
class Copy:
    """Elements of Body input ``source`` to output number ``output``.

    read, write: views of equal shape over arrays of the buffers' shapes.
    """

    source: str
    output: int
    read: Array
    write: Array


def movement_copies(body: Body, layout: Format = LINEAR) -> tuple[Copy, ...] | Refusal:
    """The copies that a Body of movement nodes consists of.

    In another layout than LINEAR: Concat alone, with all its tensors in that layout.
    """
    if layout != LINEAR:
        return _concat_in_layout(body, layout)
    arrays = {i.name: _imagined(i.type.shape, i.type.dtype.numpy) for i in body.inputs}
    owners = {name: name for name in arrays}
    joined: dict[str, tuple[Node, list[str]]] = {}
    after: dict[str, str] = {}
    known: dict[str, Array] = {}
    for n in body.nodes:
        if n.operator is CONSTANT:
            known[n.outputs[0]] = n.attributes["value"].array({})
            continue
        refusal = _follow(n, body, arrays, owners, joined, after, known)
        if refusal is not None:
            return refusal
    copies: list[Copy] = []
    for k, name in enumerate(body.outputs):
        t = body.types[name]
        target = _imagined(t.shape, t.dtype.numpy)
        origin = after.get(name, name)
        if origin in joined:
            node, parts = joined[origin]
            whole = target.reshape(body.types[origin].shape)
            axis = node.attributes["axis"] % whole.ndim
            pieces = _pieces(whole, axis, [arrays[p].shape[axis] for p in parts])
            copies += [Copy(owners[p], k, arrays[p], w) for p, w in zip(parts, pieces, strict=True)]
        elif origin in owners:
            copies.append(
                Copy(owners[origin], k, arrays[origin], target.reshape(arrays[origin].shape))
            )
        else:
            return Refusal(f"output '{name}' is a constant", code="constant_output")
    return tuple(copies)


def _follow(
    n: Node,
    body: Body,
    arrays: dict[str, Array],
    owners: dict[str, str],
    joined: dict[str, tuple[Node, list[str]]],
    after: dict[str, str],
    known: Mapping[str, Array],
) -> Refusal | None:
    """Note what a node's outputs are views of; the reason if they are none."""
    if not n.inputs:
        return Refusal(f"{n.op} is not a copy between views", code="not_views")
    origin = after.get(n.inputs[0], n.inputs[0])
    if n.op in SAME_ORDER and (origin in joined or n.inputs[0] in after):
        after[n.outputs[0]] = origin
        return None
    if n.op == "Concat" and all(v in owners for v in n.inputs):
        joined[n.outputs[0]] = (n, list(n.inputs))
        return None
    if n.op not in VIEWS or n.inputs[0] not in owners:
        return Refusal(f"{n.op} is not a copy between views", code="not_views")
    if any(v and v not in known for v in n.inputs[1:]):
        return Refusal(f"{n.op} takes its sizes from data", code="dynamic_sizes")
    x = arrays[n.inputs[0]]
    given = [x, *(known[v] if v else None for v in n.inputs[1:])]
    try:
        results = computed(n, n.operator.reference, given, checked=True)
    except NetworkError as e:
        return Refusal(e.problem, place=e.place, code="values")
    for o, r in zip(n.outputs, results, strict=True):
        if r.size and not np.may_share_memory(r, x):
            if n.op not in SAME_ORDER:
                return Refusal(f"{n.op} '{o}' is not a view", code="not_views")
            # The order of elements stays: what follows is laid over the output instead.
            after[o] = origin
            continue
        arrays[o], owners[o] = r, owners[n.inputs[0]]
    return None


def _imagined(shape: Sequence[int], dtype: np.dtype) -> Array:
    """An array of the right shape and strides; its memory is never touched."""
    return np.empty(tuple(shape), dtype)


def _pieces(whole: Array, axis: int, sizes: Sequence[int]) -> list[Array]:
    pieces: list[Array] = []
    start = 0
    for size in sizes:
        index = [slice(None)] * whole.ndim
        index[axis] = slice(start, start + size)
        pieces.append(whole[tuple(index)])
        start += size
    return pieces


def _concat_in_layout(body: Body, layout: Format) -> tuple[Copy, ...] | Refusal:
    if body.operator_names != ("Concat",):
        return Refusal(f"only Concat is done in layout {layout}", code="format")
    node = body.nodes[-1]
    rank = len(body.output_types[0].shape)
    if not layout.fits(rank) or any(i.constant for i in body.inputs):
        return Refusal(f"a part cannot lie in layout {layout}", code="format_operand")
    axis = node.attributes["axis"] % rank
    channels = [body.types[v].shape[1] for v in node.inputs]
    if layout.block and axis == 1 and any(c % layout.block for c in channels[:-1]):
        return Refusal(
            f"{' + '.join(map(str, channels))} channels do not fill groups of {layout.block}",
            code="format_channels",
        )
    if layout.channels_last:
        axis = rank - 1 if axis == 1 else max(0, axis - 1)
    types = [body.types[v] for v in node.inputs]
    parts = [_imagined(layout.physical_shape(t.shape), t.dtype.numpy) for t in types]
    out = body.output_types[0]
    whole = _imagined(layout.physical_shape(out.shape), out.dtype.numpy)
    pieces = _pieces(whole, axis, [p.shape[axis] for p in parts])
    return tuple(Copy(v, 0, p, w) for v, p, w in zip(node.inputs, parts, pieces, strict=True))


def reformat_copies(
    name: str,
    shape: Sequence[int],
    dtype: np.dtype,
    source: Format,
    target: Format,
) -> tuple[Copy, ...]:
    """The copies that rewrite one tensor; padding lanes of the target are not among them."""
    size = source.block or target.block
    before = _chunks(_imagined(source.physical_shape(tuple(shape)), dtype), source, shape, size)
    after = _chunks(_imagined(target.physical_shape(tuple(shape)), dtype), target, shape, size)
    pairs = zip(before, after, strict=True)
    return tuple(Copy(name, 0, a, b) for a, b in pairs if a.size)


def _chunks(stored: Array, layout: Format, shape: Sequence[int], block: int) -> list[Array]:
    """Views of a stored tensor as (N, groups, block, ...) and the channels beyond them."""
    if not block:
        return [np.moveaxis(stored, -1, 1) if layout.channels_last else stored]
    full, rest = shape[1] // block * block, shape[1] % block
    if layout.block:
        lanes = np.moveaxis(stored, -1, 2)
        groups = full // block
        return [lanes[:, :groups], lanes[:, groups, :rest] if rest else lanes[:, :0, 0]]
    linear = np.moveaxis(stored, -1, 1) if layout.channels_last else stored
    grouped = linear[:, :full].reshape(shape[0], full // block, block, *shape[2:])
    return [grouped, linear[:, full:]]


def laid_over(view: Array, memory: Array) -> Array:
    """The same view over a buffer's bytes (uint8)."""
    offset, _ = strided(view)
    return np.ndarray(view.shape, view.dtype, memory.data, offset * view.itemsize, view.strides)


def strided(view: Array) -> tuple[int, tuple[int, ...]]:
    """Offset of a view in its buffer, and its strides, in elements."""
    base = view
    while isinstance(base.base, np.ndarray):
        base = base.base
    offset = (view.__array_interface__["data"][0] - base.__array_interface__["data"][0]) // (
        view.itemsize
    )
    return offset, tuple(s // view.itemsize for s in view.strides)
