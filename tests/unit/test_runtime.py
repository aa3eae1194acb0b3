from __future__ import annotations

import json
import threading
import time

import numpy as np
import pytest
from engines import build, config, images, small_network

from workbench.errors import ExecutionError
from workbench.runtime import LayerInformationFormat, Profiler, TensorIOMode


@pytest.fixture(scope="module")
def engine():
    return build().engine()


def test_the_engine_answers_what_its_tensors_are(engine):
    assert [engine[i] for i in range(engine.num_io_tensors)] == ["image", "logits"]
    assert engine.get_tensor_mode("image") is TensorIOMode.INPUT
    assert engine.get_tensor_shape("image") == (-1, 3, 8, 8)
    assert engine.get_tensor_profile_shape("image", 0)[2] == (8, 3, 8, 8)
    assert engine.get_tensor_location("logits") == "HOST"


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, r"input 'image': it is missing"),
        ({"image": np.zeros((1, 3, 8, 8))}, r"DOUBLE.*FLOAT.*astype\('float32'\)"),
        ({"image": np.zeros((1, 3, 8), np.float32)}, r"rank 3.*\(batch, 3, 8, 8\)"),
        ({"image": np.zeros((1, 4, 8, 8), np.float32)}, r"4 on axis 1.*3"),
        ({"image": np.zeros((9, 3, 8, 8), np.float32)}, r"\(9, 3, 8, 8\).*\(1, 3, 8, 8\) to \(8"),
        (
            {"image": np.zeros((1, 3, 8, 8), np.float32), "other": np.zeros(1, np.float32)},
            r"'other'.*known: image, logits",
        ),
    ],
)
def test_a_wrong_input_is_an_error_that_names_input_given_and_allowed(engine, inputs, message):
    with pytest.raises(ExecutionError, match=message):
        engine.create_execution_context().run(inputs)


def test_every_batch_of_the_profile_gives_the_same_rows(engine):
    context, x = engine.create_execution_context(), images(8)
    whole = context.run({"image": x})["logits"]
    for batch in (1, 2, 5, 8):
        part = context.run({"image": x[:batch]})["logits"]
        np.testing.assert_allclose(part, whole[:batch], atol=1e-5)


def test_a_size_that_was_not_tuned_for_is_prepared_once_and_reported():
    fresh = build().engine()
    before = len(fresh.preparations)
    for _ in range(3):
        fresh.create_execution_context().run({"image": images(3)})
    assert [dict(p.sizes) for p in fresh.preparations[before:]] == [{"batch": 3}]


def test_two_contexts_share_the_prepared_weights_and_run_at_once():
    fresh, x = build().engine(), [images(4), images(4)]
    contexts = [fresh.create_execution_context() for _ in x]
    expected = [c.run({"image": v})["logits"] for c, v in zip(contexts, x, strict=True)]
    prepared = len(fresh.preparations)
    wrong = []

    def work(index):
        for _ in range(20):
            got = contexts[index].run({"image": x[index]})["logits"]
            if got.tobytes() != expected[index].tobytes():
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
    assert len(fresh.preparations) == prepared


def test_execute_v2_and_async_v3_write_to_the_addresses_that_were_given(engine):
    context, x = engine.create_execution_context(), images(2)
    expected = context.run({"image": x})["logits"]
    out = np.zeros((2, 10), np.float32)
    context.set_input_shape("image", x.shape)
    context.execute_v2([x, out])
    assert out.tobytes() == expected.tobytes()
    stream = engine.device.stream()
    for fill in (1.0, 2.0):
        other, again = x.copy() * fill, np.zeros((2, 10), np.float32)
        context.set_tensor_address("image", other.ctypes.data)
        context.set_tensor_address("logits", again)
        assert context.execute_async_v3(stream)
        engine.device.synchronize(stream)
        assert again.tobytes() == context.run({"image": other})["logits"].tobytes()


def test_sizes_come_and_go_by_every_way_of_running_and_more_of_them_than_stay_bound(
    engine, monkeypatch
):
    monkeypatch.setattr("workbench.runtime.binding.MOST_BOUND", 2)
    context, x = engine.create_execution_context(), images(8)
    rows = {b: alone(engine, x[:b]) for b in (1, 3, 8)}
    for batch in (3, 3, 1, 8, 1, 3):
        out = np.zeros((batch, 10), np.float32)
        context.set_input_shape("image", (batch, 3, 8, 8))
        context.execute_v2([x[:batch], out])
        assert out.tobytes() == rows[batch].tobytes()
        other = batch % 8 + 1
        if other in rows:
            assert context.run({"image": x[:other]})["logits"].tobytes() == rows[other].tobytes()
    with pytest.raises(ExecutionError, match="outside profile"):
        context.run({"image": np.zeros((9, 3, 8, 8), np.float32)})
    assert context.run({"image": x[:3]})["logits"].tobytes() == rows[3].tobytes()


