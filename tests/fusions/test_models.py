"""The trained digits models through Fold, Precision and Fuse: counts, provenance, meaning."""

from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np
import pytest
from sketch import assert_same_network, assert_same_outputs

from workbench import calibration, fusions, passes, precision
from workbench.body import Array
from workbench.bundle import bundled
from workbench.config import BuilderConfig, Calibrator
from workbench.datatypes import DataType
from workbench.network import NetworkDefinition
from workbench.onnx_parser import parse_model
from workbench.records import Attempt, ProgressMonitor
from workbench.rewrite import replay

MODELS = ("digits_cnn", "digits_inception", "digits_vit")


@cache
def images() -> Array:
    with np.load(bundled("datasets", "digits.npz")) as data:
        return data["calibration_images"][:8]


def feeds(network: NetworkDefinition) -> dict[str, Array]:
    return {network.inputs[0].name: images()}


def parsed(model: str) -> NetworkDefinition:
    return parse_model(bundled("datasets", f"{model}.onnx"))


def typed(network: NetworkDefinition, kind: DataType) -> None:
    """Write one precision for every layer into a folded network."""
    config = BuilderConfig()
    config.default_precision = kind
    decisions = precision.resolve(network, config)
    if kind is DataType.INT8:
        tensors = precision.quantizable_tensors(network)

        def run(batch: dict[str, Array], taps: tuple[str, ...]) -> dict[str, Array]:
            values = network.run(batch, keep=True)
            return {t: values[t] for t in taps}

        found = calibration.calibrate(
            tensors, [feeds(network)], run, calibrator=Calibrator.MINMAX, monitor=ProgressMonitor()
        )
        precision.write_qdq(network, decisions, found)
    else:
        precision.write_casts(network, decisions)


def lost(network: NetworkDefinition) -> list[str]:
    kept = {o for x in network.layers for o in x.origin} | set(network.absorbed)
    return [n for n in network.model_nodes if n not in kept]


@cache
def built(model: str, kind: DataType) -> tuple[NetworkDefinition, tuple[Attempt, ...]]:
    network = parsed(model)
    attempts = passes.fold(network)
    typed(network, kind)
    return network, (*attempts, *fusions.fuse(network))


@pytest.mark.parametrize("model", MODELS)
def test_fold_and_fuse_keep_the_outputs_and_replay_to_the_same_network(model: str) -> None:
    network = parsed(model)
    original, again = network.clone(), network.clone()
    folds = passes.fold(network, verify="all")
    network.verify()
    assert_same_outputs(original, network, feeds(network))
    fuses = fusions.fuse(network, verify="all")
    network.verify()
    assert_same_outputs(original, network, feeds(network))
    replay(again, folds, passes.RULES)
    replay(again, fuses, fusions.FUSIONS)
    assert_same_network(network, again)


@pytest.mark.parametrize("kind", [DataType.FLOAT, DataType.BF16, DataType.HALF, DataType.INT8])
@pytest.mark.parametrize("model", MODELS)
def test_every_model_node_is_mapped(model: str, kind: DataType) -> None:
    network, _ = built(model, kind)
    assert network.model_nodes
    assert lost(network) == []


GOLDEN = {
    ("digits_cnn", DataType.FLOAT): 8,
    ("digits_cnn", DataType.BF16): 9,
    ("digits_cnn", DataType.INT8): 9,
    ("digits_inception", DataType.FLOAT): 20,
    ("digits_vit", DataType.FLOAT): 34,
}


@pytest.mark.parametrize(("model", "kind"), GOLDEN)
def test_layer_counts(model: str, kind: DataType) -> None:
    assert built(model, kind)[0].num_layers == GOLDEN[model, kind]


@pytest.mark.parametrize("kind", [DataType.BF16, DataType.HALF, DataType.INT8])
@pytest.mark.parametrize("model", MODELS)
def test_every_product_is_built_in_the_requested_precision(model: str, kind: DataType) -> None:
    network, _ = built(model, kind)
    products = [x for x in network.layers if x.op in precision.QUANTIZABLE]
    wrong = [x.name for x in products if x.precision is not kind]
    assert wrong == []


def test_int8_flows_from_convolution_to_convolution() -> None:
    network, _ = built("digits_cnn", DataType.INT8)
    written = Counter(x.outputs[0].dtype for x in network.layers if x.op == "Conv")
    assert written == {DataType.INT8: 4, DataType.FLOAT: 1}
    assert {x.outputs[0].dtype for x in network.layers if x.op == "MaxPool"} == {DataType.INT8}


def test_every_refusal_has_a_code_and_a_reason() -> None:
    for model in MODELS:
        for attempt in built(model, DataType.INT8)[1]:
            if not attempt.applied:
                assert attempt.refusal.code
                assert attempt.reason
