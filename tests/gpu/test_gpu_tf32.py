"""TF32 on an NVIDIA GPU: within its own bound where the flag allows it, else not at all."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from workbench.checks import sample_inputs
from workbench.config import BuilderConfig, BuilderFlag
from workbench.selection.candidates import Workshop
from workbench.selection.layer_problem import LayerProblem
from workbench.timing import TimingCache

sys.path.insert(0, str(Path(__file__).parents[1] / "tactics"))
from library_bodies import LIBRARY_BODIES

pytestmark = pytest.mark.gpu
SOURCES = {
    "CUDNN": ("resnet_float", "linear_relu_float", "batched_float"),
    "CUBLAS_LT": ("linear_relu_float", "batched_float"),
    "TRITON": ("resnet_float", "linear_relu_float", "batched_float"),
}


def tried(source: str, name: str, *, tf32: bool):
    from workbench.gpu_device import GpuDevice

    device, config = GpuDevice(), BuilderConfig()
    config.tactic_sources = (source,)
    config.max_num_tactics = 24
    if not tf32:
        config.clear_flag(BuilderFlag.TF32)
    shop = Workshop(device, config.frozen(), TimingCache(device.fingerprint))
    body = LIBRARY_BODIES[name](2)
    values = sample_inputs(body, seed=1)
    constants = {i.name: values[i.name] for i in body.inputs if i.constant}
    layer = LayerProblem(name, body, (body,), constants, body.compute_type)
    return [c for c in shop.candidates(layer) if c.source == source and c.tactic is not None]


@pytest.mark.parametrize(
    ("source", "name"), [(s, n) for s, names in SOURCES.items() for n in names]
)
def test_tf32_is_right_where_it_is_allowed_and_absent_where_not(source, name):
    allowed = tried(source, name, tf32=True)
    assert any(c.eligible and c.tactic.tf32 for c in allowed), [str(c.refusal) for c in allowed]
    for c in (*allowed, *tried(source, name, tf32=False)):
        assert c.refusal is None or c.refusal.code != "quarantined", f"{c.title}: {c.refusal}"
    assert not any(c.tactic.tf32 for c in tried(source, name, tf32=False))
