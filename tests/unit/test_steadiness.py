"""A busy device is noticed before anything is timed, and what is timed there is marked noisy."""

from __future__ import annotations

import pytest
from engines import build, config

from workbench.devices import CpuDevice
from workbench.selection import candidates
from workbench.timing import Steadiness, steadiness


class Scripted:
    """A device whose fixed kernel takes the times that the test says."""

    def __init__(self, samples):
        self.samples = samples

    def fixed_work(self):
        return lambda: None

    def synchronize(self, stream=None):
        pass

    def timer(self, launch, stream, threads=1):
        return lambda count: (self.samples * count)[:count]


@pytest.mark.parametrize(
    ("samples", "busy"),
    [
        ([50.0, 50.4, 49.9, 51.0], False),
        ([50.0, 51.0, 50.0, 50.0, 50.0, 90.0, 50.0, 95.0, 50.0, 70.0], True),
        ([50.0] * 19 + [500.0], False),  # one interruption is nobody else's work
    ],
)
def test_the_spread_of_a_fixed_kernel_says_whether_the_device_is_busy(samples, busy):
    found = steadiness(Scripted(samples))
    assert found.busy is busy
    assert ("the device is busy" in str(found)) is busy


def test_the_cpus_fixed_kernel_is_long_enough_for_its_clock():
    assert 10 < steadiness(CpuDevice(1)).median_us < 100_000


@pytest.mark.parametrize(("spread", "busy"), [(0.01, False), (0.6, True)])
def test_a_build_on_a_busy_device_says_so_and_marks_what_it_timed(monkeypatch, spread, busy):
    monkeypatch.setattr(candidates, "steadiness", lambda device: Steadiness(50.0, spread, 20))
    state = build(config(level=1))
    (summary,) = (r.summary for r in state.log.records if r.stage.value == "Tune")
    assert ("a fixed kernel of 50 µs varies by 60%" in summary) is busy
    timed = [
        c.timing
        for x in state.tuned.layers
        for c in x.candidates
        if c.timing and c.source != "VIEW"
    ]
    assert timed
    if busy:
        assert all(t.noisy for t in timed)
        assert all(e.timing.noisy for e in state.cache.entries.values() if e.timing)


def test_an_untimed_build_measures_no_steadiness(monkeypatch):
    def asked(device):
        raise AssertionError("level 0 times nothing")

    monkeypatch.setattr(candidates, "steadiness", asked)
    build(config(level=0))
