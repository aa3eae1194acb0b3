"""The last products of a network: whose errors no later sum averages."""

from __future__ import annotations

import numpy as np
from engines import small_network

from workbench.network import NetworkDefinition
from workbench.selection.last_products import last_products


def products(net: NetworkDefinition, source: object, *names: str) -> object:
    """A chain of products, each of the one before."""
    for name in names:
        w = net.constant(np.ones((4, 4), np.float32), f"{name}.w")
        source = net.add_layer("MatMul", [source, w], name=name).outputs[0]
    return source


def test_the_head_of_a_classifier_is_its_last_product() -> None:
    assert last_products(small_network().layers) == {"head"}


def test_what_only_moves_or_scales_elements_may_follow() -> None:
    net = NetworkDefinition("softmax")
    y = products(net, net.add_input("x", "FP32", (2, 4)), "first", "second")
    net.mark_output(net.add_layer("Softmax", [y], {"axis": -1}, name="softmax").outputs[0])
    assert last_products(net.layers) == {"second"}


def test_each_branch_has_its_own_and_an_output_that_is_read_on_has_none() -> None:
    net = NetworkDefinition("branches")
    trunk = products(net, net.add_input("x", "FP32", (2, 4)), "trunk")
    net.mark_output(trunk)
    for branch in ("left", "right"):
        net.mark_output(products(net, trunk, branch))
    assert last_products(net.layers) == {"left", "right"}


def test_a_network_without_products_has_none() -> None:
    net = NetworkDefinition("relu")
    x = net.add_input("x", "FP32", (2, 4))
    net.mark_output(net.add_layer("Relu", [x]).outputs[0])
    assert last_products(net.layers) == set()
