"""The laboratory: experiments on whole builds."""

from workbench.lab.bisect import BadRewrite, bisect_engines, bisect_rewrites
from workbench.lab.ceilings import Ceilings, measure_ceilings
from workbench.lab.clipping import ClipEditor, Clipped, EndMetric
from workbench.lab.difference import FusionDifference, diff_fusions
from workbench.lab.divergence import Divergence, LayerDivergence, find_divergence
from workbench.lab.inspection import FileNode, ModelInspection, ModelPart, inspect_model
from workbench.lab.model_parts import cut_part
from workbench.lab.operator_uses import OperatorUse
from workbench.lab.overflow import Headroom, Overflow, OverflowHunt, hunt_overflow
from workbench.lab.pareto import FrontPoint, measure_front
from workbench.lab.quality import METRICS, Quality, QualityMeter
from workbench.lab.ranges import Finding, range_findings
from workbench.lab.replay import own_noise
from workbench.lab.search import MinimalFix, SearchStep, bisect_prefixes, find_minimal_fix
from workbench.lab.sensitivity import LayerSensitivity, Sensitivity, measure_sensitivity
from workbench.lab.settings import SCALINGS, ChannelScaling, SettingTrial, compare_settings
from workbench.lab.sparsity import (
    PrunedPoint,
    WeightSparsity,
    acceleration,
    check_sparsity,
    prune,
    pruning_curve,
)
from workbench.lab.steps import Edge, RewriteSteps, edges_of
from workbench.lab.stored_weights import StoredWeight, WeightStatistics, total_bytes
from workbench.lab.trial_record import Trial, TrialRecord
from workbench.lab.trials import PrecisionTrials

__all__ = [
    "BadRewrite",
    "Ceilings",
    "ClipEditor",
    "Clipped",
    "Edge",
    "EndMetric",
    "FileNode",
    "Finding",
    "ModelInspection",
    "ModelPart",
    "OperatorUse",
    "FusionDifference",
    "RewriteSteps",
    "StoredWeight",
    "WeightStatistics",
    "bisect_engines",
    "bisect_rewrites",
    "cut_part",
    "diff_fusions",
    "edges_of",
    "inspect_model",
    "measure_ceilings",
    "range_findings",
    "total_bytes",
    "Divergence",
    "FrontPoint",
    "LayerDivergence",
    "LayerSensitivity",
    "METRICS",
    "MinimalFix",
    "PrecisionTrials",
    "Quality",
    "QualityMeter",
    "SearchStep",
    "Sensitivity",
    "Trial",
    "TrialRecord",
    "bisect_prefixes",
    "find_divergence",
    "find_minimal_fix",
    "measure_front",
    "measure_sensitivity",
    "own_noise",
    "Headroom",
    "Overflow",
    "OverflowHunt",
    "hunt_overflow",
    "PrunedPoint",
    "WeightSparsity",
    "acceleration",
    "check_sparsity",
    "prune",
    "pruning_curve",
    "SCALINGS",
    "ChannelScaling",
    "SettingTrial",
    "compare_settings",
]
