"""CUDA's current device: made this GPU for what is allocated, loaded and launched on it.

CUDA has one current device a thread. It is the caller's: whatever changes it puts it back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar


class OfOneDevice(Protocol):
    """Something of one GPU. current: ``with self.current:`` makes that CUDA's current device."""

    current: Any


Owner = TypeVar("Owner", bound=OfOneDevice)
Given = ParamSpec("Given")
Result = TypeVar("Result")


def on_own_device(
    method: Callable[Concatenate[Owner, Given], Result],
) -> Callable[Concatenate[Owner, Given], Result]:
    """A method that runs on its own GPU, whichever is current, and leaves the caller's current."""

    @wraps(method)
    def within(self: Owner, /, *given: Given.args, **named: Given.kwargs) -> Result:
        with self.current:
            return method(self, *given, **named)

    return within


@dataclass(eq=False)
class DeviceGraph:
    """A CUDA graph on the GPU that recorded it."""

    current: Any
    recorded: Any

    @on_own_device
    def launch(self, stream: Any) -> None:
        """Enqueue it on a stream of that GPU."""
        self.recorded.launch(stream)
