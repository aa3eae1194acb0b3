"""Upgrades of the domain ai.onnx.ml."""

from __future__ import annotations

from workbench.datatypes import DataType
from workbench.onnx_parser.site import Site, Step, Upgrade


def _label_encoder(site: Site) -> tuple[Step, ...]:
    """``classes_strings`` and their indices become keys and values, in the input's direction."""
    classes = tuple(site.attribute("classes_strings", ()))
    indices = tuple(range(len(classes)))
    old = ("classes_strings", "default_int64", "default_string")
    if site.type(0).dtype is DataType.STRING:
        default = site.attribute("default_int64", -1)
        return (
            site.step(
                without=old, keys_strings=classes, values_int64s=indices, default_int64=default
            ),
        )
    default = site.attribute("default_string", "_Unused")
    return (
        site.step(without=old, keys_int64s=indices, values_strings=classes, default_string=default),
    )


ML_UPGRADES: dict[tuple[str, int], Upgrade] = {
    ("ai.onnx.ml::LabelEncoder", 1): Upgrade(_label_encoder),
}
