"""What PyTorch exports with free batch and sequence axes runs as ONNX Runtime runs it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from workbench.body import Array
from workbench.builder import BuildState, build
from workbench.config import BuilderConfig, OptimizationProfile
from workbench.records import Stage
from workbench.runtime import ExecutionContext

FOLDER = Path(__file__).parent
Shapes = Mapping[str, tuple[int, ...]]


def words(batch: int, tokens: int) -> Shapes:
    return {"input_ids": (batch, tokens)}


def masked_words(batch: int, tokens: int) -> Shapes:
    return dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), (batch, tokens))


def words_after_a_cache(batch: int, tokens: int) -> Shapes:
    """A third of the tokens is new; the cache holds the others."""
    new = (tokens + 2) // 3
    caches = (f"past_{kind}_{layer}" for kind in ("key", "value") for layer in (0, 1))
    return {"input_ids": (batch, new), **dict.fromkeys(caches, (batch, 2, tokens - new, 12))}


def images(batch: int, patches: int) -> Shapes:
    return {"image": (batch, 3, 4 * patches, 4 * patches + 4)}


def images_of_one_size(batch: int, _: int) -> Shapes:
    return {"image": (batch, 3, 24, 24)}


MODELS = {
    "resnet": images,
    "vit": images_of_one_size,
    "vit_any_size": images,
    "bert": masked_words,
    "gpt": words,
    "gpt_rotary": words,
    "gpt_cached": words_after_a_cache,
}
SIZES = ((1, 1), (1, 7), (3, 7), (4, 16))
"""Batches and lengths that are run: the profile's ends, and two that no tactic was made for."""


def configured(model: str) -> BuilderConfig:
    """One thread, no timing; batches of 1 to 4, lengths of 1 to 16."""
    config = BuilderConfig()
    config.builder_optimization_level = 0
    config.num_threads = 1
    profile = OptimizationProfile()
    shapes = [MODELS[model](*size) for size in ((1, 1), (2, 8), (4, 16))]
    for name in shapes[0]:
        profile.set_shape(name, *(s[name] for s in shapes))
    config.add_optimization_profile(profile)
    return config


@cache
def built(model: str) -> BuildState:
    return build(FOLDER / f"{model}.onnx", configured(model))


@cache
def engine(model: str) -> ExecutionContext:
    return built(model).engine().create_execution_context()


def feeds(model: str, batch: int, length: int) -> dict[str, Array]:
    rng = np.random.default_rng(batch * 100 + length)
    given: dict[str, Array] = {}
    for name, shape in MODELS[model](batch, length).items():
        if name == "attention_mask":
            lengths = rng.integers(1, length + 1, (batch, 1))
            given[name] = (np.arange(length) < lengths).astype(np.int64)
        elif name.endswith("_ids"):
            given[name] = rng.integers(0, 2 if name == "token_type_ids" else 200, shape)
        else:
            given[name] = rng.standard_normal(shape).astype(np.float32)
    return given


@cache
def peer(model: str) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(
        FOLDER / f"{model}.onnx", providers=["CPUExecutionProvider"]
    )


@pytest.mark.parametrize(("batch", "length"), SIZES)
@pytest.mark.parametrize("model", MODELS)
def test_an_export_runs_as_in_onnx_runtime(model: str, batch: int, length: int) -> None:
    given = feeds(model, batch, length)
    want = peer(model).run(None, given)
    got = engine(model).run(given)
    assert list(got) == [o.name for o in peer(model).get_outputs()]
    for ours, theirs in zip(got.values(), map(np.asarray, want), strict=True):
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max(initial=0))


@pytest.mark.parametrize("model", MODELS)
def test_every_node_of_an_export_is_in_a_layer_or_told_where_it_went(model: str) -> None:
    network = built(model).networks[Stage.FUSE]
    found = {o for layer in network.layers for o in layer.origin} | set(network.absorbed)
    assert set(network.model_nodes) <= found


@pytest.mark.parametrize("model", MODELS)
def test_an_export_runs_on_its_device_alone(model: str) -> None:
    """Every size follows from the inputs' sizes, so that nothing waits for the host."""
    plan = built(model).plan
    assert plan is not None
    assert not plan.is_late


@pytest.mark.slow
@pytest.mark.parametrize("model", ["resnet", "bert", "gpt_rotary"])
def test_a_second_build_from_the_same_timings_gives_the_same_bytes(model: str) -> None:
    config = configured(model)
    config.builder_optimization_level = 1
    config.avg_timing_iterations = 2
    first = build(FOLDER / f"{model}.onnx", config)
    config.set_timing_cache(first.cache)
    assert build(FOLDER / f"{model}.onnx", config).sha256 == first.sha256
    given = feeds(model, 2, 5)
    want = np.asarray(peer(model).run(None, given)[0])
    (got, *_) = first.engine().create_execution_context().run(given).values()
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * np.abs(want).max())
