"""Precision requests, resolved per layer and written into the graph as Cast and Q/DQ."""

from workbench.precision.casts import cast_weight, write_casts
from workbench.precision.decisions import (
    QUANTIZABLE,
    RESIDUAL,
    PrecisionDecision,
    channel_axes,
    quantizable_tensors,
    requested_by_layer,
    resolve,
)
from workbench.precision.quantize import write_qdq

__all__ = [
    "QUANTIZABLE",
    "RESIDUAL",
    "PrecisionDecision",
    "cast_weight",
    "channel_axes",
    "quantizable_tensors",
    "requested_by_layer",
    "resolve",
    "write_casts",
    "write_qdq",
]
