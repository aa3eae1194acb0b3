"""Means over rows: in every layout and type, as exact as float32 can be, in any threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tactic_bodies import BF16, FLOAT, INT8, Draft, problem_of

from workbench.body import Body
from workbench.checks import bit_equal, check_outputs
from workbench.datatypes import DataType
from workbench.formats import HWC, LINEAR
from workbench.records import Refusal
from workbench.tactics.launch import run_once
from workbench.tactics.numba import NUMBA
from workbench.tactics.protocol import Call, Problem, Tactic


def mean(
    shape: tuple[int, ...],
    axes: list[int],
    *,
    keepdims: int = 0,
    dtype: DataType = FLOAT,
    after: Any = None,
) -> Body:
    d = Draft()
    x = d.input(*shape, dtype=dtype)
    y = d.anchored("ReduceMean", x, d.literal(axes, "int64"), keepdims=keepdims)
    return d.body(after(d, y) if after else y)


def everywhere(*shape: int) -> Body:
    d = Draft()
    return d.body(d.anchored("GlobalAveragePool", d.input(*shape)))


def tactic_of(problem: Problem) -> Tactic:
    offers = NUMBA.candidates(problem)
    return next(o for o in offers if isinstance(o, Tactic) and o.name == "means")


def prepared(problem: Problem) -> tuple[Call, Tactic]:
    tactic = tactic_of(problem)
    call = NUMBA.prepare(tactic, problem)
    assert isinstance(call, Call), call
    return call, tactic


FORMS = {
    "images": lambda: mean((1, 48, 13, 13), [2, 3]),
    "images, sizes kept": lambda: mean((2, 24, 5, 6), [-2, -1], keepdims=1),
    "images, everywhere": lambda: everywhere(2, 40, 7, 7),
    "images of fewer rows than are added at once": lambda: mean((2, 40, 1, 3), [2, 3]),
    "many channels": lambda: mean((1, 1000, 3, 3), [2, 3]),
    "channels of a prime": lambda: mean((2, 257, 3, 3), [2, 3]),
    "tokens": lambda: mean((2, 19, 40), [1]),
    "the first axis": lambda: mean((9, 6, 5), [0], keepdims=1),
    "half as wide": lambda: mean((1, 48, 7, 7), [2, 3], dtype=BF16),
    "and what follows": lambda: mean(
        (2, 24, 6, 6), [2, 3], after=lambda d, y: d("Relu", d("Add", y, d.literal(-0.01)))
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_right_and_the_same_in_two_threads(name: str) -> None:
    body = FORMS[name]()
    found = []
    for threads in (1, 2):
        problem, dynamic, values = problem_of(body, threads=threads)
        call, tactic = prepared(problem)
        outputs = run_once(call, tactic, problem, dynamic)
        result = check_outputs(body, values, outputs)
        assert result, result.message
        found.append(outputs)
    assert bit_equal(*found)


@pytest.mark.parametrize(("shape", "axes"), [((1, 64, 56, 56), [2, 3]), ((1, 3000, 64), [1])])
def test_a_mean_of_thousands_is_rounded_once(shape: tuple[int, ...], axes: list[int]) -> None:
    problem, dynamic, _ = problem_of(mean(shape, axes))
    (name,) = dynamic
    dynamic[name][...] = np.abs(dynamic[name])
    call, tactic = prepared(problem)
    (found,) = run_once(call, tactic, problem, dynamic).values()
    exact = dynamic[name].astype(np.float64).mean(tuple(axes))
    assert np.all(np.abs(found - exact) <= np.abs(exact) * 2**-24)


def test_images_are_read_with_their_channels_innermost_and_rows_where_they_lie() -> None:
    for body, layout in ((mean((1, 8, 4, 4), [2, 3]), HWC), (mean((2, 6, 8), [1]), LINEAR)):
        tactic = tactic_of(problem_of(body)[0])
        assert (tactic.inputs, tactic.outputs) == ((layout,), (LINEAR,))


@pytest.mark.parametrize(
    "body",
    [
        mean((2, 6, 8), [2]),
        mean((2, 6, 8, 3), [0, 2]),
        mean((2, 6, 8), [1], dtype=INT8),
        mean((2, 6, 8), [1], after=lambda d, y: d("Add", y, d.weight(8))),
    ],
    ids=["innermost", "apart", "bytes", "an operand of several numbers"],
)
def test_what_is_no_mean_of_rows_is_left_to_other_kernels(body: Body) -> None:
    offers = NUMBA.candidates(problem_of(body)[0])
    assert not any(isinstance(o, Tactic) and o.name == "means" for o in offers)
    assert any(isinstance(o, (Refusal, Tactic)) for o in offers)
