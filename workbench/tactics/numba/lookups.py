"""Rows of a table by index (Gather) as operands of a row kernel: embeddings are read in place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workbench.body import Array, Body, Node
from workbench.datatypes import DataType
from workbench.errors import ExecutionError
from workbench.tactics.numba.expressions import Operand, Translator
from workbench.tactics.numba.nests import Stream
from workbench.tactics.numba.scalars import Value
from workbench.tactics.protocol import Launch
from workbench.tactics.scalar_text import Untranslatable


@dataclass(frozen=True)
class Lookup:
    """Rows of a table by index (Gather). table, index: operands by number. rows: of the table."""

    table: int
    index: int
    rows: int


class RowTranslator(Translator):
    """Code of one element of a row; a Gather of whole rows is one more row to read."""

    def __init__(self, body: Body, operands: list[Operand], row: tuple[int, ...]) -> None:
        super().__init__(body, operands)
        self.row = row
        self.lookups: dict[Lookup, None] = {}

    def value(self, name: str) -> Value:
        node = self.producer(name)
        if name not in self.values and node is not None and node.op == "Gather":
            self.values[name] = self._lookup(node)
        return super().value(name)

    def _lookup(self, node: Node) -> Value:
        table, index = (self.body.types[v] for v in node.inputs)
        inputs = {i.name for i in self.body.inputs}
        whole = len(table.shape) == 2 and node.attributes["axis"] % 2 == 0
        if not whole or table.shape[1:] != self.row or not inputs.issuperset(node.inputs):
            raise Untranslatable(f"Gather '{node.outputs[0]}' does not look up whole rows")
        if index.dtype not in (DataType.INT32, DataType.INT64) or not table.shape[0]:
            raise Untranslatable(f"Gather '{node.outputs[0]}' looks up by {index.dtype}")
        name, chosen = node.inputs
        self.operands.append(Operand(chosen, index.dtype, (*index.shape, 1)))
        self.operands.append(Operand(name, table.dtype, self.row, None, table.shape))
        k = len(self.operands) - 1
        self.lookups[Lookup(k, k - 1, table.shape[0])] = None
        self.reads[k] = None
        return Value(f"x{k}", table.dtype, self.body.types[node.outputs[0]].shape)


def row_streams(
    operands: Sequence[Operand], lookups: Sequence[Lookup], unit: Sequence[bool]
) -> list[Stream]:
    """The operands as the kernel runs through them; indices arrive as int64."""
    tables = {x.table: x.index for x in lookups}
    indices = {x.index for x in lookups}
    return [
        Stream(DataType.INT64 if k in indices else o.dtype, u, index=tables.get(k))
        for k, (o, u) in enumerate(zip(operands, unit, strict=True))
    ]


def checked_index(operands: Sequence[Operand], lookup: Lookup, arrays: list[Array]) -> Launch:
    """Puts checked indices, counted from the front, in the place of those that arrive."""
    operand = operands[lookup.index]
    given = arrays[lookup.index]
    counted = np.zeros(given.size, np.int64)
    arrays[lookup.index] = counted
    rows, place = lookup.rows, operands[lookup.table].name

    def launch() -> None:
        np.copyto(counted, given)
        bad = (counted < -rows) | (counted >= rows)
        if bad.any():
            raise ExecutionError(
                f"index {counted[bad][0]} lies outside size {rows}",
                place=f"Gather of '{place}' by '{operand.name}'",
                remedy="give indices inside the table",
            )
        np.add(counted, rows, out=counted, where=counted < 0)

    return launch
