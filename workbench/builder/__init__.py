"""The builder: the stages in order, each a function from one frozen BuildState to the next.

The stepper, ``build_serialized_network`` and printed scripts all run these functions.
"""

from workbench.builder.builder import Builder, build
from workbench.builder.scaling import keep_ranges
from workbench.builder.stages import STAGES, run_stages, start
from workbench.builder.state import Batch, BuildState, StageFunction
from workbench.builder.weak_typing import TypeChoice, WeakTyping, weak_types

__all__ = [
    "STAGES",
    "Batch",
    "BuildState",
    "Builder",
    "StageFunction",
    "TypeChoice",
    "WeakTyping",
    "build",
    "keep_ranges",
    "run_stages",
    "start",
    "weak_types",
]
