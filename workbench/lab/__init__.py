"""The laboratory: experiments on whole builds."""

from workbench.lab.bisect import BadRewrite, bisect_engines, bisect_rewrites

__all__ = ["BadRewrite", "bisect_engines", "bisect_rewrites"]
