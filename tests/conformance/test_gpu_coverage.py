"""Every layer of ONNX's backend suite has a generated GPU kernel, or a reason for the host."""

from __future__ import annotations

import pytest
from backend_cases import all_cases, known_sizes, model_of

from workbench.body import Body, HostType
from workbench.builder import run_stages, start
from workbench.config import BuilderConfig, OptimizationProfile
from workbench.dimensions import is_static
from workbench.records import Refusal, Stage
from workbench.reports.support_gpu import HOST_ON_GPU
from workbench.selection.tuning import later_symbols
from workbench.tactics.nvrtc.kernels import kernel, variants
from workbench.tactics.parts import split

REFUSED = {"Div", "Mod"}
"""Of integers, by what may be 0: the reference stops there, and a kernel cannot."""


def refusal(body: Body) -> str:
    """Why NVRTC has no kernel for a Body, or for one of its parts; empty where it has."""
    own = _refusal(body)
    if not own or len(body.operator_names) == 1:
        return own
    return next((r for p in split(body) if (r := _refusal(p.body))), "")


def _refusal(body: Body) -> str:
    offered = variants(body)
    if isinstance(offered, Refusal):
        return str(offered)
    reasons = [t if isinstance(t := kernel(body, v), Refusal) else None for v in offered]
    return "" if None in reasons else str(reasons[0])


def bodies(name: str) -> dict[str, Body]:
    """What a case's layers are on a GPU, by signature; without those that the host runs."""
    case = all_cases()[name]
    case = known_sizes(case) or case
    config = BuilderConfig()
    config.builder_optimization_level, config.verify = 0, "none"
    data = case.data_sets[0][0] if case.data_sets else ()
    model = model_of(case).SerializeToString()
    parsed = run_stages(start(model, config), until=Stage.PARSE).network
    profile = OptimizationProfile()
    for t, v in zip(parsed.inputs, data, strict=False):
        if not isinstance(t.type, HostType) and not is_static(t.shape):
            profile.set_shape(t.name, v.shape, v.shape, v.shape)
    config.optimization_profiles = (profile,)
    network = run_stages(start(model, config), until=Stage.FUSE).network
    sizes = {**dict.fromkeys(later_symbols(network), 8), **profile.bindings(network, 1)}
    bound = (x.body.substitute(sizes) for x in network.layers if not x.on_host)
    return {b.signature: b for b in bound}


@pytest.mark.slow
def test_only_what_the_table_names_has_no_gpu_kernel():
    left: dict[str, tuple[str, str]] = {}
    seen: set[str] = set()
    for name in all_cases():
        if name.startswith("simple/test_gradient") or name.endswith("_expanded"):
            continue
        for signature, body in bodies(name).items():
            if signature not in seen and (reason := refusal(body)):
                left.update((op, (name, reason)) for op in body.operator_names)
            seen.add(signature)
    assert left.keys() & REFUSED == REFUSED
    assert left.keys() - REFUSED <= HOST_ON_GPU.keys(), left
