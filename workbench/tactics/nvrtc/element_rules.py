"""Every rule that gives an element of an operator's result, and the Elements that use them."""

from __future__ import annotations

from collections.abc import Mapping

from workbench.body import Body
from workbench.formats import Format
from workbench.tactics.nvrtc.elements import Elements, Movement
from workbench.tactics.nvrtc.images import IMAGES
from workbench.tactics.nvrtc.movements import MOVEMENTS
from workbench.tactics.nvrtc.places import PLACES
from workbench.tactics.nvrtc.sums import SUMS

ELEMENT_RULES: dict[str, Movement] = {**MOVEMENTS, **PLACES, **SUMS, **IMAGES}
"""By operator."""
LOOPING = frozenset({*SUMS, *IMAGES, "Col2Im"})
"""Operators of which a thread loops for each element: it takes one element, not a vector."""


def elements_of(body: Body, layouts: Mapping[str, Format]) -> Elements:
    """The elements of a Body's values; layouts: of inputs that are not linear."""
    return Elements(body, layouts, ELEMENT_RULES)
