"""Constants of Triton Calls on the device, and what a misplaced operand is told; needs no GPU."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from code_device import CodeDevice
from host_gpu import HostGpu, renamed
from product_bodies import Convolution, Linear
from tactic_bodies import FLOAT, problem_of, sample_inputs

from workbench.datatypes import DataType
from workbench.devices import Buffer, Fingerprint
from workbench.errors import DeviceError
from workbench.gpu_targets import HardwareCompatibilityLevel as Level
from workbench.records import Refusal
from workbench.tactics.protocol import Call, Problem
from workbench.tactics.triton import TRITON, calls
from workbench.tactics.triton.calls import call_of, constants_of
from workbench.tactics.triton.compiler import pack_code
from workbench.tactics.triton.source import program_for


@pytest.fixture(autouse=True)
def any_code(monkeypatch):
    code = pack_code({"shared": 0, "warps": 4, "waits": 1}, b"")
    monkeypatch.setattr(calls, "machine_code", lambda problem, parts, make: (str(parts), code))


def called(body, values, device, tactic=0):
    problem = Problem(body, values, device)
    program = program_for(TRITON.candidates(problem)[tactic], problem)
    call = call_of(program, problem, "any")
    assert isinstance(call, Call)
    return call, program, problem


def constants(body):
    values = sample_inputs(body, seed=0)
    return {i.name: values[i.name] for i in body.inputs if i.constant}


def test_one_layers_calls_share_their_constants_at_every_batch_size():
    device, layer = HostGpu(), Convolution(1, 20, 9, 24, 3, 1, 1, FLOAT)
    values = constants(layer.body())
    wider = Convolution(4, 20, 9, 24, 3, 1, 1, FLOAT)
    one, _, problem = called(layer.body(), values, device)
    two, _, _ = called(layer.body(), values, device)
    assert one.packed and all(one.packed[k] is two.packed[k] for k in one.packed)
    tactic = TRITON.candidates(problem)[0]
    four = TRITON.prepare(tactic, Problem(wider.body(), values, device))
    assert isinstance(four, Call)
    assert four.packed["packed weights"] is one.packed["packed weights"]


def test_constants_of_other_arrays_or_tiles_are_others():
    device, body = HostGpu(), Convolution(1, 20, 9, 24, 3, 1, 1, FLOAT).body()
    values = constants(body)
    one, program, problem = called(body, values, device)
    copy, _, _ = called(body, {k: v.copy() for k, v in values.items()}, device)
    assert copy.packed["packed weights"] is not one.packed["packed weights"]
    for k, _ in enumerate(TRITON.candidates(problem)):
        call, program, _ = called(body, values, device, k)
        for argument, array in constants_of(program, problem).items():
            kept = call.packed[f"{argument.kind} {argument.name}"]
            np.testing.assert_array_equal(
                kept.memory[: kept.nbytes], np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            )


def test_constants_are_freed_with_the_last_call_that_reads_them():
    device, body = HostGpu(), Convolution(1, 20, 9, 24, 3, 1, 1, FLOAT).body()
    call, *_ = called(body, constants(body), device)
    assert len(device._constants) == len(call.packed)
    del call
    gc.collect()
    assert not device._constants


def test_a_constant_of_the_body_may_be_called_as_a_packed_one_is():
    made = Convolution(1, 20, 9, 24, 3, 1, 1, FLOAT).body()
    bias = [i.name for i in made.inputs if i.constant][1]
    body = renamed(made, {bias: "weights"})
    call, program, problem = called(body, constants(body), HostGpu())
    assert set(call.packed) == {"packed weights", "value weights"}
    assert len(call.packed) == len(constants_of(program, problem))


def test_a_misaligned_operand_is_named_with_its_address_and_what_is_wanted():
    device, body = HostGpu(), Linear(64, 64, 64).body()
    call, *_ = called(body, constants(body), device)
    space = device.allocate(1 << 20)
    whole = [space.slice(k << 16, 1 << 16) for k in range(len(body.dynamic_inputs) + 1)]
    call.bind(whole[:-1], whole[-1:], None, device.main_stream)
    off = Buffer(space.memory, whole[0].address + 4, 1 << 16)
    with pytest.raises(DeviceError) as e:
        call.bind([off, *whole[1:-1]], whole[-1:], None, device.main_stream)
    name = body.dynamic_inputs[0].name
    assert f"operand 'value {name}' lies at {off.address:#x}" in str(e.value)
    assert "multiple of 16" in str(e.value) and e.value.remedy


def test_a_device_without_a_compute_capability_is_told_what_is_needed():
    problem, *_ = problem_of(Linear(64, 64, 64).body())
    with pytest.raises(DeviceError, match="compute capability") as e:
        TRITON.candidates(problem)
    assert "open_device('gpu')" in e.value.remedy


@pytest.mark.parametrize(
    ("level", "limit"),
    [(Level.NONE, 163), (Level.SAME_COMPUTE_CAPABILITY, 163), (Level.AMPERE_PLUS, 99)],
)
def test_only_a_portable_plan_keeps_to_the_shared_memory_of_smaller_gpus(monkeypatch, level, limit):
    body, device = Linear(64, 64, 64).body(), HostGpu()
    device.fingerprint = Fingerprint("gpu", "an 8.0", ("sm_80",))
    problem = Problem(body, constants(body), device, compatibility=level)
    program = program_for(TRITON.candidates(problem)[0], problem)
    monkeypatch.setattr(calls, "_loaded", lambda *_: None)  # loading takes a GPU
    for needed in (limit, limit + 1):
        code = pack_code({"shared": needed << 10, "warps": 4, "waits": 0}, b"")
        monkeypatch.setattr(calls, "machine_code", lambda *_, code=code: ("key", code))
        made = call_of(program, problem, "any")
        assert isinstance(made, Call) == (needed == limit)
    assert isinstance(made, Refusal) and f"> {limit} KiB for sm_80" in made.reason


@pytest.mark.parametrize(
    ("capability", "level", "reason"),
    [
        (86, Level.NONE, "this is 8.6"),
        (80, Level.SAME_COMPUTE_CAPABILITY, "this is 8.0"),
        (90, Level.AMPERE_PLUS, "AMPERE_PLUS goes back to 8.0"),
    ],
)
def test_why_there_is_no_fp8_is_told_of_the_gpu_or_of_the_level(capability, level, reason):
    body = Linear(64, 64, 64, DataType.FP8).body()
    device = CodeDevice(capability)
    found = TRITON.candidates(Problem(body, constants(body), device, compatibility=level))
    assert [str(r) for r in found] == [f"FP8 needs compute capability 8.9, {reason}"]
