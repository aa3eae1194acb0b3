"""execute_v2 on the CPU: the same run again, Python's share of it, threads."""

from __future__ import annotations

import sys
import threading
import time

import numpy as np
import pytest
from engines import build, config, images

from workbench.builder import build as build_model
from workbench.config import BuilderConfig
from workbench.errors import DeviceError, ExecutionError
from workbench.network import NetworkDefinition


def chain(layers: int, size: int = 16) -> NetworkDefinition:
    """``layers`` products in a row, none of which fuses with its neighbours."""
    net = NetworkDefinition("chain")
    x = net.add_input("x", "FP32", (size, size))
    weight = np.random.default_rng(1).standard_normal((size, size)).astype(np.float32)
    for k in range(layers):
        w = net.constant(weight / np.float32(size**0.5), f"w{k}")
        name = f"product{k}"
        x = net.add_layer("MatMul", [x, w], name=name, origin=(name,)).outputs[0]
        net.mark_output(x)
    net.model_nodes = tuple(n for layer in net.layers for n in layer.origin)
    return net


def context_of(network):
    made = BuilderConfig()
    made.builder_optimization_level = 0
    made.num_threads = 1
    return build_model(network, made).engine().create_execution_context()


@pytest.fixture(scope="module")
def small():
    return build().engine()


def test_a_run_that_comes_again_reads_and_writes_where_it_is_told(small):
    context, x = small.create_execution_context(), images(4)
    expected = context.run({"image": x})["logits"]
    for k in range(4):
        given, made = x.copy() * np.float32(k), np.zeros_like(expected)
        places = [given, made] if k % 2 else [given.ctypes.data, made.ctypes.data]
        context.execute_v2(places)
        np.testing.assert_array_equal(made, context.run({"image": given})["logits"])
        assert context.get_tensor_address("logits") is places[1]


def test_other_shapes_between_two_runs_are_followed(small):
    context, x = small.create_execution_context(), images(4)
    expected = context.run({"image": x})["logits"]
    for batch in (4, 2, 4, 1):
        made = np.zeros_like(expected)
        context.set_input_shape("image", (batch, 3, 8, 8))
        for _ in range(3):
            context.execute_v2([x[:batch].copy(), made])
        np.testing.assert_allclose(made[:batch], expected[:batch], atol=1e-5)
        assert not made[batch:].any()


def test_an_array_that_is_too_small_is_refused_each_time(small):
    context, x = small.create_execution_context(), images(4)
    made = np.zeros((4, 10), np.float32)
    context.set_input_shape("image", x.shape)
    for _ in range(3):
        context.execute_v2([x, made])
        with pytest.raises(DeviceError, match="80 bytes, 160 are needed"):
            context.execute_v2([x, np.zeros((2, 10), np.float32)])


def calls_of_one_run(layers: int) -> int:
    """Python and C functions that Python calls in one run of so many layers."""
    context = context_of(chain(layers))
    places = [np.zeros(t.type.shape, np.float32) for t in context.engine.io_tensors]
    for _ in range(2):
        context.execute_v2(places)
    count = 0

    def seen(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(seen)
    try:
        context.execute_v2(places)
    finally:
        sys.setprofile(None)
    return count


def test_a_run_of_native_layers_costs_python_the_same_however_many_there_are():
    assert calls_of_one_run(24) == calls_of_one_run(3)


def test_python_goes_on_while_a_big_model_runs():
    context = context_of(chain(12, size=1024))
    places = [np.ones(t.type.shape, np.float32) for t in context.engine.io_tensors]
    context.execute_v2(places)
    turns, running = 0, threading.Event()

    def run() -> None:
        context.execute_v2(places)
        running.clear()

    running.set()
    worker = threading.Thread(target=run)
    worker.start()
    while running.is_set():
        turns += 1
        time.sleep(0.001)
    worker.join()
    assert turns > 5


@pytest.fixture(scope="module")
def for_two():
    made = config()
    made.num_threads = 2
    return build(made).engine()


def test_contexts_on_threads_of_their_own_give_what_one_gives(for_two):
    engines = for_two.create_execution_context(), for_two.create_execution_context(num_threads=1)
    x = images(4)
    expected = engines[0].run({"image": x})["logits"]
    wrong: list[int] = []

    def work(context, number) -> None:
        made = np.zeros_like(expected)
        context.set_input_shape("image", x.shape)
        for _ in range(50):
            context.execute_v2([x, made])
            if not np.allclose(made, expected, atol=1e-5):
                wrong.append(number)

    workers = [threading.Thread(target=work, args=(c, k)) for k, c in enumerate(engines)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert not wrong


def test_a_context_may_use_fewer_threads_than_the_plan_was_tuned_for(for_two):
    context, whole = for_two.create_execution_context(num_threads=1), for_two
    assert (context.num_threads, whole.create_execution_context().num_threads) == (1, 2)
    x = images(8)
    expected = whole.create_execution_context().run({"image": x})["logits"]
    np.testing.assert_allclose(context.run({"image": x})["logits"], expected, atol=1e-5)
    assert whole.create_execution_context(num_threads=1).engine is context.engine
    for count in (0, 3):
        with pytest.raises(ExecutionError, match=f"num_threads is {count}, the plan .* for 2"):
            whole.create_execution_context(num_threads=count)
