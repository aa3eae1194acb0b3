"""CUDNN's and CUBLAS_LT's tactics on an NVIDIA GPU: within the selection's bound, repeatable."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from workbench.checks import sample_inputs
from workbench.config import BuilderConfig
from workbench.selection.candidates import Workshop
from workbench.selection.layer_problem import LayerProblem
from workbench.timing import TimingCache

sys.path.insert(0, str(Path(__file__).parents[1] / "tactics"))
from library_bodies import LIBRARY_BODIES

pytestmark = pytest.mark.gpu
TACTICS = 6


@pytest.fixture(scope="module", params=["CUDNN", "CUBLAS_LT"])
def shop(request):
    from workbench.gpu_device import GpuDevice

    device = GpuDevice()
    config = BuilderConfig()
    config.max_num_tactics = TACTICS
    config.tactic_sources = (request.param,)
    return Workshop(device, config.frozen(), TimingCache(device.fingerprint))


@pytest.mark.parametrize("name", LIBRARY_BODIES)
def test_every_tactic_passes_its_check_or_is_refused_with_its_reason(shop, name):
    body = LIBRARY_BODIES[name](2)
    values = sample_inputs(body, seed=1)
    constants = {i.name: values[i.name] for i in body.inputs if i.constant}
    found = shop.candidates(LayerProblem(name, body, (body,), constants, body.compute_type))
    assert found
    for c in found:
        assert c.eligible or (c.refusal and c.refusal.reason)
        if c.eligible:
            assert c.worst is not None and c.worst <= 1.0
            assert c.tactic is not None and c.tactic.precision is body.compute_type
