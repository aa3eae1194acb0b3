"""Which GPUs a plan's machine code runs on: TensorRT's hardware compatibility levels.

A cubin runs on its own compute capability and on later ones of the same major version; PTX, which
the driver compiles when it is loaded, on every later one.
Source: CUDA C++ Programming Guide, "Binary Compatibility" and "PTX Compatibility".
"""

from __future__ import annotations

import enum

from workbench.devices import Fingerprint

OLDEST_PORTABLE = 80
"""Compute capability, times ten, of Ampere: what portable code must keep to."""
PTX = f"compute_{OLDEST_PORTABLE}"
"""The target that later GPUs compile for themselves."""


class HardwareCompatibilityLevel(enum.Enum):
    """On which other GPUs a plan must load, named as TensorRT names it.

    NONE: GPUs of the model that built it. SAME_COMPUTE_CAPABILITY: also other models of the same
    compute capability. AMPERE_PLUS: every GPU of compute capability 8.0 and later.
    """

    NONE = "NONE"
    AMPERE_PLUS = "AMPERE_PLUS"
    SAME_COMPUTE_CAPABILITY = "SAME_COMPUTE_CAPABILITY"


def capability_of(fingerprint: Fingerprint) -> int | None:
    """A GPU's compute capability, times ten; None where the fingerprint has none."""
    for feature in fingerprint.features:
        if feature.startswith("sm_") and feature[3:].isdigit():
            return int(feature[3:])
    return None


def carried(level: HardwareCompatibilityLevel, capability: int) -> tuple[str, ...]:
    """The targets for which a plan carries each kernel, this device's own first."""
    own = f"sm_{capability}"
    if level is not HardwareCompatibilityLevel.AMPERE_PLUS:
        return (own,)
    return tuple(dict.fromkeys((own, f"sm_{OLDEST_PORTABLE}", PTX)))


def runnable(capability: int) -> tuple[str, ...]:
    """The targets whose code a device runs, best first."""
    own = f"sm_{capability}"
    if capability < OLDEST_PORTABLE:
        return (own,)
    same_major = capability // 10 == OLDEST_PORTABLE // 10
    return tuple(dict.fromkeys((own, *([f"sm_{OLDEST_PORTABLE}"] if same_major else []), PTX)))


def least_capability(level: HardwareCompatibilityLevel, capability: int) -> int:
    """The oldest compute capability that a kernel must run on, times ten."""
    portable = level is HardwareCompatibilityLevel.AMPERE_PLUS
    return min(capability, OLDEST_PORTABLE) if portable else capability


def why_not_here(
    level: HardwareCompatibilityLevel, built: Fingerprint, here: Fingerprint
) -> tuple[str, str] | None:
    """Why a GPU's plan does not load on another GPU, and what would mend it; None if it does."""
    if built == here:
        return None
    have, found = capability_of(built), capability_of(here)
    match level:
        case HardwareCompatibilityLevel.NONE:
            reason = f"it was built on {built} for that GPU alone, this is {here}"
            same = f"{HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY.name} or "
            wanted = f"{same if have == found else ''}{HardwareCompatibilityLevel.AMPERE_PLUS.name}"
        case HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY:
            if have == found:
                return None
            reason = (
                f"it was built on {built} for GPUs of the same compute capability, this is {here}"
            )
            wanted = HardwareCompatibilityLevel.AMPERE_PLUS.name
        case HardwareCompatibilityLevel.AMPERE_PLUS:
            if found is not None and found >= OLDEST_PORTABLE:
                return None
            oldest = OLDEST_PORTABLE / 10
            reason = f"it is for GPUs of compute capability {oldest} and later, this is {here}"
            return reason, "build it on this GPU"
    return reason, f"build it on this GPU, or with hardware_compatibility_level = {wanted}"
