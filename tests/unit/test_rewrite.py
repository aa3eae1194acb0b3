import numpy as np
import pytest
from sketch import Sketch, applied, assert_same_network, refusal

from workbench import fusions, passes
from workbench.errors import NetworkError
from workbench.network import NetworkDefinition, Tensor
from workbench.records import Attempt, Refusal, Stage
from workbench.rewrite import FUSE, Match, RewriteRule, apply_rules, replay, why_not

LINEAR_RELU = RewriteRule(
    name="linear_relu",
    pattern=lambda op, x, w, b: op.Relu(op.Add(op.MatMul(x, w), b)),
    replacement=FUSE,
    refuse=lambda x, w, b: None if w.is_constant else f"weight {w.name} is not a constant",
)


def run(s: Sketch, *rules: RewriteRule, **options: object) -> tuple[Attempt, ...]:
    return s.rewrite(lambda n: apply_rules(rules, n, stage=Stage.FUSE, **options), rules)


def linear_relu(s: Sketch, w: Tensor, *, activation: str = "Relu", swapped: bool = False) -> None:
    y = s("MatMul", s.input("batch", 8), w, name="mm")
    b = s.weight(6, name="b")
    y = s("Add", *((b, y) if swapped else (y, b)), name="plus")
    s.output(s(activation, y, name="act"))


# -- patterns -----------------------------------------------------------------------------
@pytest.mark.parametrize("swapped", [False, True])
def test_a_pattern_matches_commutative_operators_in_both_orders(swapped: bool) -> None:
    s = Sketch()
    linear_relu(s, s.weight(8, 6), swapped=swapped)
    (attempt,) = run(s, LINEAR_RELU)
    assert attempt.applied
    assert attempt.place == ("mm", "plus", "act")
    assert s.operators() == ["MatMul+Add+Relu"]
    assert s.network.layer("mm").body.anchor_node.op == "MatMul"


def test_a_refusal_can_be_just_its_reason() -> None:
    s = Sketch()
    linear_relu(s, s.input(8, 6, name="given"))
    assert refusal(run(s, LINEAR_RELU), "linear_relu") == (
        "linear_relu",
        "weight given is not a constant",
    )


def test_the_nearest_miss_says_what_was_wanted_and_found() -> None:
    s = Sketch()
    w = s.weight(8, 6)
    y = s("Tanh", s("MatMul", s.input("batch", 8), w, name="mm"), name="tanh")
    s.output(s("Relu", s("Add", y, s.weight(6), name="plus"), name="act"))
    (attempt,) = run(s, LINEAR_RELU)
    assert not attempt.applied
    assert (attempt.code, attempt.missing) == ("other_layer", 1)
    assert attempt.place == ("act", "plus")
    assert attempt.reason == "wants MatMul, found Tanh 'tanh'"


def test_a_pattern_that_hardly_fits_leaves_no_attempt() -> None:
    s = Sketch()
    s.output(s("Relu", s.input("batch", 8)))
    assert run(s, LINEAR_RELU) == ()


def test_a_variable_used_twice_is_the_same_tensor_twice() -> None:
    square = RewriteRule("square", lambda op, x: op.Mul(x, x))
    s = Sketch()
    x, y = s.input("batch", 3), s.input("batch", 3, name="y")
    s.output(s("Mul", x, x, name="one"), s("Mul", x, y, name="two"))
    assert [a.place for a in run(s, square)[:1]] == [("one",)]


def test_an_element_used_twice_is_the_same_layer_twice() -> None:
    def silu(op, x):
        y = op.Neg(x)
        return op.Mul(y, op.Sigmoid(y))

    s = Sketch()
    x = s.input("batch", 3)
    y = s("Neg", x, name="neg")
    s.output(s("Mul", y, s("Sigmoid", y, name="sig"), name="mul"))
    (attempt,) = run(s, RewriteRule("silu", silu))
    assert set(attempt.place) == {"neg", "sig", "mul"}


def test_attributes_narrow_a_pattern() -> None:
    rule = RewriteRule("last", lambda op, x: op.Neg(op.Softmax(x, axis=-1)))
    s = Sketch()
    x = s.input("batch", 3, 4)
    for axis in (1, -1):
        s.output(s("Neg", s("Softmax", x, axis=axis, name=f"soft{axis}")))
    attempts = run(s, rule)
    assert [a.place[0] for a in applied(attempts, "last")] == ["soft-1"]


def test_constants_and_computed_operands_are_told_apart() -> None:
    rule = RewriteRule("shift", lambda op, x, b: op.Add(op.computed(x), op.constant(b)))
    s = Sketch()
    x = s.input("batch", 3)
    s.output(s("Add", s.weight(3), x, name="yes"), s("Add", x, s("Neg", x), name="no"))
    done, miss = run(s, rule, max_rewrites=1)
    assert (done.applied, done.place) == (True, ("yes",))
    assert (miss.code, miss.place, miss.refusal.layers) == ("not_constant", ("no",), ("neg",))


