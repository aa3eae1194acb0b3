"""Tactics that a plan for other GPUs cannot hold, by name, and what doing without them costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from workbench.gpu_targets import HardwareCompatibilityLevel
from workbench.records import Refusal
from workbench.selection.candidate import Candidate
from workbench.selection.choice import LayerChoice

CODE = "hardware_compatibility"
_PLANS = (
    "a compiled cuDNN plan loads only on the GPU model that built it "
    "(cuDNN frontend 1.1.0, release notes: serialization)"
)
_ALGORITHMS = "cuBLASLt numbers its algorithms anew for each compute capability"
_BOUND: dict[tuple[str, HardwareCompatibilityLevel], str] = {
    ("CUDNN", HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY): _PLANS,
    ("CUDNN", HardwareCompatibilityLevel.AMPERE_PLUS): _PLANS,
    ("CUBLAS_LT", HardwareCompatibilityLevel.AMPERE_PLUS): _ALGORITHMS,
}
"""Why a source's tactics do not travel as far as a level asks."""


def portable(candidate: Candidate, level: HardwareCompatibilityLevel) -> Candidate:
    """The candidate; refused, with what was measured of it, where its plan would not load."""
    reason = _BOUND.get((candidate.source, level))
    if reason is None or not candidate.eligible:
        return candidate
    refusal = Refusal(
        f"{level.name}: {reason}",
        remedy="set hardware_compatibility_level to NONE for a plan for this GPU alone",
        code=CODE,
    )
    return replace(candidate, refusal=refusal)


def compiled_for(source: str, level: HardwareCompatibilityLevel) -> str:
    """What timings of a source belong to beside this GPU: kernels that other targets refuse.

    Empty where the level changes nothing of its kernels.
    """
    travels = (source, level) not in _BOUND
    return level.name if level is HardwareCompatibilityLevel.AMPERE_PLUS and travels else ""


def cost_us(choices: Sequence[LayerChoice]) -> float:
    """What the layers would take less with the tactics that were refused for other GPUs' sake."""
    total = 0.0
    for choice in choices:
        chosen = choice.winner.timing
        refused = [
            c.timing.likely_us
            for c in choice.candidates
            if c.timing and c.refusal and c.refusal.code == CODE
        ]
        if chosen and refused:
            total += max(0.0, chosen.likely_us - min(refused))
    return total
