"""Rows that several blocks share: run on the host, block after block."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from host_cuda import run_on_host
from tactic_bodies import Draft

from workbench.body import Body
from workbench.checks import expect
from workbench.datatypes import DataType
from workbench.formats import LINEAR
from workbench.records import Refusal
from workbench.sampling import sample_inputs
from workbench.tactics.nvrtc.frame import KernelText
from workbench.tactics.nvrtc.kernels import kernel, variants
from workbench.tactics.nvrtc.row_loops import Shape
from workbench.tactics.nvrtc.rows import LONG, row_shapes, rows_kernel

REDUCTIONS = (
    *("ReduceSum", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp"),
    *("ReduceMax", "ReduceMin", "ReduceProd"),
)
ROWS = ("Softmax", "LogSoftmax", "LpNormalization")
PLACES = ("ArgMax", "ArgMin")


def reduction(op: str, shape: tuple[int, ...], axes: list[int], kind=DataType.FLOAT) -> Body:
    """A reduction after a function of each element, and before one of its result."""
    d = Draft()
    x = d("Tanh", d.input(*shape, dtype=kind))
    y = d.anchored(op, x, d.literal(axes, "int64"), keepdims=0)
    return d.body(d("Mul", y, d.literal(0.5, kind.numpy)))


def row_wise(op: str) -> Body:
    d = Draft()
    return d.body(d("Relu", d.anchored(op, d.input(3, 23), axis=-1)))


def layer_norm() -> Body:
    d = Draft()
    x, scale, bias = d.input(3, 4, 6), d.weight(4, 6), d.weight(4, 6)
    return d.body(d.anchored("LayerNormalization", x, scale, bias, axis=1))


def spread(body: Body, **given: int) -> Shape:
    """Its rows, spread so."""
    shapes = row_shapes(body)
    assert not isinstance(shapes, Refusal), shapes
    return replace(shapes[0], **given)


def check(body: Body, shape: Shape, *, together: bool = False) -> KernelText:
    values = sample_inputs(body, seed=0)
    text = rows_kernel(body, shape)
    assert isinstance(text, KernelText), text
    layouts = {i.name: LINEAR for i in body.inputs}
    found = run_on_host(body, text, values, layouts, LINEAR, together=together)
    result = expect(body, values).check(found)
    assert result.passed, result.message
    return text


@pytest.mark.parametrize("op", REDUCTIONS)
@pytest.mark.parametrize(("parts", "vector"), [(1, 1), (3, 1), (4, 2), (9, 1)])
def test_a_reduction_in_parts_is_that_of_the_whole_row(op: str, parts: int, vector: int):
    text = check(
        reduction(op, (3, 22), [1]),
        spread(reduction(op, (3, 22), [1]), lanes=1, vector=vector, parts=parts),
    )
    values = 2 if op == "ReduceLogSumExp" else 1
    assert len(text.launches) == (1 if parts == 1 else values + 1)
    assert text.grid == 3 * parts


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("axes", [[0], [0, 2], [1, 2]])
def test_a_row_may_lie_across_the_memory(axes: list[int], parts: int):
    body = reduction("ReduceSum", (5, 3, 7), axes)
    check(body, spread(body, lanes=1, vector=1, parts=parts))


@pytest.mark.parametrize("kind", [DataType.HALF, DataType.DOUBLE, DataType.INT32])
def test_other_types_are_summed_in_parts_as_in_one(kind: DataType):
    d = Draft()
    x = d.input(2, 24, dtype=kind)
    body = d.body(d.anchored("ReduceSum", x, d.literal([1], "int64"), keepdims=1))
    check(body, spread(body, lanes=1, vector=2, parts=5))


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("op", ROWS)
def test_what_is_written_for_each_element_follows_the_whole_row(op: str, parts: int):
    check(row_wise(op), spread(row_wise(op), lanes=1, vector=1, parts=parts))


@pytest.mark.parametrize("parts", [1, 4])
def test_a_norm_in_parts_is_that_of_the_whole_row(parts: int):
    text = check(layer_norm(), spread(layer_norm(), lanes=1, vector=2, parts=parts))
    assert len(text.launches) == (1 if parts == 1 else 3)


@pytest.mark.parametrize("op", PLACES)
@pytest.mark.parametrize("last", [0, 1])
def test_the_first_or_last_of_equal_elements_is_found_across_parts(op: str, last: int):
    d = Draft()
    given = {"axis": 1, "keepdims": 0, "select_last_index": last}
    body = d.body(d.anchored(op, d.input(3, 21), **given))
    text = rows_kernel(body, spread(body, lanes=1, vector=1, parts=4))
    assert isinstance(text, KernelText), text
    x = np.random.default_rng(0).integers(0, 3, (3, 21)).astype(np.float32)
    x[2, 7] = np.nan
    (name,) = body.outputs
    found = run_on_host(body, text, {body.inputs[0].name: x}, {body.inputs[0].name: LINEAR}, LINEAR)
    np.testing.assert_array_equal(found[name], body.evaluate({body.inputs[0].name: x})[name])


@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMax", "ReduceLogSumExp"])
def test_threads_of_a_block_join_what_they_found(op: str):
    body = reduction(op, (2, 300), [1])
    for parts in (1, 2):
        check(body, spread(body, lanes=64, vector=1, parts=parts), together=True)


@pytest.mark.parametrize(
    ("rows", "length", "parts"), [(1, 1 << 20, 256), (64, 100_000, 4), (1000, 70_000, 1)]
)
def test_a_row_beyond_registers_is_shared_by_as_many_blocks_as_keep_a_gpu_busy(
    rows: int, length: int, parts: int
):
    d = Draft()
    y = d.anchored("ReduceSum", d.input(rows, length), d.literal([1], "int64"), keepdims=0)
    offered = variants(d.body(y))
    assert not isinstance(offered, Refusal), offered
    assert dict(offered[0].parameters)["parts"] == parts
    assert all(v.name.startswith("long rows") for v in offered)
    text = kernel(d.body(y), offered[0])
    assert isinstance(text, KernelText)
    assert text.grid == rows * parts and text.block > 1


def test_a_row_that_fits_registers_is_offered_both_ways():
    d = Draft()
    body = d.body(d.anchored("ReduceMax", d.input(4, LONG), d.literal([1], "int64"), keepdims=0))
    names = {v.name.split()[0] for v in variants(body)}
    assert names == {"long", "rows"}


def test_places_of_computed_elements_are_not_looked_for_twice():
    """Computed again, one might differ from the largest by a rounding, and never be found."""
    d = Draft()
    body = d.body(d.anchored("ArgMax", d("Exp", d.input(2, 1 << 17)), axis=1, keepdims=0))
    offered = variants(body)
    assert not isinstance(offered, Refusal), offered
    assert all(v.name.startswith("elements") for v in offered)
