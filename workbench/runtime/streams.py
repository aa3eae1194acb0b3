"""The launches of a plan in order, with what makes auxiliary streams wait for one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workbench.devices import Device
from workbench.streams import Schedule
from workbench.tactics.protocol import Launch


def across_streams(
    launches: Sequence[Launch], order: Schedule, streams: Sequence[Any], device: Device
) -> tuple[Launch, ...]:
    """Every launch, each after what it needs; the first stream ends after all others.

    launches: of each step, bound to its stream. A CUDA graph that records them forks and joins
    where they wait.
    """
    marks: dict[int, Any] = {}
    found: list[Launch] = []
    awaited = {n for waits in order.waits for n in waits}
    used = sorted(set(order.streams) - {0})

    def fork() -> None:
        start = device.mark(streams[0])
        for k in used:
            device.wait_for(streams[k], start)

    def mark(step: int) -> None:
        marks[step] = device.mark(streams[order.streams[step]])

    def wait(step: int) -> None:
        for n in order.waits[step]:
            device.wait_for(streams[order.streams[step]], marks[n])

    def join() -> None:
        for k in used:
            device.wait_for(streams[0], device.mark(streams[k]))

    found.append(fork)
    for step, launch in enumerate(launches):
        if order.waits[step]:
            found.append(lambda step=step: wait(step))
        found.append(launch)
        if step in awaited:
            found.append(lambda step=step: mark(step))
    found.append(join)
    return tuple(found)
