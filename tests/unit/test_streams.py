"""Branches on streams: what may overlap, what waits, and that overlapping tensors are apart."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.memory import Lifetime, plan_memory
from workbench.runtime.streams import across_streams
from workbench.streams import Work, dependencies, schedule

FORK = (
    Work(("x",), ("a",), 10),
    Work(("a",), ("l1",), 10),
    Work(("a",), ("r1",), 10),
    Work(("l1",), ("l2",), 10),
    Work(("r1",), ("r2",), 10),
    Work(("l2", "r2"), ("y",), 10),
)


@st.composite
def works(draw):
    found = []
    for k in range(draw(st.integers(1, 12))):
        reads = draw(st.lists(st.integers(0, k - 1), max_size=3, unique=True)) if k else []
        time_us = draw(st.floats(0, 50))
        found.append(Work(tuple(f"t{r}" for r in reads), (f"t{k}",), time_us))
    return found


class Recorder:
    """A device whose streams run in the worst order that their waits allow."""

    def __init__(self):
        self.queues = {}
        self.log = []

    def put(self, stream, item):
        self.queues.setdefault(stream, []).append(item)

    def mark(self, stream):
        found = []
        self.put(stream, ("mark", found))
        return found

    def wait_for(self, stream, mark):
        self.put(stream, ("wait", mark))

    def run(self, order):
        """Each stream as far as it gets, in this order, until nothing is left."""
        done = []
        while any(self.queues.values()):
            before = sum(map(len, self.queues.values()))
            for s in order:
                queue = self.queues.get(s, [])
                while queue:
                    kind, what = queue[0]
                    if kind == "wait" and not what:
                        break
                    if kind == "mark":
                        what.append(True)
                    elif kind == "step":
                        done.append(what)
                    queue.pop(0)
            assert sum(map(len, self.queues.values())) < before, "streams wait for each other"
        return done


def test_two_branches_run_on_two_streams_and_the_join_waits_for_the_other():
    order = schedule(FORK, 1)
    left, right = {order.streams[1], order.streams[3]}, {order.streams[2], order.streams[4]}
    assert len(left) == len(right) == 1 and left != right
    assert order.num_aux_streams == 1
    assert len(order.waits[5]) == 1


def test_a_chain_stays_on_the_callers_stream_however_many_are_allowed():
    chain = [Work((f"t{k}",), (f"t{k + 1}",), 5) for k in range(6)]
    assert schedule(chain, 4).streams == (0,) * 6


def test_branches_shorter_than_a_hop_stay_together():
    short = [Work(w.reads, w.writes, 0.5) for w in FORK]
    assert schedule(short, 3).num_aux_streams == 0


@settings(deadline=None, max_examples=150)
@given(works(), st.integers(0, 3), st.permutations(range(4)))
def test_whatever_order_streams_run_in_every_step_comes_after_what_it_reads(work, most, favour):
    order = schedule(work, most)
    device = Recorder()
    streams = tuple(range(most + 1))
    launches = [lambda k=k: device.put(order.streams[k], ("step", k)) for k in range(len(work))]
    for launch in across_streams(launches, order, streams, device):
        launch()
    done = device.run([s for s in favour if s <= most])
    assert sorted(done) == list(range(len(work)))
    at = {step: i for i, step in enumerate(done)}
    for step, needed in enumerate(dependencies(work)):
        assert all(at[n] < at[step] for n in needed)
        assert all(at[a] < at[step] for a in range(len(work)) if order.ancestors[step] >> a & 1)


@settings(deadline=None, max_examples=100)
@given(works(), st.integers(1, 3))
def test_tensors_that_share_bytes_are_never_alive_at_once_on_any_stream(work, most):
    order = schedule(work, most)
    users = {
        f"t{k}": [k] + [j for j, w in enumerate(work) if f"t{k}" in w.reads]
        for k in range(len(work))
    }
    items = [Lifetime(n, min(u), max(u), 64 + 64 * min(u)) for n, u in users.items()]

    def conflict(a, b):
        return not (
            order.ends_before(users[a.name], [a_writer(b)])
            or order.ends_before(users[b.name], [a_writer(a)])
        )

    def a_writer(item):
        return users[item.name][0]

    plan = plan_memory(items, conflict)
    for a in items:
        for b in items:
            overlap = (
                plan.offsets[a.name] < plan.offsets[b.name] + b.nbytes
                and plan.offsets[b.name] < plan.offsets[a.name] + a.nbytes
            )
            if a is not b and overlap:
                ended = [
                    all(order.ancestors[users[q.name][0]] >> u & 1 for u in users[p.name])
                    for p, q in ((a, b), (b, a))
                ]
                assert any(ended)
