"""The laboratory: experiments on whole builds."""

from workbench.lab.bisect import BadRewrite, bisect_engines, bisect_rewrites
from workbench.lab.clipping import ClipEditor, Clipped, EndMetric
from workbench.lab.difference import FusionDifference, diff_fusions
from workbench.lab.ranges import Finding, range_findings
from workbench.lab.steps import Edge, RewriteSteps, edges_of

__all__ = [
    "BadRewrite",
    "ClipEditor",
    "Clipped",
    "Edge",
    "EndMetric",
    "Finding",
    "FusionDifference",
    "RewriteSteps",
    "bisect_engines",
    "bisect_rewrites",
    "diff_fusions",
    "edges_of",
    "range_findings",
]
