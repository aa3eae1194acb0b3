"""Weights packed at build: a plan carries them; only the machine that packed them reads them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from onednn_net import Net, offered

import workbench as wb
from workbench.body import Array
from workbench.builder import BuildState
from workbench.checks import check_outputs
from workbench.tactics.launch import run_once
from workbench.tactics.onednn import preparation
from workbench.tactics.onednn.descriptors import aligned_bytes
from workbench.tactics.onednn.layer import read_layer
from workbench.tactics.onednn.library import Library, load
from workbench.tactics.onednn.parts import Layer
from workbench.tactics.onednn.source import ONEDNN

pytestmark = pytest.mark.skipif(not isinstance(load(), Library), reason="oneDNN is not installed")


@pytest.fixture(scope="module")
def images() -> Array:
    return np.load(wb.bundled("datasets", "digits.npz"))["test_images"][:4]


@pytest.fixture(scope="module")
def build(images: Array) -> BuildState:
    config = wb.BuilderConfig()
    config.builder_optimization_level = 0
    config.set_tactic_sources(("ONEDNN", "NUMPY"))
    profile = wb.OptimizationProfile()
    profile.set_shape("image", (1, 1, 8, 8), images.shape, images.shape)
    config.add_optimization_profile(profile)
    return wb.build(wb.bundled("datasets", "digits_cnn.onnx"), config)


def pack_only_small(real: object) -> object:
    def pack(constant: preparation.Constant, wanted: preparation.MemoryDescriptor) -> object:
        assert wanted.size_bytes < preparation.WORTH_STORING, "weights are packed again"
        return real(constant, wanted)  # pyright: ignore[reportCallIssue]

    return pack


def test_the_plan_carries_packed_weights_beside_the_linear_ones(build: BuildState) -> None:
    plan = wb.Plan.from_bytes(build.plan_bytes)
    assert plan.packed
    assert all(name.partition("/")[2].startswith("weights ") for name in plan.packed)
    assert {s.split("/")[0] for s in plan.packed} <= set(map(str, range(len(plan.steps))))


def test_loading_on_the_same_machine_packs_no_weights(
    build: BuildState, images: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = build.engine().create_execution_context().run({"image": images})
    monkeypatch.setattr(preparation, "pack", pack_only_small(preparation.pack))
    engine = wb.Runtime().deserialize(build.plan_bytes)
    found = engine.create_execution_context().run({"image": images})
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


def test_another_machines_packed_weights_are_not_read(build: BuildState, images: Array) -> None:
    plan = wb.Plan.from_bytes(build.plan_bytes)
    spoiled = {k: np.full_like(v, 0x7F) for k, v in plan.packed.items()}
    other = dataclasses.replace(plan.device, name="another processor")
    moved = dataclasses.replace(plan, packed=spoiled, device=other)
    engine = wb.Runtime().deserialize(moved)
    assert "prepared again" in engine.notes[0]
    found = engine.create_execution_context().run({"image": images})
    expected = build.engine().create_execution_context().run({"image": images})
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


def test_a_damaged_packed_weight_is_found_by_full_verification(build: BuildState) -> None:
    data = bytearray(build.plan_bytes or b"")
    plan = wb.Plan.from_bytes(bytes(data))
    largest = max(plan.packed.values(), key=lambda a: a.nbytes).tobytes()
    data[bytes(data).index(largest) + 5] ^= 1
    with pytest.raises(wb.WorkbenchError, match="SHA-256"):
        wb.Plan.from_bytes(bytes(data))
    assert wb.Plan.from_bytes(bytes(data), verify="lazy").packed


def test_weights_that_are_stored_as_the_kernel_reads_them_are_not_copied():
    net = Net()
    x, w = net.input((128, 64)), net.constant((64, 96))
    problem = net.problem(net.op("Gemm", x, w, anchor=True))
    raw = aligned_bytes(64 * 96 * 4)
    stored = raw.view(np.float32).reshape(64, 96)
    stored[...] = net.constants[w]
    problem = dataclasses.replace(problem, constants={w: stored})
    found = []
    for tactic in offered(problem):
        call = ONEDNN.prepare(tactic, problem)
        found += [a for n, a in call.packed.items() if "weights" in n]
        assert check_outputs(
            problem.body, {**net.data, w: stored}, run_once(call, tactic, problem, net.data)
        )
    assert any(np.shares_memory(a, stored) for a in found)


def test_preparing_an_int8_layer_computes_no_dequantized_weights() -> None:
    net = Net()
    x = net.dequantized(net.input((1, 16, 6, 6), np.int8), 0.02)
    w = net.dequantized(net.constant((32, 16, 3, 3), np.int8), 0.004)
    layer = read_layer(net.problem(net.op("Conv", x, w, anchor=True)))
    assert isinstance(layer, Layer)
    weights = layer.operand(1)
    assert weights is not None
    assert weights.array is not None
    assert weights.array.dtype == np.int8
    assert layer.values == (None, None)
