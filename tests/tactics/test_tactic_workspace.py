"""Workspace of one Call: values that live at the same time never overlap."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.devices import ALIGNMENT
from workbench.tactics.workspace import Lease, lay_out

leases = st.lists(
    st.tuples(st.integers(1, 5000), st.integers(0, 8), st.integers(0, 4)), max_size=12
).map(lambda rows: [Lease(f"v{k}", n, a, a + d) for k, (n, a, d) in enumerate(rows)])


@settings(max_examples=50, deadline=None)
@given(leases)
def test_values_alive_together_lie_apart_aligned_and_inside(values):
    offsets, total = lay_out(values)
    for a in values:
        assert offsets[a.name] % ALIGNMENT == 0
        assert offsets[a.name] + a.nbytes <= total
        for b in values:
            if a is not b and a.meets(b):
                low, high = sorted((a, b), key=lambda v: offsets[v.name])
                assert offsets[low.name] + low.nbytes <= offsets[high.name]


def test_values_that_never_meet_share_memory():
    _, total = lay_out([Lease("a", 1000, 0, 1), Lease("b", 1000, 2, 3)])
    assert total == 1024
