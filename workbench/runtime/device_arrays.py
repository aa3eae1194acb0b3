"""Runs on arrays that are on the device, whichever library made them; so are the outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from workbench.runtime.context import ExecutionContext
from workbench.runtime.given import check_input


def run_on_device(
    context: ExecutionContext, inputs: Mapping[str, Any], *, stream: Any = None
) -> dict[str, Any]:
    """Outputs as arrays of the device (CuPy's, or NumPy's on the CPU), each in memory of its own.

    inputs: arrays that speak DLPack or ``__cuda_array_interface__`` (PyTorch's, JAX's, CuPy's), in
    C order; NumPy's are copied there. The outputs speak both. stream: where the caller wrote the
    inputs; the outputs are ready on it. Without one, what writes the inputs must have ended, and
    the outputs are ready when this returns.
    Raises ExecutionError on a misfit, DeviceError for what is no array.
    """
    engine, device = context.engine, context.engine.device
    own = context.stream if stream is None else device.as_stream(stream)
    given = {name: device.array(value, own) for name, value in inputs.items()}
    for t in engine.io_tensors:
        if t.kind == "input":
            check_input(t, given)
            context.set_input_shape(t.name, given[t.name].shape)
            context.set_tensor_address(t.name, given[t.name])
    made: dict[str, Any] = {}
    for t in engine.io_tensors:
        if t.kind == "output":
            shape = context.get_tensor_shape(t.name)
            nbytes = int(np.prod(shape, dtype=np.int64)) * t.type.dtype.itemsize
            made[t.name] = device.allocate(max(1, nbytes)).view(t.type.dtype, shape)
            context.set_tensor_address(t.name, made[t.name])
    context.execute_async_v3(own)
    if stream is None:
        device.synchronize(own)
    return made
