from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.devices import ALIGNMENT
from workbench.memory import Lifetime, plan_memory


@st.composite
def lifetimes(draw):
    found = []
    for index in range(draw(st.integers(0, 20))):
        first = draw(st.integers(0, 15))
        last = first + draw(st.integers(0, 6))
        found.append(Lifetime(f"t{index}", first, last, draw(st.integers(1, 5000))))
    return found


@given(lifetimes())
@settings(max_examples=200, deadline=None)
def test_no_two_tensors_that_live_at_once_overlap(items):
    plan = plan_memory(items)
    for a in items:
        assert plan.offsets[a.name] % ALIGNMENT == 0
        assert plan.offsets[a.name] + a.nbytes <= plan.arena_bytes
        for b in items:
            if a is not b and a.overlaps(b):
                start, other = plan.offsets[a.name], plan.offsets[b.name]
                assert start + a.nbytes <= other or other + b.nbytes <= start
    assert plan.arena_bytes <= plan.total_bytes


def test_a_chain_of_equal_tensors_takes_two_places():
    plan = plan_memory([Lifetime(f"t{i}", i, i + 1, 1024) for i in range(10)])
    assert plan.arena_bytes == 2 * 1024
    assert plan.total_bytes == 10 * 1024


def test_the_plan_does_not_depend_on_the_order_in_which_tensors_are_given():
    items = [Lifetime(f"t{i}", i % 4, i % 4 + 2, 100 * (i + 1)) for i in range(8)]
    assert plan_memory(items).offsets == plan_memory(items[::-1]).offsets