def test_an_anchored_element_also_matches_a_fused_layer() -> None:
    grow = RewriteRule("grow", lambda op: op.any(("Relu", "Neg"), op.anchored({"Conv"})))
    s = Sketch()
    y = s.conv(s.input("batch", 3, 4, 4), 4, name="conv")
    for i in range(3):
        y = s("Relu" if i % 2 else "Neg", y, name=f"a{i}")
    s.output(y)
    assert len(applied(run(s, grow), "grow")) == 3
    assert s.operators() == ["Conv+Neg+Relu+Neg"]


def test_an_unknown_operator_in_a_pattern_is_an_error() -> None:
    s = Sketch()
    s.output(s("Relu", s.input("batch", 3)))
    with pytest.raises(NetworkError, match="Rleu"):
        apply_rules([RewriteRule("typo", lambda op, x: op.Rleu(x))], s.network, stage=Stage.FUSE)


# -- replacements -------------------------------------------------------------------------
def doubled(network: NetworkDefinition, match: Match) -> Tensor:
    x = match["x"]
    return network.add_layer("Add", [x, x], name=match.root.name).outputs[0]


TWICE = RewriteRule(
    "twice",
    lambda op, x, two: op.Mul(op.computed(x), op.constant(two)),
    doubled,
    refuse=lambda two: None if np.all(two.value == 2) else "it is not a doubling",
)


def test_a_replacement_takes_over_name_output_and_origin() -> None:
    s = Sketch()
    y = s("Mul", s.input("batch", 3), s.value(2.0), name="double")
    name = y.name
    s.output(s("Softmax", y))
    (attempt,) = run(s, TWICE)
    assert attempt.detail == "Add 'double'"
    layer = s.network.layer("double")
    assert layer.op == "Add"
    assert layer.origin == ("double",)
    assert layer.outputs[0].name == name


def test_a_network_output_keeps_its_name_through_a_replacement() -> None:
    s = Sketch()
    y = s("Mul", s.input("batch", 3), s.value(2.0))
    name = y.name
    s.output(y)
    run(s, TWICE)
    assert [t.name for t in s.network.outputs] == [name]


WRONG = RewriteRule("wrong", lambda op, x: op.Neg(op.Relu(x)), lambda n, m: m["x"])


def test_a_wrong_rule_is_quarantined_with_its_error_and_leaves_no_trace() -> None:
    s = Sketch()
    s.output(s("Tanh", s("Neg", s("Relu", s.input("batch", 3), name="relu"), name="neg")))
    before = s.network.clone()
    code, reason = refusal(run(s, WRONG), "wrong")
    assert code == "check_failed"
    assert "times the bound" in reason
    assert_same_network(s.network, before)


def test_a_wrong_rule_goes_unnoticed_only_when_nothing_is_verified() -> None:
    s = Sketch()
    s.output(s("Tanh", s("Neg", s("Relu", s.input("batch", 3)))))
    attempts = apply_rules([WRONG], s.network, stage=Stage.FUSE, verify="none")
    assert attempts[0].applied


def test_an_unknown_verify_is_refused() -> None:
    with pytest.raises(NetworkError, match="verify is 'sometimes'"):
        apply_rules([], NetworkDefinition(), stage=Stage.FUSE, verify="sometimes")


def wrongly_folded(network: NetworkDefinition, match: Match) -> Tensor:
    w = match["w"]
    bad = network.constant(np.asarray(w.value) * np.float32(1.01), "bad")
    return network.add_layer("MatMul", [match["x"], bad], name="bad").outputs[0]


def test_every_change_of_weights_is_checked_by_itself() -> None:
    checked: list[str] = []

    def only_the_second(network: NetworkDefinition, match: Match) -> Tensor:
        checked.append(match.root.name)
        if len(checked) == 1:
            w = network.constant(match["w"].value, "copy")
            return network.add_layer("MatMul", [match["x"], w], name="copy").outputs[0]
        return wrongly_folded(network, match)

    rule = RewriteRule(
        "reweigh",
        lambda op, x, w: op.MatMul(x, w),
        only_the_second,
        refuse=lambda w: "done" if w.name == "copy" else None,
        changes_weights=True,
    )
    s = Sketch()
    x = s.input("batch", 8)
    s.output(*(s("MatMul", s("Softmax", x), s.weight(8, 8, name=f"w{i}")) for i in range(2)))
    attempts = apply_rules([rule], s.network, stage=Stage.FOLD)
    assert [a.refusal.code for a in attempts if a.refusal and a.place != ("copy",)] == [
        "check_failed"
    ] or any(a.refusal and a.refusal.code == "check_failed" for a in attempts)


def test_a_replacement_of_another_type_is_refused_and_undone() -> None:
    rule = RewriteRule(
        "flatten",
        lambda op, x: op.Relu(x),
        lambda n, m: n.add_layer("Transpose", [m["x"]]).outputs[0],
    )
    s = Sketch()
    s.output(s("Relu", s.input("batch", 3)))
    before = s.network.clone()
    code, reason = refusal(run(s, rule), "flatten")
    assert code == "type_mismatch"
    assert "FLOAT[batch, 3]" in reason
    assert "FLOAT[3, batch]" in reason
    assert_same_network(s.network, before)


