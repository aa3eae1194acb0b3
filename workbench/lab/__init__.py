"""The laboratory: experiments on whole builds."""

from workbench.lab.bisect import BadRewrite, bisect_engines, bisect_rewrites
from workbench.lab.ranges import Finding, range_findings

__all__ = ["BadRewrite", "Finding", "bisect_engines", "bisect_rewrites", "range_findings"]
