"""Averages over many rows: in two passes, several times as exact, alike on any threads."""

from __future__ import annotations

import numpy as np
import pytest
from onednn_net import Net, check_all

from workbench.records import Refusal
from workbench.tactics.launch import run_once
from workbench.tactics.onednn import averages
from workbench.tactics.onednn.averages import stretches
from workbench.tactics.onednn.parts import Operand
from workbench.tactics.onednn.source import ONEDNN


def mean(net, shape, axes, **attributes):
    x = net.input(shape)
    net.data[x][...] = np.abs(net.data[x])
    return net.op("ReduceMean", x, net.literal(axes, np.int64), anchor=True, **attributes)


def pools(problem):
    offers = [t for t in ONEDNN.candidates(problem) if not isinstance(t, Refusal)]
    return [t for t in offers if t.parameter("primitive") == "pooling"]


def error(net, problem, tactic):
    found = run_once(ONEDNN.prepare(tactic, problem), tactic, problem, net.data)
    (name,) = problem.body.outputs
    exact = problem.body.exact({**net.data, **net.constants})[name][0]
    return np.linalg.norm(found[name] - exact) / np.linalg.norm(exact)


@pytest.mark.parametrize(
    ("shape", "axes", "keepdims"),
    [
        ((1, 48, 13, 13), [2, 3], 1),
        ((2, 24, 10, 16), [2, 3], 0),
        ((2, 196, 40), [1], 0),
        ((3, 20, 10, 24), [1, 2], 1),
    ],
)
def test_every_layout_is_right_to_the_bound_and_twice_alike(shape, axes, keepdims):
    net = Net()
    y = net.op("Relu", mean(net, shape, axes, keepdims=keepdims))
    assert check_all(net, y)


def test_two_passes_are_several_times_as_exact_as_one_chain(monkeypatch):
    net = Net()
    problem = net.problem(mean(net, (1, 64, 13, 13), [2, 3], keepdims=1), threads=1)
    tactic = pools(problem)[0]
    twice = error(net, problem, tactic)
    monkeypatch.setattr(averages, "WORTH_TWO_PASSES", 1000)
    once = error(net, problem, tactic)
    assert twice < 0.6 * once


def test_only_many_rows_that_can_be_cut_go_in_two_passes():
    net = Net()
    rows = net.input((1, 1))
    (given,) = (i.type for i in net.inputs if i.name == rows)
    operand = Operand(given, index=0)
    assert stretches(169, operand) == (13, 13)
    assert stretches(196, operand) == (14, 14)
    assert stretches(64, operand) is None, "few"
    assert stretches(197, operand) is None, "prime"
    assert stretches(206, operand) is None, "two stretches gain little"
