"""Why two layers are not one: an answer for every edge, nearest attempts first, with remedies."""

from __future__ import annotations

import pytest
from sketch import Sketch

from workbench import fusions, passes
from workbench.bundle import bundled
from workbench.datatypes import DataType
from workbench.errors import NetworkError
from workbench.onnx_parser import parse_model
from workbench.records import Attempt, Refusal, Remedy, Stage
from workbench.rewrite import RewriteRule, apply_rules, why_not_fused
from workbench.rewrite.ledger import MOST_MISSES


def test_two_layers_that_became_one_name_the_rule_that_joined_them() -> None:
    s = Sketch()
    x = s.input("batch", 4, 5, 5)
    y = s("Relu", s.conv(x, 4, name="conv"), name="act")
    s.output(s("Add", y, x, name="sum"))
    attempts = s.fuse()
    first = why_not_fused(s.network, attempts, "conv", "act")
    assert (first.layer, [a.rule for a in first.attempts]) == ("conv", ["activation"])
    second = why_not_fused(s.network, attempts, "act", "sum")
    assert (second.layer, [a.rule for a in second.attempts]) == ("conv", ["residual"])


def test_two_layers_apart_list_what_came_nearest_with_its_remedy() -> None:
    s = Sketch()
    y = s.conv(s.input("batch", 4, 6, 6), 4, name="conv")
    pool = s("MaxPool", y, name="pool", kernel_shape=(2, 2))
    s.output(s("Relu", pool, name="act"), s("Abs", y, name="abs"))
    attempts = s.fuse()
    answer = why_not_fused(s.network, attempts, "conv", "abs")
    assert (answer.layer, answer.attempts[0].code) == ("", "second_consumer")
    assert [r.title for r in answer.remedies] == ["give MaxPool 'pool' a copy of Conv 'conv'"]
    answer = why_not_fused(s.network, attempts, "pool", "act")
    assert answer.attempts[0].code == "no_rule"


def test_full_matches_come_before_near_misses_and_remedies_first() -> None:
    s = Sketch()
    y = s.conv(s.input("batch", 4, 6, 6), 4, name="conv")
    s.output(y, s("Neg", y, name="neg"))
    place = ("conv", "neg")
    mend = Remedy("nothing", ())
    attempts = (
        Attempt("far", ("neg",), False, Refusal("a", code="x", layers=("conv",)), missing=1),
        Attempt("full", place, False, Refusal("b", code="y")),
        Attempt("mended", place, False, Refusal("c", code="z", mend=mend)),
    )
    answer = why_not_fused(s.network, attempts, "conv", "neg")
    assert [a.rule for a in answer.attempts] == ["mended", "full", "far"]


def test_a_name_that_is_nowhere_is_an_error() -> None:
    s = Sketch()
    s.output(s("Relu", s.input("batch", 4), name="act"))
    with pytest.raises(NetworkError, match="no layer or node is named 'nobody'"):
        why_not_fused(s.network, s.fuse(), "nobody", "act")


def test_layers_that_cancelled_are_no_layers_any_more() -> None:
    s = Sketch()
    cast = s("Relu", s.input("batch", 4), name="act")
    for name, to in (("up", DataType.DOUBLE), ("down", DataType.FLOAT)):  # not the model's nodes
        (cast,) = s.network.add_layer("Cast", [cast], {"to": to}, name=name).outputs
    s.output(s("Softmax", cast, name="last"))
    attempts = s.fuse()
    assert not s.network.has_layer("up")
    answer = why_not_fused(s.network, attempts, "up", "down")
    assert (answer.layer, answer.verdict) == ("", "apart")
    assert [a.code for a in answer.attempts] == ["absorbed"]


@pytest.mark.parametrize("model", ["digits_cnn", "digits_inception", "digits_vit"])
def test_every_edge_of_a_model_has_its_answer(model: str) -> None:
    network = parse_model(bundled("datasets", f"{model}.onnx"))
    edges = [
        (layer.name, u.name) for layer in network.layers for t in layer.outputs for u in t.users
    ]
    attempts = (*passes.fold(network), *fusions.fuse(network))
    assert edges
    for producer, reader in edges:
        answer = why_not_fused(network, attempts, producer, reader)
        assert answer.layer or answer.attempts
        assert all(a.code and a.reason for a in answer.attempts if not a.applied)


def test_near_misses_are_bounded_and_the_same_each_time() -> None:
    rule = RewriteRule("three", lambda op, x: op.Relu(op.Neg(op.Exp(x))))
    ledgers = []
    for _ in range(2):
        s = Sketch()
        x = s.input("batch", 4)
        for i in range(MOST_MISSES + 5):
            s.output(s("Relu", s("Neg", s("Tanh", x, name=f"t{i}")), name=f"r{i}"))
        ledgers.append(apply_rules([rule], s.network, stage=Stage.FUSE))
    assert ledgers[0] == ledgers[1]
    assert len(ledgers[0]) == MOST_MISSES
    assert {(a.code, a.missing) for a in ledgers[0]} == {("other_layer", 1)}
