"""Constants go to the device in C order, in parts that fit the pinned memory."""

from __future__ import annotations

import ctypes
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from workbench.devices import CpuDevice
from workbench.gpu_constants import Staging


@pytest.fixture
def staging():
    copies = []

    def copy(target, source, nbytes):
        copies.append(nbytes)
        ctypes.memmove(target, source, nbytes)

    return Staging(CpuDevice(1).pinned(256), copy), copies


@pytest.mark.parametrize(
    "array",
    [
        np.arange(7, dtype=np.float32),
        np.float32(3).reshape(()),
        np.arange(600, dtype=np.int16).reshape(20, 30).T,
        np.arange(4096, dtype=np.float32).reshape(2, 8, 256).transpose(0, 2, 1),
        np.arange(300, dtype=np.float64),
        np.zeros((0, 4), np.float32),
    ],
    ids=lambda a: f"{a.dtype}{a.shape}",
)
def test_an_array_arrives_in_order_however_it_lies_and_however_large(array, staging):
    place, copies = staging
    target = np.zeros(array.shape, array.dtype)
    place.upload(array, target.ctypes.data)
    assert np.array_equal(target, array)
    assert sum(copies) == array.nbytes and max(copies, default=0) <= 256


def test_threads_that_upload_at_once_do_not_mix_their_constants():
    def copy(target, source, nbytes):
        time.sleep(0.001)  # as long as another thread may write there meanwhile
        ctypes.memmove(target, source, nbytes)

    staging = Staging(CpuDevice(1).pinned(256), copy)
    arrays = [np.full(200, k, np.float32) for k in range(8)]
    targets = [np.zeros_like(a) for a in arrays]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(staging.upload, arrays, [t.ctypes.data for t in targets]))
    assert np.array_equal(targets, arrays)
