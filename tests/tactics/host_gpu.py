"""A GpuDevice whose memory is the host's, with a CUDA that loads any code."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
from types import SimpleNamespace
from weakref import WeakValueDictionary

import numpy as np

from workbench.body import Body
from workbench.devices import ALIGNMENT, Buffer, Fingerprint
from workbench.gpu_device import GpuDevice


class _Memory(np.ndarray):
    """An array that tells its address as CuPy's do."""

    data = property(lambda self: SimpleNamespace(ptr=self.ctypes.data))


class HostGpu(GpuDevice):
    """Nothing runs on it."""

    compute_capability = 90
    fingerprint = Fingerprint("gpu", "host", ("sm_90",))

    def __init__(self):
        self.index, self.current = 0, contextlib.nullcontext()
        self.main_stream = SimpleNamespace(ptr=0)
        self.library = SimpleNamespace(cuLaunchKernelEx=None)
        self._constants = WeakValueDictionary()
        module = SimpleNamespace(
            load=lambda code: None, get_function=lambda name: SimpleNamespace(ptr=0)
        )
        function = SimpleNamespace(Module=lambda: module)
        self.cupy = SimpleNamespace(
            cuda=SimpleNamespace(function=function), empty=self._empty, uint8=np.uint8
        )
        self._staging = SimpleNamespace(upload=_copied)

    def _empty(self, size, dtype):
        return self.allocate(size).memory.view(_Memory)

    def allocate(self, nbytes):
        memory = np.zeros(max(nbytes, 1) + ALIGNMENT, np.uint8)
        start = -memory.ctypes.data % ALIGNMENT
        return Buffer(memory[start:], memory.ctypes.data + start, max(nbytes, 1))

    def upload(self, array, buffer, stream=None):
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        buffer.memory[: flat.size] = flat


def _copied(array, address):
    own = np.ascontiguousarray(array)
    ctypes.memmove(address, own.ctypes.data, own.nbytes)


def renamed(body, names):
    """The same Body with other names for some of its values."""

    def of(given):
        return tuple(names.get(v, v) for v in given)

    return Body(
        tuple(dataclasses.replace(i, name=names.get(i.name, i.name)) for i in body.inputs),
        tuple(
            dataclasses.replace(n, inputs=of(n.inputs), outputs=of(n.outputs)) for n in body.nodes
        ),
        of(body.outputs),
        body.anchor,
    )
