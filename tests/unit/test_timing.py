from __future__ import annotations

import time
from dataclasses import replace

import pytest

from workbench import cpu_clock
from workbench.devices import CpuDevice
from workbench.errors import TimingCacheError
from workbench.timing import Entry, Timing, TimingCache, measure, measure_again

DEVICE = CpuDevice().fingerprint


def timing(median: float, spread: float = 0.1) -> Timing:
    return Timing(median, median, spread, 8, "2026-01-01")


class Clock:
    """A clock that only ``pass_us`` moves: what is timed takes as long as it says, on any machine.

    preempted: how often the system took the processor away; every such run is timed again.
    """

    def __init__(self) -> None:
        self.now_ns = self.preempted = 0

    def perf_counter_ns(self) -> int:
        return self.now_ns

    def pass_us(self, us: float) -> None:
        self.now_ns += round(1e3 * us)


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(cpu_clock, "time", made)
    monkeypatch.setattr(cpu_clock, "_preemptions", lambda: made.preempted)
    return made


def test_a_launch_of_a_millisecond_measures_as_one(clock):
    found = measure(lambda: clock.pass_us(1000), CpuDevice(1), iterations=5)
    assert (found.min_us, found.median_us, found.samples) == (1000, 1000, 5)


def test_a_launch_too_short_for_the_clock_is_repeated_and_divided(clock):
    runs = []

    def launch():
        runs.append(1)
        clock.pass_us(2)

    assert measure(launch, CpuDevice(1), iterations=5).median_us == 2
    assert len(runs) > 5 * 10


def test_the_machines_own_clock_is_read():
    found = measure(lambda: time.sleep(1e-3), CpuDevice(1), iterations=5)
    assert found.min_us >= 1000 and found.samples >= 5


def test_a_hopeless_launch_is_cut_off_after_a_few_runs(clock):
    runs = []

    def launch():
        runs.append(1)
        clock.pass_us(2000)

    found = measure(launch, CpuDevice(1), iterations=50, best_us=10)
    assert found.cut_off and found.median_us == 2000
    assert len(runs) <= 5


def test_a_run_that_lost_the_processor_is_timed_again(clock):
    runs = []

    def launch():
        runs.append(1)
        lost = len(runs) % 2 == 0
        clock.preempted += lost
        clock.pass_us(9000 if lost else 1000)

    found = measure(launch, CpuDevice(1), iterations=5)
    assert (found.median_us, found.samples) == (1000, 5)
    assert len(runs) > 5 + 2


class Scripted(CpuDevice):
    """Samples as they are written down."""

    def __init__(self, *samples: float) -> None:
        super().__init__(1)
        self.samples = list(samples)

    def timer(self, launch, stream, threads=1):
        def take(count: int) -> list[float]:
            taken, self.samples = self.samples[:count], self.samples[count:]
            return taken

        return take


def test_a_noisy_timing_of_a_contender_is_taken_again_until_it_is_steady():
    rough, steady = [90.0, 10.0, 60.0, 30.0], [10.0] * 12
    found = measure(lambda: None, Scripted(10.0, *rough, *steady), iterations=4, best_us=12)
    assert (found.samples, found.min_us, found.median_us) == (8, 10.0, 10.0)
    again = measure(lambda: None, Scripted(10.0, *rough * 9), iterations=4, best_us=12)
    assert (again.samples, again.noisy) == (16, True)


def test_of_two_timings_at_different_moments_the_quieter_counts_with_all_its_samples():
    again = {"glance": 2, "iterations": 4, "threads": 1}
    first = measure(lambda: None, Scripted(20.0, *[20.0] * 4), iterations=4)
    quiet = measure_again(lambda: None, Scripted(*[10.0] * 6), first, **again)
    assert (quiet.median_us, quiet.samples) == (10.0, 4)
    disturbed = measure_again(lambda: None, Scripted(*[30.0] * 6), quiet, **again)
    assert disturbed is quiet
    lucky = measure_again(lambda: None, Scripted(5.0, 5.0, *[30.0] * 4), quiet, **again)
    assert lucky is quiet


def test_a_noisy_timing_far_behind_and_a_steady_one_are_taken_once():
    behind = Scripted(30.0, 90.0, 30.0, 60.0, 40.0, 50.0)
    assert measure(lambda: None, behind, iterations=4, best_us=12).samples == 4
    steady = Scripted(*[10.0] * 9)
    assert measure(lambda: None, steady, iterations=4, best_us=12).samples == 4


def test_timings_within_each_others_noise_are_not_distinguishable():
    assert not timing(100, spread=6).distinguishable(timing(105))
    assert not timing(100).distinguishable(timing(102))
    assert timing(100).distinguishable(timing(110))


def test_a_tactic_far_behind_is_no_tie_however_noisy_it_was():
    assert timing(1200, spread=1400).distinguishable(timing(300, spread=40))
    assert not timing(400, spread=150).distinguishable(timing(300, spread=40))


def test_scattered_samples_are_called_noisy():
    assert Timing.of([10, 30, 90, 20, 70]).noisy
    assert not Timing.of([10, 10.1, 10.2, 9.9, 10]).noisy


def test_a_cache_read_back_holds_the_same_entries(tmp_path):
    cache = TimingCache(DEVICE)
    cache.update("a", Entry(timing(3.5), 0.25, kernel="k"))
    cache.update("b", Entry(None, failure="no"))
    cache.save(tmp_path / "cache.json")
    assert TimingCache.load(tmp_path / "cache.json", DEVICE).entries == cache.entries
    assert cache.serialize() == TimingCache.deserialize(cache.serialize()).serialize()


def test_saving_keeps_what_another_process_stored_meanwhile(tmp_path):
    mine, other = TimingCache(DEVICE), TimingCache(DEVICE)
    mine.update("mine", Entry(timing(1)))
    other.update("other", Entry(timing(2)))
    other.save(tmp_path / "c.json")
    mine.save(tmp_path / "c.json")
    assert set(TimingCache.load(tmp_path / "c.json", DEVICE).entries) == {"mine", "other"}


def test_a_cache_of_another_device_is_refused_naming_both():
    other = TimingCache(replace(DEVICE, name="Another CPU"))
    with pytest.raises(TimingCacheError, match="Another CPU"):
        TimingCache(DEVICE).combine(other)


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b'{"format": "x"}', b"\xff\xfe"])
def test_a_damaged_cache_is_refused(data):
    with pytest.raises(TimingCacheError, match="damaged"):
        TimingCache.deserialize(data)
