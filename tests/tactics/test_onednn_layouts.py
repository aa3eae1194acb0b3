"""oneDNN's own layout, on a processor without AVX-512: it takes part in the choice of layouts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import workbench
from workbench.body import TensorType
from workbench.datatypes import DataType
from workbench.formats import CHW16, HWC, LINEAR
from workbench.records import Refusal
from workbench.tactics.numba.source import NUMBA
from workbench.tactics.onednn.layouts import CHW8, has_tag, own
from workbench.tactics.onednn.source import ONEDNN

pytestmark = pytest.mark.skipif(
    ONEDNN.unavailable() is not None, reason="the wheel onednn-cpu-gomp is for Linux x86-64"
)

PROGRAM = """
import numpy as np
import workbench as wb
from onednn_net import Net, check_all
from workbench.tactics.onednn.layouts import CHW8

net = Net()
x, w = net.input((1, 24, 9, 9)), net.constant((40, 24, 3, 3), scale=0.1)
tactics = check_all(net, net.op("Relu", net.op("Conv", x, w, anchor=True, pads=(1, 1, 1, 1))))
print("inputs", any(CHW8 in t.inputs for t in tactics))
print("outputs", any(CHW8 in t.outputs for t in tactics))
net = Net()
pooled = net.op("MaxPool", net.input((1, 20, 8, 8)), anchor=True, kernel_shape=(2, 2))
print("pools", any(t.inputs == (CHW8,) for t in check_all(net, pooled)))

network = wb.Builder().create_network("two")
image = network.add_input("image", wb.DataType.FLOAT, (1, 32, 9, 9))
for k in range(2):
    rng = np.random.default_rng(k)
    w = (rng.standard_normal((32, 32, 3, 3)) / 24).astype(np.float32)
    layer = network.add_convolution_nd(image, 32, (3, 3), w)
    layer.padding_nd = (1, 1)
    image = layer.get_output(0)
network.mark_output(image)
config = wb.BuilderConfig()
config.set_tactic_sources(("ONEDNN",))
config.builder_optimization_level = 2
build = wb.build(network, config)
able = [c for x in build.tuned.layers for c in x.candidates if c.eligible and c.tactic]
print("selection", any(CHW8 in c.tactic.outputs for c in able))
"""


def test_a_processor_without_avx512_is_offered_blocks_of_eight_channels():
    folders = (Path(__file__).parent, Path(workbench.__file__).parents[1])
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={
            **os.environ,
            "ONEDNN_MAX_CPU_ISA": "AVX2",
            "PYTHONPATH": os.pathsep.join(map(str, folders)),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    lines = dict(line.split(" ", 1) for line in found.stdout.splitlines())
    assert lines == dict.fromkeys(("inputs", "outputs", "pools", "selection"), "True")


def test_only_onednn_rewrites_its_own_layout():
    type_ = TensorType(DataType.FLOAT, (1, 24, 5, 5))
    assert not isinstance(ONEDNN.reformat(type_, LINEAR, CHW8), Refusal)
    assert isinstance(NUMBA.reformat(type_, LINEAR, CHW8), Refusal)
    assert has_tag(CHW8, 4) and not has_tag(CHW8, 2)
    assert own(HWC) == HWC and own(CHW16) in (CHW16, CHW8)
