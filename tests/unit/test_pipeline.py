"""Batches in a row, and arrays of other libraries, on the CPU; overlapping is the GPU's."""

from __future__ import annotations

import numpy as np
import pytest
from engines import build, config

from workbench.errors import DeviceError, ExecutionError
from workbench.runtime import Pipeline, ProfilingVerbosity, run_on_device


class Foreign:
    """An array of a library that speaks DLPack and nothing else."""

    def __init__(self, array):
        self._array = array

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


@pytest.fixture(scope="module")
def engine():
    return build(config()).engine()


def images(count, seed):
    return np.random.default_rng(seed).standard_normal((count, 3, 8, 8)).astype(np.float32)


def name_of(engine, kind):
    return next(t.name for t in engine.io_tensors if t.kind == kind)


def test_a_pipeline_gives_each_batch_what_a_run_gives_in_order(engine):
    context = engine.create_execution_context()
    name = name_of(engine, "input")
    batches = [{name: images(n, seed=n)} for n in (1, 3, 2, 4)]
    expected = [context.run(b) for b in batches]
    found = list(Pipeline(context).run(iter(batches)))
    for want, have in zip(expected, found, strict=True):
        assert {k: v.tobytes() for k, v in want.items()} == {
            k: v.tobytes() for k, v in have.items()
        }


def test_a_pipeline_reads_a_batch_only_when_there_is_room(engine):
    context = engine.create_execution_context()
    name, read = name_of(engine, "input"), []

    def batches():
        for k in range(10):
            read.append(k)
            yield {name: images(1, seed=k)}

    outputs = Pipeline(context, depth=2).run(batches())
    next(outputs)
    assert len(read) <= 3


def test_a_pipeline_needs_a_depth(engine):
    with pytest.raises(ExecutionError, match="use 1 or more"):
        Pipeline(engine.create_execution_context(), depth=0)


def test_dlpack_arrays_are_read_where_they_are_and_outputs_speak_it(engine):
    context = engine.create_execution_context()
    name, output = name_of(engine, "input"), name_of(engine, "output")
    given = images(2, seed=1)
    expected = context.run({name: given})[output]
    found = run_on_device(context, {name: Foreign(given)})[output]
    assert np.from_dlpack(found).tobytes() == expected.tobytes()


def test_addresses_may_be_dlpack_arrays(engine):
    context = engine.create_execution_context()
    name, output = name_of(engine, "input"), name_of(engine, "output")
    given = images(2, seed=1)
    expected = context.run({name: given})[output]
    target = np.zeros_like(expected)
    context.set_input_shape(name, given.shape)
    context.set_tensor_address(name, Foreign(given))
    context.set_tensor_address(output, Foreign(target))
    context.execute_async_v3()
    assert target.tobytes() == expected.tobytes()


def test_what_is_no_array_is_refused_with_the_remedy(engine):
    context = engine.create_execution_context()
    with pytest.raises(DeviceError, match="one that speaks DLPack"):
        run_on_device(context, {name_of(engine, "input"): object()})


def test_nvtx_ranges_are_refused_on_a_cpu(engine):
    context = engine.create_execution_context()
    with pytest.raises(DeviceError, match="NVTX"):
        context.nvtx_verbosity = ProfilingVerbosity.DETAILED
    context.nvtx_verbosity = ProfilingVerbosity.NONE
    assert context.nvtx_verbosity is ProfilingVerbosity.NONE


def test_a_cpu_plan_has_no_auxiliary_streams_and_takes_none(engine):
    context = engine.create_execution_context()
    assert engine.num_aux_streams == 0
    context.set_aux_streams([])
    with pytest.raises(ExecutionError, match="the plan uses 0"):
        context.set_aux_streams([1])
