"""A CUDA of two GPUs as CuPy shows it, which refuses what a real one refuses; nothing runs.

What belongs to a GPU knows which, by the device that was current when it was made. Used while
another is current, it raises: kernels, graphs, events and streams entered are bound to theirs.
"""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np

PLACE = threading.local()
"""device: the calling thread's current one."""


def current():
    return getattr(PLACE, "device", 0)


class Owned:
    """Of the device that is current when it is made."""

    def __init__(self, *given, **options):
        self.device_id = current()
        self.ptr = 4096 * (1 + self.device_id)

    def here(self):
        if current() != self.device_id:
            raise RuntimeError(
                f"{type(self).__name__} of GPU {self.device_id}, current is {current()}"
            )


class Device:
    """CuPy's: a context manager that may be entered again within itself."""

    entered = threading.local()

    def __init__(self, index):
        self.id = index

    def __enter__(self):
        self.entered.before = [*getattr(self.entered, "before", []), current()]
        PLACE.device = self.id
        return self

    def __exit__(self, *error):
        PLACE.device = self.entered.before.pop()

    def use(self):
        PLACE.device = self.id


class Graph(Owned):
    def launch(self, stream):
        self.here()
        stream.here()


class Stream(Owned):
    null = SimpleNamespace(synchronize=lambda: None)

    def __enter__(self):
        self.here()
        return self

    def __exit__(self, *error):
        self.here()

    def begin_capture(self):
        self.here()

    def end_capture(self):
        self.here()
        return Graph()

    def synchronize(self):
        self.here()

    def wait_event(self, event):
        """Across devices, too."""

    @staticmethod
    def from_external(handle):
        return Stream()


class Event(Owned):
    def record(self, stream):
        self.here()
        stream.here()


class Memory(Owned):
    def __init__(self, size, dtype=None):
        super().__init__()
        self.data = self.mem = SimpleNamespace(ptr=self.ptr, size=size)

    def memset_async(self, value, size, stream):
        self.here()
        stream.here()


class Function(Owned):
    def __call__(self, grid, block, arguments, **options):
        self.here()


class Driver:
    """The driver's library. launched: the device that was current at each launch."""

    def __init__(self):
        self.launched: list[int] = []

    def cuLaunchKernelEx(self, config, function, arguments, extra):  # noqa: N802
        self.launched.append(current())
        return 0


class Module(Owned):
    def load(self, code):
        self.here()

    def get_function(self, name):
        self.here()
        return Function()


def strict_cupy():
    """The module ``cupy``. ``copied`` lists the device that was current at each copy."""
    copied: list[int] = []
    properties = {"major": 9, "minor": 0, "name": b"strict", "l2CacheSize": 1 << 20}
    runtime = SimpleNamespace(
        CUDARuntimeError=ZeroDivisionError,
        getDeviceCount=lambda: 2,
        getDeviceProperties=lambda index: properties,
        memGetInfo=lambda: (1000 - current(), 2000 - current()),
        memcpyAsync=lambda *given: copied.append(current()),
        streamSynchronize=lambda handle: None,
    )
    cuda = SimpleNamespace(
        runtime=runtime,
        Device=Device,
        Stream=Stream,
        Event=Event,
        alloc=Memory,
        alloc_pinned_memory=lambda size: bytearray(size),
        get_elapsed_time=lambda begin, end: 0.5,
        function=SimpleNamespace(Module=Module),
    )
    return SimpleNamespace(cuda=cuda, uint8=np.uint8, zeros=Memory, empty=Memory, copied=copied)
