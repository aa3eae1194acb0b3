"""Upgrades of Upsample and Resize."""

from __future__ import annotations

import numpy as np

from workbench.body import Array
from workbench.onnx_parser.problems import ErrorCode
from workbench.onnx_parser.site import Site, Step, Upgrade


def _before_11(site: Site) -> tuple[Step, ...]:
    """Output pixel i reads input pixel i / scale: between its neighbours, or the nearest."""
    given = site.attribute("scales") if site.node.operator == "Upsample" else None
    scales = np.array(given, np.float32) if given is not None else site.value(1)
    nearest = site.attribute("mode", "nearest") == "nearest"
    if scales is None and nearest:
        return _nearest_later(site)
    if scales is not None and nearest:
        return _nearest(site, scales)
    stored = site.input(1) if scales is None else site.constant("scales", scales, np.float32)
    return (_asymmetric(site.input(0), stored, site.node.outputs[0], mode="linear"),)


def _nearest(site: Site, scales: Array) -> tuple[Step, ...]:
    """The pixel below i / scale on an axis that grows, the one above on an axis that shrinks.

    Version 10 does not say which is nearest. Source: the standard's test of version 10
    (``resize_downsample_scales_nearest``), and what ONNX Runtime does.
    """
    steps: list[Step] = []
    source = site.input(0)
    passes = [
        (np.minimum(scales, 1), "ceil", bool(np.any(scales < 1))),
        (np.maximum(scales, 1), "floor", bool(np.any(scales > 1) or np.all(scales == 1))),
    ]
    needed = [(factor, rounding) for factor, rounding, used in passes if used]
    for i, (factor, rounding) in enumerate(needed):
        result = site.node.outputs[0] if i == len(needed) - 1 else site.fresh("shrunk")
        stored = site.constant(f"scales_{rounding}", factor, np.float32)
        steps.append(_asymmetric(source, stored, result, rounding=rounding))
        source = result
    return tuple(steps)


def _nearest_later(site: Site) -> tuple[Step, ...]:
    """As ``_nearest``, of scales that are only known at run time."""
    one = site.constant("one", 1, np.float32)
    down, up, shrunk = (site.fresh(n) for n in ("scales_down", "scales_up", "shrunk"))
    return (
        Step("Min", (site.input(1), one), (down,)),
        Step("Max", (site.input(1), one), (up,)),
        _asymmetric(site.input(0), down, shrunk, rounding="ceil"),
        _asymmetric(shrunk, up, site.node.outputs[0], rounding="floor"),
    )


def _asymmetric(
    source: str, scales: str, result: str, *, mode: str = "nearest", rounding: str = ""
) -> Step:
    attributes = {"mode": mode, "coordinate_transformation_mode": "asymmetric"}
    if rounding:
        attributes["nearest_mode"] = rounding
    return Step("Resize", (source, "", scales), (result,), attributes)


def _from_11(site: Site) -> tuple[Step, ...]:
    """Version 11 had to write an input that is not given as an empty tensor."""
    if site.attribute("coordinate_transformation_mode") == "tf_half_pixel_for_nn":
        site.refuse(
            ErrorCode.UNSUPPORTED_NODE_ATTR,
            "coordinate_transformation_mode tf_half_pixel_for_nn has no newest form",
            "export with half_pixel or asymmetric",
        )
    inputs = list(site.node.inputs)
    for i in range(1, len(inputs)):
        if inputs[i] and site.type(i).shape == (0,):
            inputs[i] = ""
    return (site.step(inputs=tuple(inputs)),)


RESIZE_UPGRADES: dict[tuple[str, int], Upgrade] = {
    ("Upsample", 7): Upgrade(_before_11, ("Resize",)),
    ("Upsample", 9): Upgrade(_before_11, ("Resize", "Min", "Max")),
    ("Resize", 10): Upgrade(_before_11, ("Resize", "Min", "Max")),
    **{("Resize", v): Upgrade(_from_11) for v in (11, 13, 18, 19)},
}
