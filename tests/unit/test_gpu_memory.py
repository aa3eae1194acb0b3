"""Which of the caller's memory a GPU's kernels use as it is; needs no GPU."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace

import pytest

from workbench.errors import DeviceError
from workbench.gpu_device import GpuDevice, require_aligned

HOST, DEVICE, MANAGED = 1, 2, 3


class Array:
    """An array of the caller's, wherever it lies."""

    def __init__(self, address):
        self.__cuda_array_interface__ = {"data": (address, False)}


def gpu(index, kind, owner):
    """GPU ``index``; every address is memory of this kind of GPU ``owner``."""
    device = object.__new__(GpuDevice)
    device.index = index
    attributes = SimpleNamespace(type=kind, device=owner)
    runtime = SimpleNamespace(pointerGetAttributes=lambda address: attributes)
    cuda = SimpleNamespace(
        runtime=runtime,
        UnownedMemory=lambda *what: what,
        MemoryPointer=lambda memory, offset: memory,
    )
    device.cupy = SimpleNamespace(
        cuda=cuda, uint8="uint8", ndarray=lambda size, kind, pointer: pointer
    )
    return device


@pytest.mark.parametrize(
    ("index", "kind", "owner", "address", "usable"),
    [
        (0, DEVICE, 0, 4096, True),
        (1, MANAGED, 1, 4096, True),
        (0, DEVICE, 1, 4096, False),
        (0, HOST, 0, 4096, False),
        (0, DEVICE, 0, 4100, False),
    ],
)
def test_memory_is_used_as_it_is_where_it_is_this_gpus_and_aligned(
    index, kind, owner, address, usable
):
    found = gpu(index, kind, owner).foreign(Array(address), 64)
    assert (found is not None) == usable
    if found is not None:
        assert (found.address, found.nbytes) == (address, 64)


def test_an_array_that_the_caller_drops_is_freed_though_its_addresses_are_known():
    array = Array(4096)
    dropped = weakref.ref(array)
    kept = gpu(0, DEVICE, 0).foreign(array, 64)
    del array
    gc.collect()
    assert kept is not None and dropped() is None


def test_a_misaligned_operand_is_named_with_both_values_and_a_remedy():
    require_aligned({"x": 32, "y": 48}, 16, "NVRTC vector 4")
    with pytest.raises(DeviceError, match=r"operand 'y' lies at 0x34.*multiple of 16") as e:
        require_aligned({"x": 32, "y": 52}, 16, "NVRTC vector 4")
    assert e.value.place == "NVRTC vector 4" and e.value.remedy
