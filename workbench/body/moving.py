"""Operators that only move elements, by what they may do with them: each kind once, for all rooms.

Where an operator commutes with more than these (MaxPool with a monotonic map, say), or hands more
on (Cast), the room that knows why adds it there.
"""

from __future__ import annotations

RESHAPES = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze"})
"""Another shape, the elements in their order."""
SAME_ORDER = RESHAPES | {"Identity"}
"""The elements in their order: their result may be their input's memory as it lies there."""
SHUFFLES = RESHAPES | {"Transpose"}
"""Every element once, in another shape or order: any function of one element commutes with them."""
VIEWS = SHUFFLES | {"Expand", "Identity", "Slice", "Split"}
"""The result is a view of the first input: some of its elements, some perhaps several times."""
MOVING = VIEWS | {"Concat"}
"""Nothing is computed: a reference needs no halves widened and rounded back."""
