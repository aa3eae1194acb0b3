"""The GPU runtime: branches on streams, pipelines, arrays of other libraries, NVTX, portability."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from workbench.builder import build
from workbench.config import BuilderConfig, BuilderFlag, OptimizationProfile
from workbench.devices import Fingerprint, open_device
from workbench.errors import ExecutionError, PlanError
from workbench.gpu_targets import HardwareCompatibilityLevel as Level
from workbench.network import NetworkDefinition
from workbench.runtime import Pipeline, ProfilingVerbosity, Runtime, run_on_device
from workbench.timing import TimingCache, steadiness

pytestmark = pytest.mark.gpu
SHAPE = (16, 20, 20)
CACHES: list[TimingCache] = []


def branches() -> NetworkDefinition:
    """Four chains of three convolutions from one input, joined: long enough to overlap."""
    drawn = np.random.default_rng(0)
    net = NetworkDefinition("branches")
    x = net.add_input("x", "FP32", ("batch", *SHAPE))

    def conv(source, size, name):
        shape = (16, 16, size, size)
        w = (drawn.standard_normal(shape) / (4 * size)).astype(np.float32)
        pads = {"pads": (size // 2,) * 4}
        weight = net.constant(w, f"{name}.w")
        made = net.add_layer("Conv", [source, weight], pads, name=name, origin=(name,))
        relu = f"{name}_relu"
        return net.add_layer("Relu", [made.outputs[0]], name=relu, origin=(relu,)).outputs[0]

    ends = []
    for size in (1, 3, 5, 7):
        at = x
        for k in range(3):
            at = conv(at, size, f"c{size}_{k}")
        ends.append(at)
    joined = net.add_layer("Concat", ends, {"axis": 1}, name="join", origin=("join",)).outputs[0]
    net.rename_tensor(joined, "y")
    net.mark_output(joined)
    net.model_nodes = tuple(n for layer in net.layers for n in layer.origin)
    return net


def config(**options) -> BuilderConfig:
    made = BuilderConfig()
    made.builder_optimization_level = 1
    made.clear_flag(BuilderFlag.TF32)
    made.add_optimization_profile(
        OptimizationProfile().set_shape("x", (1, *SHAPE), (4, *SHAPE), (8, *SHAPE))
    )
    if CACHES:
        made.timing_cache = CACHES[0]
    for name, value in options.items():
        setattr(made, name, value)
    return made


@pytest.fixture(scope="module")
def device():
    return open_device("gpu")


def state_of(device, **options):
    state = build(branches(), config(**options), device=device)
    CACHES[:] = [state.cache]
    return state


@pytest.fixture(scope="module")
def single(device):
    return state_of(device)


@pytest.fixture(scope="module")
def spread(device, single):
    """The same kernels on up to three auxiliary streams."""
    return state_of(device, max_aux_streams=3)


def images(batch, seed=0):
    return np.random.default_rng(seed).standard_normal((batch, *SHAPE)).astype(np.float32)


def test_branches_on_streams_give_the_bits_of_one_stream_graph_or_not(single, spread):
    one, many = single.engine(), spread.engine()
    assert one.num_aux_streams == 0 and 1 <= many.num_aux_streams <= 3
    first, context = one.create_execution_context(), many.create_execution_context()
    for batch in (1, 4, 8, 4):
        x = {"x": images(batch, batch)}
        want = first.run(x)["y"].tobytes()
        for use_graph in (True, False, True):
            context.use_graph = use_graph
            for _ in range(20):
                assert context.run(x)["y"].tobytes() == want


def test_the_callers_auxiliary_streams_are_used(single, spread, device):
    engine = spread.engine()
    context = engine.create_execution_context()
    given = [device.stream() for _ in range(engine.num_aux_streams)]
    context.set_aux_streams([s.ptr for s in given])
    x = {"x": images(4)}
    want = single.engine().create_execution_context().run(x)["y"]
    assert context.run(x)["y"].tobytes() == want.tobytes()
    with pytest.raises(ExecutionError, match=f"the plan uses {engine.num_aux_streams}"):
        context.set_aux_streams(given[1:])


def test_the_profile_of_a_plan_with_streams_has_every_layer(spread):
    context = spread.engine().create_execution_context()
    profile = context.profile({"x": images(4)}, iterations=3)
    assert len(profile.layers) == len(spread.plan.steps)
    assert all(x.median_us >= 0 for x in profile.layers)


def test_a_pipeline_gives_what_runs_give_in_order_whatever_the_batches(single):
    engine = single.engine()
    context = engine.create_execution_context()
    batches = [{"x": images(b, k)} for k, b in enumerate((4, 1, 8, 8, 3, 4, 4, 2, 8))]
    expected = [engine.create_execution_context().run(b)["y"].tobytes() for b in batches]
    for depth in (1, 2, 3):
        found = list(Pipeline(context, depth=depth).run(batches))
        assert [o["y"].tobytes() for o in found] == expected


def test_arrays_of_other_libraries_go_in_and_come_out_by_dlpack(single):
    import cupy

    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    context = single.engine().create_execution_context()
    x = images(4)
    want = context.run({"x": x})["y"]
    given = torch.from_numpy(x).cuda()
    torch.cuda.synchronize()
    for array in (x, cupy.asarray(x), given):
        found = run_on_device(context, {"x": array})["y"]
        assert torch.from_dlpack(found).cpu().numpy().tobytes() == want.tobytes()
        assert hasattr(found, "__cuda_array_interface__")
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        doubled = given * 2
        found = run_on_device(context, {"x": doubled}, stream=stream)["y"]
    stream.synchronize()
    assert cupy.asnumpy(found).tobytes() == context.run({"x": 2 * x})["y"].tobytes()


def test_host_arrays_may_be_addresses_run_after_run(single, device):
    context = single.engine().create_execution_context()
    x = images(4)
    want = context.run({"x": x})["y"]
    stream, found = device.stream(), np.zeros_like(want)
    context.set_input_shape("x", x.shape)
    context.set_tensor_address("x", x)
    context.set_tensor_address("y", found)
    for _ in range(3):
        found[:] = 0
        context.execute_async_v3(stream.ptr)
        stream.synchronize()
        assert found.tobytes() == want.tobytes()


def test_nvtx_ranges_change_no_bit_and_switch_off_again(single):
    context = single.engine().create_execution_context()
    x = {"x": images(4)}
    want = context.run(x)["y"].tobytes()
    for verbosity in ProfilingVerbosity:
        context.nvtx_verbosity = verbosity
        assert context.run(x)["y"].tobytes() == want
    context.nvtx_verbosity = ProfilingVerbosity.NONE
    assert context.profile(x, iterations=2).graph


def test_the_build_log_says_that_it_is_one_graph(single):
    record = single.log.records[-1]
    assert record.facts["graph_refusal"] == ""
    assert "one CUDA graph of" in record.summary


def test_a_free_gpu_is_steady(device):
    assert min(steadiness(device).spread for _ in range(5)) < 0.25


@pytest.fixture(scope="module")
def portable(device, single):
    return state_of(device, hardware_compatibility_level=Level.AMPERE_PLUS)


def test_a_portable_plan_has_neither_cudnn_nor_cublas_and_says_what_that_costs(portable):
    sources = {s.tactic.source for s in portable.plan.steps}
    assert not sources & {"CUDNN", "CUBLAS_LT"}
    refused = [c.refusal for x in portable.tuned.layers for c in x.candidates if c.refusal]
    assert any(r.code == "hardware_compatibility" for r in refused)


def test_a_portable_plan_runs_from_ptx_alone_as_on_a_gpu_that_was_not_thought_of(
    portable, single, device
):
    from workbench.tactics.triton.compiler import unpack_code

    def is_ptx(code):
        plain = code[:4] == b"\x7fELF" or code[:1] in (b"/", b"\n")
        return (code if plain else unpack_code(code)[1])[:4] != b"\x7fELF"

    code = {k: c for k, c in portable.plan.code.items() if is_ptx(c)}
    assert 0 < len(code) < len(portable.plan.code)
    elsewhere = Fingerprint("gpu", "NVIDIA A100", ("sm_80",))
    engine = Runtime(device).deserialize(replace(portable.plan, code=code, device=elsewhere))
    assert engine.machine_code().keys() <= code.keys()
    x = {"x": images(4)}
    found = engine.create_execution_context().run(x)["y"]
    want = single.network.run(x)["y"]
    assert np.abs(found - want).max() <= 1e-4 * np.abs(want).max()


@pytest.mark.parametrize("model", ["NVIDIA H100", "NVIDIA A100"])
def test_a_plan_for_its_gpu_alone_is_refused_elsewhere(single, device, model):
    features = device.fingerprint.features if model.endswith("H100") else ("sm_80",)
    foreign = replace(single.plan, device=Fingerprint("gpu", model, features))
    with pytest.raises(PlanError, match=f"built on {model}.*AMPERE_PLUS"):
        Runtime(device).deserialize(foreign)