def alone(engine, x):
    """What a context of its own gives."""
    return engine.create_execution_context().run({"image": x})["logits"]


def test_executing_before_shape_or_address_is_set_says_which(engine):
    context = engine.create_execution_context()
    with pytest.raises(ExecutionError, match="shape of input image"):
        context.execute_async_v3()
    context.set_input_shape("image", (1, 3, 8, 8))
    with pytest.raises(ExecutionError, match="no address is set for 'image'"):
        context.execute_async_v3()


def test_the_profile_has_a_row_a_step_and_sums_to_the_end_to_end_time(engine):
    profile = engine.create_execution_context().profile({"image": images(4)}, iterations=5)
    assert [x.name for x in profile.layers] == [s.name for s in engine.plan.steps]
    total = sum(x.median_us for x in profile.layers) + profile.residual_us
    assert total == pytest.approx(profile.end_to_end_us)
    assert all(x.kernel for x in profile.layers)


def test_a_printed_profile_is_a_line_a_step_the_residual_and_the_whole(engine):
    context = engine.create_execution_context()
    profile = context.profile({"image": images(4)}, iterations=3)
    *steps, residual, whole = str(profile).splitlines()
    assert all(line.startswith(s.name) for line, s in zip(steps, engine.plan.steps, strict=True))
    assert residual.startswith("(residual)")
    assert whole.startswith("end to end") and f"{profile.end_to_end_us:.1f} µs" in whole


def test_a_profiler_hears_every_layer(engine):
    heard = []

    class Listener(Profiler):
        def report_layer_time(self, layer_name, ms):
            heard.append((layer_name, ms))

    context = engine.create_execution_context()
    context.profiler = Listener()
    x, out = images(1), np.zeros((1, 10), np.float32)
    context.set_input_shape("image", x.shape)
    context.execute_v2([x, out])
    assert [n for n, _ in heard] == [s.name for s in engine.plan.steps]
    assert all(ms > 0 for _, ms in heard)


def test_the_inspector_speaks_tensorrt_11s_field_names(engine):
    inspector = engine.create_engine_inspector()
    data = json.loads(inspector.get_engine_information(LayerInformationFormat.JSON))
    assert set(data) == {"Layers", "I/O Tensors"}
    layer, tensor = data["Layers"][0], data["I/O Tensors"][0]
    assert {"Name", "LayerType", "Inputs", "Outputs", "TacticName", "TacticValue"} <= set(layer)
    assert {"Name", "Location", "Dimensions", "Format", "DataType"} == set(layer["Inputs"][0])
    assert tensor["IOMode"] == "Input" and tensor["Dimensions"] == [-1, 3, 8, 8]
    assert tensor["ProfileInfo"][0]["MaxShape"] == [8, 3, 8, 8]
    assert len(data["Layers"]) == engine.num_layers


def test_an_error_on_a_stream_reaches_the_one_who_waits(engine):
    stream = engine.device.stream()

    def fail():
        raise ExecutionError("broken on purpose")

    stream.submit(fail)
    with pytest.raises(ExecutionError, match="on purpose"):
        engine.device.synchronize(stream)


def test_async_execution_returns_before_it_ends(engine):
    stream = engine.device.stream()
    stream.submit(lambda: time.sleep(0.2))
    context, x, out = engine.create_execution_context(), images(1), np.zeros((1, 10), np.float32)
    context.set_input_shape("image", x.shape)
    context.set_tensor_address("image", x)
    context.set_tensor_address("logits", out)
    began = time.perf_counter()
    context.execute_async_v3(stream)
    assert time.perf_counter() - began < 0.1
    engine.device.synchronize(stream)
    assert out.any()


def test_a_hand_made_bf16_engine_runs_in_the_type_it_reports():
    made = config()
    made.set_precision("inner", "BF16")
    state = build(made, network=small_network())
    assert state.plan is not None
    step = next(s for s in state.plan.steps if "inner" in s.origin)
    assert step.requested is step.built is step.executed
    # On a device that has such products, what emulates them may still be the faster for few.
    assert step.tactic.emulated or state.device.native(step.built)
