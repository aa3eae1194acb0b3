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
RUN = {
    "CUDNN": {"resnet_3x3", "resnet_1x1", "resnet_1x1_residual", "linear", "attention"},
    "CUBLAS_LT": {
        "resnet_1x1",
        "resnet_1x1_residual",
        "linear",
        "linear_residual",
        "fp8_linear_halves",
    },
}
"""Bodies that a source must run; of the others it may refuse any tactic, with its reason."""


@pytest.fixture(scope="module", params=RUN)
def source(request):
    return request.param


@pytest.fixture(scope="module")
def shop(source):
    from workbench.gpu_device import GpuDevice

    device = GpuDevice()
    config = BuilderConfig()
    config.max_num_tactics = TACTICS
    config.tactic_sources = (source,)
    made = Workshop(device, config.frozen(), TimingCache(device.fingerprint))
    assert source in made.order, made.missing
    return made


@pytest.mark.parametrize("name", LIBRARY_BODIES)
def test_no_tactic_gives_a_wrong_result_and_what_must_run_runs(shop, source, name):
    body = LIBRARY_BODIES[name](2)
    values = sample_inputs(body, seed=1)
    constants = {i.name: values[i.name] for i in body.inputs if i.constant}
    layer = LayerProblem(name, body, (body,), constants, body.compute_type)
    found = [c for c in shop.candidates(layer) if c.source == source]
    assert found
    for c in found:
        if c.refusal is not None:
            said = f"{c.title}: {c.refusal.reason}"
            assert c.refusal.reason and c.refusal.code != "quarantined", said
        else:
            assert c.worst is not None and c.worst <= 1.0, c.title
            assert c.tactic is not None and c.tactic.precision is body.compute_type, c.title
    if name in RUN[source]:
        assert any(c.eligible for c in found), [(c.title, c.refusal) for c in found]
