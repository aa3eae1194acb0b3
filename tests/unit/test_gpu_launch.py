"""How a kernel that waits for the one before it is handed to the driver."""

from __future__ import annotations

import contextlib
import ctypes
from types import SimpleNamespace

import pytest

from workbench.errors import DeviceError
from workbench.gpu_launch import KernelLaunch, LoadedKernel, overlapped, waits
from workbench.runtime.launching import on_one_stream

EARLY = 6


class Driver:
    """Reads what it is given as the driver does, from memory."""

    def __init__(self, error: int = 0) -> None:
        self.error, self.seen = error, []

    def cuLaunchKernelEx(self, config, function, arguments, extra):  # noqa: N802
        raw = ctypes.string_at(config, 56)
        numbers = [int.from_bytes(raw[k : k + 4], "little") for k in range(0, 28, 4)]
        stream, attributes, count = (
            int.from_bytes(raw[k : k + size], "little") for k, size in ((32, 8), (40, 8), (48, 4))
        )
        attribute = ctypes.string_at(attributes, 72)
        assert [int.from_bytes(attribute[k : k + 4], "little") for k in (0, 8)] == [EARLY, 1]
        pointers = ctypes.cast(arguments, ctypes.POINTER(ctypes.c_void_p))
        values = [ctypes.c_uint64.from_address(pointers[k]).value for k in range(4)]
        self.seen.append((numbers, stream, count, function.value, values))
        return self.error


def launch(driver, *arguments, early: bool = True) -> KernelLaunch:
    device = SimpleNamespace(library=driver, current=contextlib.nullcontext())
    kernel = LoadedKernel(device, SimpleNamespace(ptr=77), (128, 1, 1), 4096, early)
    return KernelLaunch(kernel, (5, 2, 1), arguments, SimpleNamespace(ptr=99))


def test_the_driver_gets_grid_block_stream_and_addresses():
    driver = Driver()
    one = launch(driver, 2**40, 16, 0)
    one()
    one()
    assert driver.seen == [([5, 2, 1, 128, 1, 1, 4096], 99, 0, 77, [2**40, 16, 0, 0])] * 2


def test_what_is_passed_by_value_is_read_where_it_lies():
    driver = Driver()
    map_ = (ctypes.c_uint64 * 16)(*range(70, 86))
    launch(driver, 5, map_, 6)()
    assert driver.seen[0][-1] == [5, 70, 6, 0]


def test_what_follows_a_kernel_of_ours_starts_early_the_first_one_does_not():
    driver = Driver()
    for one in overlapped([launch(driver, k, 0, 0) for k in range(3)]):
        one()
    assert [seen[2] for seen in driver.seen] == [0, 1, 1]


def test_a_kernel_lets_the_next_one_start_where_it_is_told_to_and_one_of_ours_follows():
    driver = Driver()
    launches = [launch(driver, k, 0, 0) for k in range(4)]
    plan = (launches[0], launches[1], lambda: None, launches[2], launches[3])
    for one in on_one_stream(plan, (True, True, True, False, True)):
        one()
    assert [seen[4][-1] for seen in driver.seen] == [1, 0, 0, 0]
    for one in on_one_stream(plan, (False, True, True, True, True)):
        one()
    assert [seen[4][-1] for seen in driver.seen[4:]] == [0, 0, 1, 0]


@pytest.mark.parametrize(
    "between", ["a library's launch", "a kernel that does not wait"], ids=lambda text: text
)
def test_nothing_starts_early_that_does_not_wait_or_follows_what_does_not(between):
    driver = Driver()
    other = (lambda: None) if "library" in between else launch(driver, 9, 0, 0, early=False)
    for one in overlapped([launch(driver, 1, 0, 0), other, launch(driver, 2, 0, 0)]):
        one()
    assert all(seen[2] == 0 for seen in driver.seen)


def test_what_the_driver_refuses_is_an_error_with_the_launch_in_it():
    with pytest.raises(DeviceError, match=r"grid of \(5, 2, 1\).*4096 bytes.*error 1"):
        launch(Driver(1), 0, 0, 0)()


def test_targets_that_wait_are_those_that_know_how():
    assert [waits(t) for t in ("sm_80", "compute_80", "sm_89", "sm_90", "sm_100")] == [
        False, False, False, True, True
    ]  # fmt: skip
