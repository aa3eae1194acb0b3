"""What is checked once, and what each time: the same rewrite of other weights, places, operands."""

from collections.abc import Mapping

import numpy as np
import pytest
from sketch import Sketch

from workbench import passes
from workbench.body import Array, Body
from workbench.records import Refusal
from workbench.rewrite import RewriteRule
from workbench.rewrite.check import Checker


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The rules whose results were computed and compared, in order."""
    from workbench.rewrite import check

    seen: list[str] = []
    compare = check._unequal

    def counted(
        rule: RewriteRule, before: Body, after: Body, constants: Mapping[str, Array], seeds: object
    ) -> Refusal | None:
        seen.append(rule.name)
        return compare(rule, before, after, constants, seeds)

    monkeypatch.setattr(check, "_unequal", counted)
    return seen


def test_equal_layers_of_a_deep_model_are_checked_once(looked_at: list[str]) -> None:
    s = Sketch()
    x = s.input("batch", 5, 64)
    for block in range(4):
        x = s("Transpose", x, perm=(0, 2, 1))
        x = s("Transpose", s("Softmax", x), perm=(0, 2, 1), name=f"turn{block}")
        x = s("Tanh", s("Add", s("Identity", x), s.weight(5, 64, name=f"w{block}")))
    s.output(x)
    s.network.verify()
    passes.fold(s.network)
    assert looked_at == ["identities"]


def test_a_rule_that_may_have_read_the_numbers_is_checked_for_each(looked_at: list[str]) -> None:
    s = Sketch()
    x = s.input("batch", 8)
    x = s("Add", s("Tanh", x), s.value(np.zeros(8, np.float32)))
    x = s("Add", s("Tanh", x), s.value(np.zeros(8, np.float32)))
    x = s("Mul", s("Tanh", x), s.value(np.ones(8, np.float32)))
    s.output(s("Tanh", x))
    passes.fold(s.network)
    assert looked_at == ["identities", "identities"]


def test_operands_that_come_in_another_order_are_another_rewrite(looked_at: list[str]) -> None:
    """A rule that swaps operands at one place only would else pass as what it did elsewhere."""
    s = Sketch()
    x, y = s.input("batch", 8), s.input("batch", 8, name="y")
    before = body_of(s, "Sub", x, y)
    straight, crossed = before, body_of(s, "Sub", y, x)
    rule = RewriteRule("any", lambda op, a, b: op.Sub(a, b))
    checker = Checker("distinct")
    assert checker.replaced(rule, before, straight, {}) is None
    refusal = checker.replaced(rule, before, crossed, {})
    assert refusal is not None
    assert refusal.code == "check_failed"


def body_of(s: Sketch, operator: str, *inputs: object) -> Body:
    (made,) = s.layer(operator, *inputs)
    assert made.producer is not None
    return made.producer.body
