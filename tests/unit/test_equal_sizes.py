"""Sizes that a model names apart become one where a layer needs them equal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from workbench.builder import build
from workbench.config import BuilderConfig, OptimizationProfile
from workbench.errors import ConfigError, ParserError
from workbench.network import NetworkDefinition
from workbench.onnx_parser import parse_model

Sizes = Sequence[int | str]


def model(
    nodes: Sequence[NodeProto],
    inputs: Mapping[str, Sizes],
    constants: Mapping[str, np.ndarray[Any, Any]] | None = None,
) -> bytes:
    """A model of float inputs whose output is ``y``."""
    graph = helper.make_graph(
        list(nodes),
        "sizes",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(a, n) for n, a in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString()


def shapes(network: NetworkDefinition) -> dict[str, str]:
    return {t.name: str(t.shape) for t in (*network.inputs, *network.outputs)}


def test_the_inner_sizes_of_a_product_are_one() -> None:
    nodes = [helper.make_node("MatMul", ["a", "b"], ["y"])]
    network = parse_model(model(nodes, {"a": ("n", "k"), "b": ("l", "m")}))
    assert shapes(network) == {"a": "(n, k)", "b": "(k, m)", "y": "(n, m)"}
    assert network.symbols == ("n", "k", "m")


def test_a_free_size_that_a_weight_meets_is_a_number() -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Relu", ["c"], ["y"])]
    kernel = np.ones((4, 3, 1, 1), np.float32)
    network = parse_model(model(nodes, {"x": ("n", "c", "h", "w")}, {"w": kernel}))
    assert shapes(network) == {"x": "(n, 3, h, w)", "y": "(n, 4, h, w)"}


def test_what_is_joined_agrees_on_the_other_axes() -> None:
    nodes = [
        helper.make_node("Concat", ["a", "b"], ["ab"], axis=-1),
        helper.make_node("Concat", ["c", "ab"], ["y"], axis=1),
    ]
    given = {"a": ("n", "i"), "b": ("m", "j"), "c": ("k", 2)}
    assert shapes(parse_model(model(nodes, given))) == {
        "a": "(n, i)",
        "b": "(n, j)",
        "c": "(n, 2)",
        "y": "(n, 2 + i + j)",
    }


def test_a_size_may_follow_from_several_others() -> None:
    """The mask is as long as the cache and one token together, as it must be to meet them."""
    nodes = [
        helper.make_node("Concat", ["past", "new"], ["keys"], axis=0),
        helper.make_node("MatMul", ["mask", "keys"], ["y"]),
    ]
    given = {"mask": (1, "all"), "past": ("before", 4), "new": ("tokens", 4)}
    network = parse_model(model(nodes, given))
    assert shapes(network)["mask"] == "(1, before + tokens)"
    assert network.symbols == ("before", "tokens")


def test_a_shape_of_as_many_elements_tells_a_size() -> None:
    nodes = [
        helper.make_node("Shape", ["b"], ["shape"]),
        helper.make_node("Reshape", ["a", "shape"], ["y"]),
    ]
    network = parse_model(model(nodes, {"a": ("n", 12), "b": ("m", 4, 3)}))
    assert shapes(network) == {"a": "(n, 12)", "b": "(n, 4, 3)", "y": "(n, 4, 3)"}


def test_sizes_that_may_broadcast_stay_apart() -> None:
    nodes = [helper.make_node("Add", ["a", "b"], ["y"])]
    network = parse_model(model(nodes, {"a": ("n", 4), "b": ("m", 4)}))
    assert shapes(network) == {"a": "(n, 4)", "b": "(m, 4)", "y": "(max(m, n), 4)"}


def test_a_size_that_must_be_two_numbers_is_refused_at_the_second() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["xv"], name="first"),
        helper.make_node("MatMul", ["x", "w"], ["xw"], name="second"),
        helper.make_node("Concat", ["xv", "xw"], ["y"], axis=1),
    ]
    constants = {"v": np.ones((3, 2), np.float32), "w": np.ones((4, 2), np.float32)}
    with pytest.raises(ParserError, match=r"second.*3.*4"):
        parse_model(model(nodes, {"x": ("n", "k")}, constants))


def test_a_profile_that_gives_two_values_to_one_size_is_refused_by_the_input() -> None:
    nodes = [helper.make_node("MatMul", ["a", "b"], ["y"])]
    config = BuilderConfig()
    profile = OptimizationProfile().set_shape("a", (1, 2), (2, 4), (3, 8))
    config.add_optimization_profile(profile.set_shape("b", (2, 2), (5, 2), (8, 2)))
    with pytest.raises(ConfigError, match="input 'b': 'k' is 4 in one input and 5 in another"):
        build(model(nodes, {"a": ("n", "k"), "b": ("l", 2)}), config)
