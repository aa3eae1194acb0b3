"""Which of the caller's memory a GPU's kernels use as it is; needs no GPU."""

from __future__ import annotations

import gc
import weakref
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from workbench.errors import DeviceError
from workbench.gpu_device import GpuDevice, require_aligned

HOST, DEVICE, MANAGED = 1, 2, 3


class Array:
    """16 numbers of the caller's, wherever they lie."""

    def __init__(self, address, shape=(4, 4), strides=None, typestr="<f4"):
        self.__cuda_array_interface__ = {
            "data": (address, False),
            "shape": shape,
            "strides": strides,
            "typestr": typestr,
        }


def gpu(index, kind, owner):
    """GPU ``index``; every address is memory of this kind of GPU ``owner``."""
    device = object.__new__(GpuDevice)
    device.index, device.current = index, nullcontext()
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


@pytest.mark.parametrize("strides", [None, (16, 4)])
def test_an_array_in_order_is_taken_where_it_is(strides):
    device = gpu(0, DEVICE, 0)
    assert device.address_of(Array(4096, strides=strides), 64) == 4096
    one_row = Array(4096, shape=(1, 16), strides=(1024, 4))
    assert device.address_of(one_row, 64) == 4096
    assert device.address_of(Array(4096, typestr="<V2"), 32) == 4096


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (Array(4096, strides=(4, 16)), "64 bytes in pieces, 64 are needed"),
        (Array(4096, shape=(2, 3), strides=(16, 4)), "24 bytes in pieces"),
        (Array(4096, shape=(15,)), "60 bytes, 64 are needed"),
        (np.zeros((4, 4), np.float32).T, "64 bytes in pieces"),
        (np.zeros(15, np.float32), "60 bytes, 64 are needed"),
        ([0.0] * 16, "no array in the host's memory"),
    ],
)
def test_an_array_in_pieces_or_too_small_is_refused_before_a_kernel_reads_it(array, said):
    device = gpu(0, DEVICE, 0)
    for use in (device.address_of, device.foreign):
        with pytest.raises(DeviceError, match=said):
            use(array, 64)
