"""The laboratory: experiments on whole builds."""

from workbench.lab.bisect import BadRewrite, bisect_engines, bisect_rewrites
from workbench.lab.difference import FusionDifference, diff_fusions
from workbench.lab.ranges import Finding, range_findings

__all__ = [
    "BadRewrite",
    "Finding",
    "FusionDifference",
    "bisect_engines",
    "bisect_rewrites",
    "diff_fusions",
    "range_findings",
]
