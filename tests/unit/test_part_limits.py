"""Of a fused layer's part so many tactics are tried as one level lower, below level 4."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tactics"))
from product_bodies import Linear
from tactic_bodies import problem_of

from workbench.config import BuilderConfig
from workbench.devices import CpuDevice
from workbench.selection.candidates import Workshop
from workbench.selection.layer_problem import LayerProblem
from workbench.tactics.numpy_source import NUMPY
from workbench.tactics.protocol import Tactic
from workbench.timing import TimingCache


class Many:
    """NUMPY's first tactic a hundred times."""

    name, device_kind, version = "NUMPY", "cpu", "1"

    def candidates(self, problem):
        offered = next(t for t in NUMPY.candidates(problem) if isinstance(t, Tactic))
        return [replace(offered, parameters=(("place", k),)) for k in range(100)]

    def prepare(self, tactic, problem):
        offered = next(t for t in NUMPY.candidates(problem) if isinstance(t, Tactic))
        return NUMPY.prepare(offered, problem)


@pytest.mark.parametrize(("level", "whole", "piece"), [(1, 4, 4), (2, 8, 4), (3, 24, 8)])
def test_a_part_is_tried_as_one_level_lower_and_says_so(level, whole, piece):
    body = Linear(6, 16, 8).body()
    _, _, values = problem_of(body)
    constants = {i.name: values[i.name] for i in body.inputs if i.constant}
    config = BuilderConfig()
    config.builder_optimization_level = level
    device = CpuDevice()
    for part, limit in ((False, whole), (True, piece)):
        shop = Workshop(device, config, TimingCache(device.fingerprint))
        shop.sources, shop.missing = (Many(),), ()
        layer = LayerProblem("rows", body, (body,), constants, body.compute_type)
        found = shop.candidates(layer, part=part)
        assert sum(c.eligible for c in found) == limit
        untried = found[-1].refusal
        assert untried is not None and f"tries {limit} tactics a source" in untried.reason
        assert ("part" in untried.reason) is part
