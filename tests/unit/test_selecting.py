"""Selections beside the one by times alone: what early starts may save is assumed."""

from __future__ import annotations

from types import SimpleNamespace

from workbench.datatypes import DataType
from workbench.devices import Fingerprint
from workbench.formats import LINEAR
from workbench.network import NetworkDefinition
from workbench.selection import Candidate
from workbench.selection.selecting import Selecting
from workbench.tactics.protocol import Tactic
from workbench.timing import Timing

ORDER = {"CUDNN": 0, "TRITON": 1}


def chain(length: int) -> NetworkDefinition:
    net = NetworkDefinition("chain")
    at = net.add_input("x", "FP32", (4, 8))
    for k in range(length):
        at = net.add_layer("Relu", [at], name=f"r{k}").outputs[0]
    net.mark_output(at)
    return net


def offered(source: str, us: float) -> Candidate:
    tactic = Tactic(source, source.lower(), (LINEAR,), (LINEAR,), DataType.FLOAT)
    return Candidate(source, tactic.title, tactic, Timing(us, us, 0.01, 8, "2026-11-22"), 0.0)


def selected(times, *, capability: int = 90, kind: str = "gpu", level: int = 2):
    """Who runs each layer in every selection. times: of CUDNN and TRITON, a layer."""
    net = chain(len(times))
    device = SimpleNamespace(kind=kind, fingerprint=Fingerprint(kind, "x", (f"sm_{capability}",)))
    shop = SimpleNamespace(
        device=device,
        order=ORDER,
        config=SimpleNamespace(builder_optimization_level=level),
        sources=(),
        timed=0,
        checked=0,
        remarks=lambda choices: (),
    )
    found = {
        x.name: (offered("CUDNN", a), offered("TRITON", b))
        for x, (a, b) in zip(net.layers, times, strict=True)
    }
    selecting = Selecting(net.layers, net.outputs, found, {}, shop, lambda *_: None, {})
    tuned = selecting.tuned(0)
    every = (tuned, *tuned.alternatives)
    return tuned, ["".join(c.winner.source[0] for c in s.layers) for s in every]


def test_ours_are_taken_where_what_their_neighbours_save_outweighs_the_difference():
    tuned, found = selected([(9.0, 9.6), (10.0, 8.0), (9.0, 9.6), (9.0, 13.0)])
    assert found == ["CTCC", "TTTC"]
    assert tuned.total_us == 9 + 8 + 9 + 9
    assert tuned.alternatives[0].total_us == 9.6 + 8 + 9.6 + 9
    assert tuned.exact and not tuned.alternatives[0].exact


def test_each_assumption_that_changes_the_choice_is_one_more_selection():
    _, found = selected([(9.0, 9.4), (9.0, 10.0), (9.0, 9.4)])
    assert found == ["CCC", "TTT"]
    _, found = selected([(9.0, 9.2), (8.0, 8.2), (9.0, 10.0), (9.0, 10.0)])
    assert found == ["CCCC", "TTCC", "TTTT"]


def test_nothing_else_is_offered_where_nothing_starts_early():
    times = [(9.0, 9.4), (9.0, 9.4), (9.0, 9.4)]
    for other in ({"capability": 80}, {"kind": "cpu"}, {"level": 0}):
        assert len(selected(times, **other)[1]) == 1


def test_a_saving_that_no_run_would_show_is_not_tried():
    assert selected([(900.0, 900.1), (900.0, 900.1)])[1] == ["CC"]
