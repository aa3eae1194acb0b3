"""The fusions of the Fuse stage, in order; to add one, add a file and a line."""

from __future__ import annotations

from workbench.devices import Device
from workbench.fusions.activation import ACTIVATION
from workbench.fusions.attention import ATTENTION, ATTENTION_EPILOGUE, ATTENTION_PROLOGUE
from workbench.fusions.attention_quantize import ATTENTION_QUANTIZE
from workbench.fusions.bias import BIAS
from workbench.fusions.cast_pairs import CAST_EARLIER, CAST_PAIRS
from workbench.fusions.dequantize import (
    ABSORB_DEQUANTIZE,
    DEQUANTIZE_LATER,
    DUPLICATE_DEQUANTIZE,
)
from workbench.fusions.embedding import EMBEDDING
from workbench.fusions.horizontal import SIBLING_CONVOLUTIONS, SIBLING_PRODUCTS
from workbench.fusions.integer_attention import (
    INTEGER_ATTENTION,
    INTEGER_ATTENTION_QUANTIZE,
    without_kernel,
)
from workbench.fusions.joins import JOIN_EPILOGUE, JOIN_PROLOGUE
from workbench.fusions.pointwise_chain import POINTWISE_CHAIN
from workbench.fusions.pointwise_epilogue import POINTWISE_EPILOGUE
from workbench.fusions.quantize import (
    ABSORB_QUANTIZE,
    MERGE_QUANTIZE,
    QUANTIZE_BEFORE_CONCAT,
    QUANTIZE_EARLIER,
    QUANTIZE_HALF,
    REQUANTIZE_PAIR,
)
from workbench.fusions.residual import RESIDUAL
from workbench.fusions.rows import (
    NORM_QUANTIZE,
    RESIDUAL_NORM,
    ROW_EPILOGUE,
    ROW_PROLOGUE,
    ROW_QUANTIZE,
)
from workbench.fusions.scale import SCALE
from workbench.fusions.sibling_pointwise import SIBLING_POINTWISE
from workbench.fusions.sizes_only import SIZES_ONLY
from workbench.fusions.split_later import SPLIT_LATER
from workbench.fusions.split_views import SPLIT_VIEWS
from workbench.fusions.weight_only import WEIGHT_ONLY
from workbench.network import NetworkDefinition
from workbench.records import Attempt, Stage
from workbench.rewrite import RewriteRule, apply_rules

FUSIONS: tuple[RewriteRule, ...] = (
    # What Precision and Calibrate wrote, tidied.
    CAST_PAIRS,
    CAST_EARLIER,
    QUANTIZE_HALF,
    MERGE_QUANTIZE,
    REQUANTIZE_PAIR,
    QUANTIZE_EARLIER,
    QUANTIZE_BEFORE_CONCAT,
    DEQUANTIZE_LATER,
    # Before a layer of data takes in a part of it.
    SIZES_ONLY,
    # Horizontal: before each sibling has an epilogue of its own.
    SIBLING_CONVOLUTIONS,
    SIBLING_PRODUCTS,
    SPLIT_LATER,
    # Attention: before its products take in scales and masks of their own.
    ATTENTION,
    INTEGER_ATTENTION,
    ATTENTION_PROLOGUE,
    ATTENTION_EPILOGUE,
    # Vertical: a product takes in what follows it, step by step.
    BIAS,
    SCALE,
    ACTIVATION,
    RESIDUAL,
    POINTWISE_CHAIN,
    POINTWISE_EPILOGUE,
    # Rows: softmax, norms and reductions take in what is left around them.
    ROW_PROLOGUE,
    RESIDUAL_NORM,
    ROW_EPILOGUE,
    ROW_QUANTIZE,
    EMBEDDING,
    # Joins: what is finished where it is joined, then what is joined.
    JOIN_EPILOGUE,
    JOIN_PROLOGUE,
    SPLIT_VIEWS,
    # INT8: what a product reads and writes.
    DUPLICATE_DEQUANTIZE,
    ABSORB_DEQUANTIZE,
    ABSORB_QUANTIZE,
    ATTENTION_QUANTIZE,
    INTEGER_ATTENTION_QUANTIZE,
    WEIGHT_ONLY,
    # Horizontal: what is still on its own.
    SIBLING_POINTWISE,
)


def fuse(
    network: NetworkDefinition,
    *,
    verify: str = "distinct",
    max_rewrites: int | None = None,
    device: Device | None = None,
) -> tuple[Attempt, ...]:
    """Run every fusion to a fixpoint: the Fuse stage. Edits the network in place.

    device: what the network is built for: what no kernel there takes as a whole is not fused, and
    the ledger says so. By default any rule applies.
    """
    rules = FUSIONS
    if device is not None and not multiplies_bytes(device):
        other = without_kernel(device.fingerprint.name)
        rules = tuple(other if r is INTEGER_ATTENTION else r for r in FUSIONS)
    if device is not None and device.kind == "cpu":
        rules = tuple(NORM_QUANTIZE if r is ROW_QUANTIZE else r for r in rules)
    return apply_rules(rules, network, stage=Stage.FUSE, max_rewrites=max_rewrites, verify=verify)


def multiplies_bytes(device: Device) -> bool:
    """Whether a generated CPU kernel has dot products of bytes there: AVX-512 VNNI or AVX-VNNI."""
    found = device.fingerprint
    return found.kind == "cpu" and not {"avx512_vnni", "avx_vnni"}.isdisjoint(found.features)


__all__ = ["FUSIONS", "fuse", "multiplies_bytes"]
