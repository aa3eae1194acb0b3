"""Two GPUs in one process: each engine works on its own, whichever is CUDA's current one."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

from workbench.builder import build
from workbench.config import BuilderConfig, BuilderFlag
from workbench.devices import open_device
from workbench.errors import DeviceError
from workbench.network import NetworkDefinition
from workbench.runtime import Pipeline, Runtime, run_on_device
from workbench.timing import TimingCache

pytestmark = pytest.mark.gpu
SHAPE = (4, 16, 24, 24)
LARGE = 1 << 28


@pytest.fixture(scope="module", autouse=True)
def cupy():
    import cupy

    found = cupy.cuda.runtime.getDeviceCount()
    if found < 2:
        pytest.skip(f"needs two GPUs in one machine, {found} found")
    return cupy


@pytest.fixture(params=[0, 1], ids=["current 0", "current 1"])
def current(request, cupy):
    """The caller's current device, which must stay what it is."""
    with cupy.cuda.Device(request.param):
        yield request.param
        assert cupy.cuda.runtime.getDevice() == request.param


def network() -> NetworkDefinition:
    """Convolutions, a product, a softmax and a sum of rows: kernels of every source."""
    drawn = np.random.default_rng(0)
    net = NetworkDefinition("two devices")

    def layer(operator, inputs, name, attributes=None):
        made = net.add_layer(operator, inputs, attributes or {}, name=name, origin=(name,))
        return made.outputs[0]

    def weight(shape, name):
        return net.constant((drawn.standard_normal(shape) / 8).astype(np.float32), name)

    x = net.add_input("x", "FP32", SHAPE)
    for k in range(2):
        conv = layer("Conv", [x, weight((16, 16, 3, 3), f"w{k}")], f"conv{k}", {"pads": (1,) * 4})
        x = layer("Relu", [conv], f"relu{k}")
    product = layer("MatMul", [x, weight((24, 24), "m")], "product")
    y = layer("Softmax", [product], "softmax", {"axis": -1})
    net.rename_tensor(y, "y")
    net.mark_output(y)
    net.model_nodes = tuple(n for made in net.layers for n in made.origin)
    return net


def config(*sources: str) -> BuilderConfig:
    made = BuilderConfig()
    made.builder_optimization_level = 2
    made.clear_flag(BuilderFlag.TF32)
    if sources:
        made.tactic_sources = sources
    return made


@pytest.fixture(scope="module")
def built():
    return build(network(), config(), device=open_device("gpu:0"))


@pytest.fixture(scope="module")
def given():
    return {"x": np.random.default_rng(1).standard_normal(SHAPE).astype(np.float32)}


def engines(plan):
    return [Runtime(f"gpu:{k}").deserialize(plan) for k in (0, 1)]


def test_one_plan_runs_on_both_with_contexts_alternating(built, given, current, cupy):
    contexts = [e.create_execution_context() for e in engines(built.plan)]
    assert [c.engine.device.index for c in contexts] == [0, 1]
    assert [c.stream.device_id for c in contexts] == [0, 1]
    found = [[c.run(given)["y"] for c in contexts] for _ in range(3)]
    for first, second in found:
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(first, found[0][0])
    for context in contexts:
        context.use_graph = False
    np.testing.assert_array_equal(contexts[1].run(given)["y"], found[0][0])
    np.testing.assert_array_equal(contexts[0].run(given)["y"], found[0][0])
    assert cupy.cuda.runtime.getDevice() == current


@pytest.mark.parametrize("source", ["NVRTC", "TRITON", "CUDNN", "CUBLAS_LT"])
def test_each_source_compiles_loads_and_times_on_the_second(source, given, current, built):
    """NVRTC beside each: no other source has a kernel for every layer."""
    device = open_device("gpu:1")
    cache = TimingCache(device.fingerprint)
    made = config(*dict.fromkeys((source, "NVRTC")))
    made.timing_cache = cache
    state = build(network(), made, device=device)
    alone = Runtime(device).deserialize(state.plan).create_execution_context()
    there = Runtime("gpu:0").deserialize(state.plan).create_execution_context()
    np.testing.assert_array_equal(alone.run(given)["y"], there.run(given)["y"])
    expected = Runtime("gpu:0").deserialize(built.plan).create_execution_context().run(given)["y"]
    np.testing.assert_allclose(alone.run(given)["y"], expected, atol=1e-4)


def test_profiles_and_pipelines_stay_on_their_device(built, given, current):
    for engine in engines(built.plan):
        context = engine.create_execution_context()
        profile = context.profile(given, iterations=3)
        assert profile.graph and profile.end_to_end_us > 0
        (first, second) = Pipeline(engine.create_execution_context()).run([given, given])
        np.testing.assert_array_equal(first["y"], second["y"])
        np.testing.assert_array_equal(first["y"], context.run(given)["y"])


def test_arrays_of_the_other_gpu_are_copied_over_and_outputs_are_the_engines(
    built, given, current, cupy
):
    for k, engine in enumerate(engines(built.plan)):
        with cupy.cuda.Device(1 - k):
            there = cupy.asarray(given["x"])
            cupy.cuda.Stream.null.synchronize()
        context = engine.create_execution_context()
        for _ in range(3):
            found = run_on_device(context, {"x": there})["y"]
            assert found.device.id == k
        np.testing.assert_array_equal(found.get(), context.run(given)["y"])


def test_two_threads_run_one_each(built, given, current):
    expected = engines(built.plan)[0].create_execution_context().run(given)["y"]
    failed: list[str] = []

    def work(engine):
        context = engine.create_execution_context()
        for _ in range(20):
            if not np.array_equal(context.run(given)["y"], expected):
                failed.append(str(engine.device))

    threads = [threading.Thread(target=work, args=(e,)) for e in engines(built.plan)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failed


def test_memory_is_taken_from_the_device_that_was_asked(current, cupy):
    devices = [open_device(f"gpu:{k}") for k in (0, 1)]
    for k in (0, 1):
        with cupy.cuda.Device(k):
            cupy.get_default_memory_pool().free_all_blocks()
        before = [d.memory_info()[0] for d in devices]
        kept = devices[k].allocate(LARGE)
        after = [d.memory_info()[0] for d in devices]
        assert kept.memory.device.id == k
        assert before[k] - after[k] >= kept.nbytes
        assert before[1 - k] == after[1 - k]


def test_kernels_and_graphs_are_freed_while_the_other_is_current(built, given, cupy):
    engine = Runtime("gpu:1").deserialize(built.plan)
    context = engine.create_execution_context()
    context.run(given)
    with cupy.cuda.Device(0):
        del context, engine
        gc.collect()
    again = Runtime("gpu:1").deserialize(built.plan).create_execution_context()
    assert np.isfinite(again.run(given)["y"]).all()


def test_a_stream_of_the_other_gpu_is_refused(built, given):
    first, second = engines(built.plan)
    context = first.create_execution_context()
    context.run(given)
    with pytest.raises(DeviceError, match="the stream is GPU 1's, this is GPU 0"):
        context.execute_async_v3(second.device.stream())
