"""Which candidates are worth choosing from, and which of several is the fastest."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from workbench.body import TensorType
from workbench.datatypes import DataType
from workbench.devices import Device
from workbench.formats import Format
from workbench.gpu_launch import WAITS_SINCE
from workbench.gpu_targets import capability_of
from workbench.selection.candidate import Candidate

CLOSE = 1.05
MOST_FOR_EXACTNESS = 1.6
"""Times as long as the fastest a tactic may take to be chosen for its smaller error."""
ROUNDING = 2.0**-25
"""Relative error of a result that was rounded to float32 once."""
ERROR_PRICE = 0.7
"""Of a tactic's time, what twice the error of the most exact one costs, and what each further
multiple of that does: one long chain of sums loses where sums in blocks take little longer. By
multiples, not by doublings: the errors of layers add up by their squares, the largest decide."""

OUR_KERNELS = frozenset({"NVRTC", "TRITON", "WGMMA"})
"""Sources whose kernels ``gpu_launch`` launches."""

UNTIMED_REFORMAT = 0.25
"""Cost of a reformat at level 0, where a layer's cost is its candidate's place."""

Layouts = tuple[tuple[Format, ...], tuple[Format, ...]]
Reformat = Callable[[TensorType, Format, Format], Candidate | None]
"""The fastest tactic that rewrites a tensor to another layout, or None."""


def formats_of(candidate: Candidate) -> Layouts:
    """Layouts of a candidate's dynamic inputs and outputs."""
    assert candidate.tactic is not None
    return candidate.tactic.inputs, candidate.tactic.outputs


def menu(
    candidates: Sequence[Candidate],
    order: Mapping[str, int],
    kind: Callable[[Candidate], bool] = lambda candidate: False,
) -> list[Candidate]:
    """The fastest eligible candidate for each combination of layouts, and of each ``kind``."""
    groups: dict[tuple[Layouts, bool], list[Candidate]] = {}
    for c in candidates:
        if c.eligible:
            groups.setdefault((formats_of(c), kind(c)), []).append(c)
    return [fastest(g, order) for g in groups.values()]


def node_us(place: int, candidate: Candidate) -> float:
    """Its likely time; at level 0, which times nothing, its place in the menu."""
    return candidate.timing.likely_us if candidate.timing else float(place)


def reformat_us(reformat: Reformat, type_: TensorType, source: Format, target: Format) -> float:
    """Likely time of rewriting a tensor to another layout; infinite where nothing does."""
    if source == target:
        return 0.0
    best = reformat(type_, source, target)
    if best is None:
        return math.inf
    return best.timing.likely_us if best.timing else UNTIMED_REFORMAT


def launched_early(candidate: Candidate, device: Device) -> bool:
    """Whether its kernels are ours and wait for the one before them themselves."""
    capability = capability_of(device.fingerprint) if device.kind == "gpu" else None
    return candidate.source in OUR_KERNELS and (capability or 0) >= WAITS_SINCE


def fastest(candidates: Sequence[Candidate], order: Mapping[str, int]) -> Candidate:
    """The fastest; among those that time cannot tell from it, the first by source, then as offered.

    A source offers its best guess first. However wide the spreads: who is likely to take CLOSE
    times as long is no equal. Errors have a price, see ``priced_us``.
    """
    timed = [(c.timing, c) for c in candidates if c.timing is not None]
    if not timed:
        return candidates[0]
    within = MOST_FOR_EXACTNESS * min(t.likely_us for t, _ in timed)
    timed = [(t, c) for t, c in timed if t.likely_us <= within]
    least = least_error([c for _, c in timed])
    price = {id(c): priced_us(c, least) for _, c in timed}
    best, cheapest = min(timed, key=lambda t: price[id(t[1])])
    limit = CLOSE * price[id(cheapest)]
    close = [
        c
        for t, c in timed
        if price[id(c)] <= limit
        and not t.distinguishable(best)
        and _error_of(c, least) <= CLOSE * _error_of(cheapest, least)
    ]
    return min(close, key=lambda c: (order.get(c.source, len(order)), not _in_place(c)))


def least_error(candidates: Sequence[Candidate]) -> float:
    """The error of the most exact one that computes in float32, at least ROUNDING."""
    known = [c.error for c in candidates if c.error is not None and in_float32(c)]
    return max(ROUNDING, min(known, default=0.0))


def priced_us(candidate: Candidate, least: float) -> float:
    """Its likely time, and ERROR_PRICE of it for each multiple of the least error beyond it."""
    assert candidate.timing is not None
    return candidate.timing.likely_us * (1 + ERROR_PRICE * (_error_of(candidate, least) - 1))


def _error_of(candidate: Candidate, least: float) -> float:
    """Its error as a multiple of the least; 1 where there is none to tell."""
    if candidate.error is None or not in_float32(candidate):
        return 1.0
    return max(1.0, candidate.error / least)


def in_float32(candidate: Candidate) -> bool:
    """Whether its error has a price. TF32's has none: where it is allowed, it is wanted."""
    tactic = candidate.tactic
    return tactic is not None and tactic.precision is DataType.FLOAT and not tactic.tf32


def _in_place(candidate: Candidate) -> bool:
    """Whether it writes over an input: less memory is touched, which the next layers feel."""
    return candidate.tactic is not None and candidate.tactic.overwrites is not None
