"""A GPU's work happens on that GPU, whichever is CUDA's current one; needs no GPU."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from strict_cuda import Driver, current, strict_cupy

from workbench import gpu_device
from workbench.body import Body, BodyInput, Node, TensorType
from workbench.datatypes import DataType
from workbench.devices import Buffer
from workbench.errors import DeviceError
from workbench.operators import operator_named
from workbench.tactics import machine_code
from workbench.tactics.nvrtc import source as nvrtc
from workbench.tactics.protocol import Problem, Tactic

VALUES = np.arange(16, dtype=np.float32)


@pytest.fixture
def cupy(monkeypatch):
    made = strict_cupy()
    monkeypatch.setattr(gpu_device, "import_cupy", lambda: made)
    return made


@pytest.fixture
def second(cupy):
    return gpu_device.GpuDevice(1)


def test_opening_a_gpu_leaves_the_callers_current(second):
    assert current() == 0 and second.main_stream.device_id == 1


def test_memory_streams_and_marks_are_the_devices_own(second):
    buffer = second.allocate(64)
    constant = second.constant((VALUES,))
    assert buffer.memory.device_id == constant.memory.device_id == 1
    stream = second.stream()
    assert stream.device_id == 1 and second.mark(stream).device_id == 1
    second.wait(second.main_stream, stream)
    assert current() == 0


def test_copies_are_made_while_the_device_is_current(second, cupy):
    buffer = second.allocate(64)
    second.upload(VALUES, buffer)
    second.download(buffer, DataType.FLOAT, (16,))
    second.copy_in(buffer, VALUES)
    second.copy_out(VALUES, buffer)
    assert cupy.copied == [1, 1, 1, 1] and current() == 0


def test_a_graph_is_recorded_and_runs_on_the_device(second):
    graph = second.capture([lambda: None], second.main_stream)
    graph.launch(second.main_stream)
    assert graph.recorded.device_id == 1 and current() == 0


@pytest.mark.parametrize("time", ["timer", "time_us", "steps_us"])
def test_launches_are_timed_on_the_device(second, time):
    seen = []

    def launch():
        seen.append(current())

    if time == "timer":
        found = second.timer(launch, None)(2)
    elif time == "time_us":
        found = second.time_us(launch, 2)
    else:
        found = second.steps_us([launch, launch])
    second.fixed_work()()
    assert found == [500.0, 500.0] and set(seen) == {1} and current() == 0


def test_each_gpu_tells_of_its_own_memory(cupy):
    first, second = gpu_device.GpuDevice(0), gpu_device.GpuDevice(1)
    assert first.memory_info() == (1000, 2000) and second.memory_info() == (999, 1999)


def test_a_stream_of_another_gpu_is_refused_by_name(second, cupy):
    with pytest.raises(DeviceError, match="the stream is GPU 0's, this is GPU 1"):
        second.as_stream(cupy.cuda.Stream())


def test_a_kernel_is_loaded_and_launched_on_its_device_from_any_thread(
    second, monkeypatch, tmp_path
):
    monkeypatch.setattr(machine_code, "cache_folder", lambda name: tmp_path)
    monkeypatch.setattr(nvrtc, "compile_text", lambda cupy, text, target: b"code")
    second.library = driver = Driver()
    kind = TensorType(DataType.FLOAT, (16,))
    relu = Node(operator_named("Relu"), ("x",), ("y",))
    problem = Problem(Body((BodyInput("x", kind),), (relu,), ("y",)), {}, second, 1)
    tactic = next(t for t in nvrtc.NVRTC.candidates(problem) if isinstance(t, Tactic))
    call = nvrtc.NVRTC.prepare(tactic, problem)
    place = Buffer(None, 4096, 64)
    launch = call.bind([place], [place], None, None)
    launch()
    other = threading.Thread(target=launch)
    other.start()
    other.join()
    assert driver.launched == [1, 1] and current() == 0