def test_a_replacement_may_refuse_late() -> None:
    def changes_its_mind(network: NetworkDefinition, match: Match) -> Refusal:
        network.add_layer("Relu", [network.constant(np.ones(3, np.float32))])
        return Refusal("not today", code="late")

    s = Sketch()
    s.output(s("Relu", s.input("batch", 3)))
    before = s.network.clone()
    rule = RewriteRule("late", lambda op, x: op.Relu(x), changes_its_mind)
    assert refusal(run(s, rule), "late") == ("late", "not today")
    assert_same_network(s.network, before)


def test_rules_that_undo_each_other_end_in_an_error() -> None:
    def swap(operator: str):
        return lambda n, m: n.add_layer(operator, [m["x"], m["y"]]).outputs[0]

    there = RewriteRule("there", lambda op, x, y: op.Add(x, y), swap("Sum"))
    back = RewriteRule("back", lambda op, x, y: op.Sum(x, y), swap("Add"))
    s = Sketch()
    s.output(s("Add", s.input("batch", 3), s.input("batch", 3, name="y")))
    with pytest.raises(NetworkError, match="no end"):
        apply_rules([there, back], s.network, stage=Stage.FUSE, verify="none")


# -- the run ------------------------------------------------------------------------------
def chain(s: Sketch, length: int) -> None:
    y = s.input("batch", 4, 4, 4)
    for i in range(length):
        y = s("Relu", s.conv(y, 4, 1, name=f"conv{i}"), name=f"relu{i}")
    s.output(y)


def test_max_rewrites_stops_after_so_many() -> None:
    s = Sketch()
    chain(s, 5)
    attempts = s.rewrite(lambda n: fusions.fuse(n, max_rewrites=2), fusions.FUSIONS)
    assert len(applied(attempts, "activation")) == 2
    assert s.operators()[:3] == ["Conv+Relu", "Conv+Relu", "Conv"]


def test_two_runs_give_the_same_attempts_and_network() -> None:
    results = []
    for _ in range(2):
        s = Sketch()
        chain(s, 4)
        results.append((s.fuse(), str(s.network)))
    assert results[0] == results[1]


def test_layers_stay_in_the_models_order() -> None:
    s = Sketch()
    x = s.input("batch", 4, 4, 4)
    a = s("Relu", s.conv(x, 4, name="left"), name="left.act")
    b = s("Relu", s.conv(x, 4, 1, name="right"), name="right.act")
    s.output(s("Concat", a, b, name="join", axis=1))
    s.fuse()
    assert [x.name for x in s.network.layers] == ["left", "right", "join"]


def test_replay_of_part_of_the_ledger_stops_half_way() -> None:
    s = Sketch()
    chain(s, 3)
    again = s.network.clone()
    attempts = s.fuse()
    replay(again, attempts[:1], fusions.FUSIONS)
    assert again.num_layers == 5


def test_replay_on_another_network_names_the_attempt() -> None:
    s, other = Sketch(), Sketch()
    chain(s, 2)
    other.output(other("Softmax", other.conv(other.input("batch", 4, 4, 4), 4, name="conv0")))
    with pytest.raises(NetworkError, match="relu0"):
        replay(other.network, s.fuse(), fusions.FUSIONS)


def test_replay_of_a_rule_that_does_not_exist_is_an_error() -> None:
    s = Sketch()
    chain(s, 1)
    with pytest.raises(NetworkError, match="no rule is named 'magic'"):
        replay(s.network, [Attempt("magic", ("conv0",), True)], fusions.FUSIONS)


def test_why_not_gives_the_reason_of_each_reader() -> None:
    s = Sketch()
    y = s.conv(s.input("batch", 3, 6, 6), 4, name="conv")
    s.output(s("Relu", y, name="act"), s("MaxPool", y, name="pool", kernel_shape=(2, 2)))
    attempts = s.fuse()
    first, second = why_not(s.network, attempts, y)
    assert (first.code, second.code) == ("second_consumer", "no_rule")
    assert second.reason == "no rule joins Conv 'conv' and MaxPool 'pool'"
    assert why_not(s.network, attempts, s.network.inputs[0])[0].code == "no_producer"


def test_why_not_follows_layers_into_the_ones_they_were_fused_into() -> None:
    s = Sketch()
    y = s("Relu", s.conv(s.input("batch", 3, 6, 6), 4, name="conv"), name="relu")
    s.output(y, s("Tanh", y, name="tanh"))
    attempts = s.fuse()
    assert s.operators() == ["Conv+Relu", "Tanh"]
    assert {r.code for r in why_not(s.network, attempts, y)} == {"marked_output"}


def test_rule_names_are_unique() -> None:
    for rules in (passes.RULES, fusions.FUSIONS):
        assert len({r.name for r in rules}) == len(rules)
        assert all(r.about for r in rules)
