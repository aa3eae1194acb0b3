"""How many tactics of each source are tried for one layer."""

from __future__ import annotations

from collections.abc import Mapping

TACTICS_BY_LEVEL = (4, 4, 8, 24, 64, 1 << 30)
"""Tactics timed a layer and source at builder_optimization_level 0 to 5.

Of a piece of a fused layer, timed for comparison, so many as one level lower, below level 4."""


def in_turns(offered: Mapping[str, int], most: int) -> dict[str, int]:
    """A layer's ``most`` tactics dealt out to its sources, one each in turn, in their order.

    offered: how many tactics each source has. So the best guess of each is tried first.
    """
    given = dict.fromkeys(offered, 0)
    while most > 0 and any(given[n] < offered[n] for n in offered):
        for name in (n for n in offered if given[n] < offered[n]):
            if most > 0:
                given[name] += 1
                most -= 1
    return given
