"""Generated CUDA C++ computes what its Body says: run on the host, thread after thread."""

from __future__ import annotations

import numpy as np
import pytest
from host_cuda import run_on_host
from tactic_bodies import BODIES

from workbench.checks import expect
from workbench.datatypes import DataType
from workbench.formats import HWC, LINEAR
from workbench.records import Refusal
from workbench.sampling import sample_inputs
from workbench.tactics.nvrtc.kernels import Variant, kernel, variants
from workbench.tactics.nvrtc.pointwise import followed_layouts


def runnable(body):
    """Variants whose threads do not talk to each other, the first and the last of each layout."""
    offered = variants(body)
    assert not isinstance(offered, Refusal), offered
    alone = [v for v in offered if dict(v.parameters).get("lanes", 1) == 1]
    chosen: dict[tuple[str, int], Variant] = {}
    for v in alone:
        chosen.setdefault((v.layout.name, 0), v)
    for v in reversed(alone):
        chosen.setdefault((v.layout.name, 1), v)
    return dict.fromkeys(chosen.values())


@pytest.mark.parametrize("name", BODIES)
def test_a_kernel_gives_what_the_reference_gives(name):
    body = BODIES[name](2)
    values = sample_inputs(body, seed=0)
    exact = expect(body, values)
    for v in runnable(body):
        text = kernel(body, v)
        if isinstance(text, Refusal):
            continue
        outputs = run_on_host(body, text, values, followed_layouts(body, v.layout), v.layout)
        result = exact.check(outputs)
        assert result.passed, (v.name, v.layout, result.message)


def test_what_the_kernels_refuse_says_why():
    body = BODIES["conv_depthwise"](1)
    refused = [r for v in variants(body) if isinstance(r := kernel(body, v), Refusal)]
    assert {r.reason for r in refused} == {"a tile would cross groups"}
    assert {v.layout for v in variants(body)} == {LINEAR, HWC}


def test_vectors_are_as_wide_as_sixteen_bytes_and_the_innermost_size_allow():
    body = BODIES["pointwise_f32"](2) if "pointwise_f32" in BODIES else BODIES["vector"](2)
    widths = {dict(v.parameters)["vector"] for v in variants(body) if v.layout == LINEAR}
    innermost = body.output_types[0].shape[-1]
    assert 1 in widths
    assert all(innermost % w == 0 and w * DataType.FLOAT.itemsize <= 16 for w in widths)
    assert np.prod(body.output_types[0].shape) > 0
