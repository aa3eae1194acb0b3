"""Which settings of a BuilderConfig a stage reads: a changed one outdates it and what follows."""

from __future__ import annotations

from collections.abc import Mapping

from workbench.records import Stage

STAGE_SETTINGS: Mapping[Stage, tuple[str, ...]] = {
    Stage.PARSE: ("max_loop_steps",),
    Stage.FOLD: ("verify",),
    Stage.PROFILES: ("optimization_profiles",),
    Stage.PRECISION: ("default_precision", "precisions"),
    Stage.CALIBRATE: (
        "calibrator",
        "percentile",
        "weight_scales",
        "equalize_channels",
        "smooth_alpha",
        "dynamic_ranges",
    ),
    Stage.FUSE: ("verify",),
    Stage.TUNE: (
        "builder_optimization_level",
        "max_num_tactics",
        "avg_timing_iterations",
        "tactic_sources",
        "memory_pool_limits",
        "num_threads",
        "flags",
        "allow_host_layers",
        "hardware_compatibility_level",
    ),
}
"""By their names in ``BuilderConfig.to_json``. Stages that are not listed read them all."""
