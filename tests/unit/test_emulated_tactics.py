"""An emulated kernel is not tried where one of the built type's own arithmetic has passed."""

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
from workbench.selection.candidates import COMPILES_ANYWAY_LEVEL, Workshop
from workbench.selection.layer_problem import LayerProblem
from workbench.tactics.numpy_source import NUMPY
from workbench.tactics.protocol import Tactic
from workbench.timing import TimingCache


class Source:
    """NUMPY's first tactic under another source's name; counts what is prepared."""

    device_kind = "cpu"
    version = "1"

    def __init__(self, name, *, emulated):
        self.name, self.emulated, self.prepared = name, emulated, 0

    def candidates(self, problem):
        offered = next(t for t in NUMPY.candidates(problem) if isinstance(t, Tactic))
        return (replace(offered, source=self.name, emulated=self.emulated),)

    def prepare(self, tactic, problem):
        self.prepared += 1
        return NUMPY.prepare(tactic, problem)


@pytest.mark.parametrize(
    ("first_emulated", "level", "tried"),
    [(False, 1, False), (True, 1, True), (False, COMPILES_ANYWAY_LEVEL, True)],
)
def test_an_emulated_kernel_is_tried_where_no_native_one_runs_or_all_is_asked_for(
    first_emulated, level, tried
):
    body = Linear(6, 16, 8).body()
    _, _, values = problem_of(body)
    constants = {i.name: values[i.name] for i in body.inputs if i.constant}
    device = CpuDevice()
    config = BuilderConfig()
    config.builder_optimization_level = level
    shop = Workshop(device, config, TimingCache(device.fingerprint))
    first = Source("NUMPY", emulated=first_emulated)
    second = Source("ONEDNN", emulated=True)
    shop.sources, shop.missing = (first, second), ()
    layer = LayerProblem("rows", body, (body,), constants, body.compute_type)
    one, other = shop.candidates(layer)
    assert first.prepared and one.eligible
    assert bool(second.prepared) is tried
    if not first_emulated:
        assert other.refusal is not None and other.refusal.code == "emulated"
        assert ("not tried" in other.refusal.reason) is not tried
