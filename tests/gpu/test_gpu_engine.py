"""The same stages on an NVIDIA GPU. Skipped, with the reason, where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from workbench.builder import build
from workbench.bundle import bundled
from workbench.config import BuilderConfig, BuilderFlag, OptimizationProfile
from workbench.datatypes import DataType
from workbench.reports import classification_accuracy

pytestmark = pytest.mark.gpu
KINDS = (DataType.FLOAT, DataType.HALF)


@pytest.fixture(scope="module")
def digits():
    return dict(np.load(bundled("datasets", "digits.npz")))


@pytest.fixture(scope="module")
def states():
    found = {}
    for kind in KINDS:
        config = BuilderConfig()
        config.default_precision = kind
        config.verify = "all"
        config.clear_flag(BuilderFlag.TF32)
        config.add_optimization_profile(
            OptimizationProfile().set_shape("image", (1, 1, 8, 8), (32, 1, 8, 8), (64, 1, 8, 8))
        )
        found[kind] = build(bundled("datasets", "digits_cnn.onnx"), config, device="gpu")
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_tactic_that_runs_was_checked_within_the_bound(states, kind):
    for choice in states[kind].tuned.layers:
        assert choice.winner.worst is not None and choice.winner.worst <= 1.0, choice.layer
        assert choice.requested is choice.built is choice.executed


@pytest.mark.parametrize("kind", KINDS)
def test_the_engine_classifies_as_the_reference_does(states, kind, digits):
    engine = states[kind].engine()
    accuracy = classification_accuracy(engine, digits["test_images"], digits["test_labels"])
    assert accuracy >= 98.0


@pytest.mark.parametrize("kind", KINDS)
def test_graph_replay_gives_what_single_launches_give_at_every_batch(states, kind, digits):
    engine = states[kind].engine()
    replayed, single = engine.create_execution_context(), engine.create_execution_context()
    single.use_graph = False
    for batch in (1, 7, 32, 64):
        x = {"image": digits["test_images"][:batch]}
        first = replayed.run(x)["logits"]
        assert first.tobytes() == replayed.run(x)["logits"].tobytes()
        assert first.tobytes() == single.run(x)["logits"].tobytes()
        reference = states[kind].network.run(x)["logits"]
        tolerance = 1e-4 if kind is DataType.FLOAT else 2e-2
        assert np.abs(first - reference).max() <= tolerance * np.abs(reference).max()


@pytest.mark.parametrize("kind", KINDS)
def test_two_input_addresses_and_a_callers_stream_give_the_same_outputs(states, kind, digits):
    import cupy

    engine = states[kind].engine()
    context = engine.create_execution_context()
    images = digits["test_images"][:32]
    expected = context.run({"image": images})["logits"]
    stream = cupy.cuda.Stream(non_blocking=True)
    context.set_input_shape("image", images.shape)
    for _ in range(2):
        source, target = cupy.asarray(images.copy()), cupy.zeros((32, 10), cupy.float32)
        cupy.cuda.Stream.null.synchronize()
        context.set_tensor_address("image", source)
        context.set_tensor_address("logits", target.data.ptr)
        context.execute_async_v3(stream.ptr)
        stream.synchronize()
        assert cupy.asnumpy(target).tobytes() == expected.tobytes()


def test_a_second_build_times_nothing_and_gives_the_same_bytes(states):
    first = states[DataType.FLOAT]
    config = first.config.clone()
    config.timing_cache = first.cache
    again = build(bundled("datasets", "digits_cnn.onnx"), config, device="gpu")
    assert again.tuned.timed == 0
    assert again.plan_bytes == first.plan_bytes
