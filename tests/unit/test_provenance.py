"""Each node of a model is found in a layer, a weight or a pass; each layer names its nodes."""

from __future__ import annotations

from pathlib import Path

import pytest
from engines import build, small_network

from workbench.builder import BuildState
from workbench.bundle import bundled
from workbench.datatypes import DataType
from workbench.network.provenance import provenance
from workbench.records import Stage
from workbench.session import Session, SetDefaultPrecision, SetOption

MODELS = ("digits_cnn", "digits_inception", "digits_vit")
EXPORTS = sorted((Path(__file__).parents[1] / "exports").glob("*.onnx"))
KINDS = (DataType.FLOAT, DataType.BF16, DataType.INT8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", MODELS)
def test_every_node_and_every_layer_is_mapped_after_every_stage(model: str, kind: DataType) -> None:
    path = bundled("datasets", f"{model}.onnx")
    session = Session(path, calibration="random" if kind is DataType.INT8 else None)
    session.do(SetDefaultPrecision(kind), SetOption("builder_optimization_level", 0))
    session.do(*session.suggested_profile())
    state = session.run(Stage.FUSE)
    assert_mapped_both_ways(state)


@pytest.mark.parametrize("path", EXPORTS, ids=lambda p: p.stem)
def test_every_node_of_an_export_is_mapped_after_every_stage(path: Path) -> None:
    session = Session(path)
    session.do(*session.suggested_profile())
    assert_mapped_both_ways(session.run(Stage.FUSE))


def assert_mapped_both_ways(state: BuildState) -> None:
    """After each stage, nodes name their layers and layers their nodes, and nothing is lost."""
    for stage, network in state.networks.items():
        assert network.model_nodes
        found = provenance(network)
        assert found.unmapped == (), stage
        assert all(found.of(n) for n in network.model_nodes)
        assert all(found.of(x.name) for x in network.layers), stage
        for node, layers in found.nodes.items():
            assert all(node in found.layers[x] for x in layers)
        for layer, nodes in found.layers.items():
            assert all(layer in found.nodes[n] for n in nodes)


def test_the_plan_carries_the_same_map() -> None:
    state = build(network=small_network())
    found = provenance(state.network)
    steps = {s.name: s.origin for s in state.plan.steps if s.type != "REFORMAT"}
    assert steps == found.layers
    mapped = {n for nodes in steps.values() for n in nodes} | set(state.plan.absorbed)
    assert mapped >= set(state.network.model_nodes)


def test_a_network_made_by_hand_is_mapped_too() -> None:
    state = build(network=small_network())
    found = provenance(state.network)
    assert found.unmapped == ()
    assert found.of("inner") == found.of("join_relu")
