"""The upgrade table: (operator, version) -> newest form, one node at a time.

``onnx.version_converter`` is not used: it silently changes what Resize-10 means, breaks
GroupNormalization-18, and forgets which node a new one comes from.
"""

from __future__ import annotations

from collections.abc import Mapping

from workbench.onnx_parser.expansion import LOWERED, STANDARD_BODIES
from workbench.onnx_parser.problems import ErrorCode
from workbench.onnx_parser.schemas import OPSET, schema
from workbench.onnx_parser.site import Site, Step, Upgrade
from workbench.onnx_parser.upgrade_attributes import ATTRIBUTE_UPGRADES
from workbench.onnx_parser.upgrade_decompositions import DECOMPOSITIONS
from workbench.onnx_parser.upgrade_ml import ML_UPGRADES
from workbench.onnx_parser.upgrade_resize import RESIZE_UPGRADES
from workbench.onnx_parser.versions import UNCHANGED
from workbench.operators import OPERATORS

UPGRADES: Mapping[tuple[str, int], Upgrade] = {
    **ATTRIBUTE_UPGRADES,
    **DECOMPOSITIONS,
    **RESIZE_UPGRADES,
    **ML_UPGRADES,
}
"""(operator, version) -> its newest form. Versions that mean the same are in ``UNCHANGED``."""


def upgraded(site: Site) -> tuple[Step, ...]:
    """The node in newest forms. Raises ParserError where there is none."""
    node = site.node
    row = schema(node.operator, node.version)
    assert row is not None
    if reason := _missing_row(node.operator, row.since):
        site.refuse(ErrorCode.UNSUPPORTED_NODE, reason, "export with a newer opset")
    upgrade = UPGRADES.get((node.operator, row.since))
    return upgrade.rule(site) if upgrade is not None else (site.step(),)


def is_imported(operator: str, since: int) -> str:
    """Empty where a node of this version can be imported, else the reason why not."""
    if reason := _missing_row(operator, since):
        return reason
    upgrade = UPGRADES.get((operator, since))
    targets = upgrade.targets if upgrade is not None and upgrade.targets else (operator,)
    missing = [t for t in targets if not is_known(t)]
    if not missing:
        return ""
    if missing == [operator]:
        return "the workbench does not have it yet"
    return f"version {since} is written as {', '.join(targets)}, and {missing[0]} is not there yet"


def is_rewritten(operator: str, opset: int) -> bool:
    """Whether a rule of ours reads a node of this opset, and so trusts its types."""
    row = schema(operator, opset)
    upgraded_here = row is not None and (operator, row.since) in UPGRADES
    return upgraded_here or operator in LOWERED or operator in STANDARD_BODIES


def is_known(operator: str) -> bool:
    """Whether the newest form of an operator has a row, or is written as others that have."""
    return operator in OPERATORS or operator in LOWERED or operator in STANDARD_BODIES


def _missing_row(operator: str, since: int) -> str:
    newest = schema(operator, OPSET)
    assert newest is not None
    same = since == newest.since or since in UNCHANGED.get(operator, ())
    if same or (operator, since) in UPGRADES:
        return ""
    return f"its version {since} is older than the upgrade table"
