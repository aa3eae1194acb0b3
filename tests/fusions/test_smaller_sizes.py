"""At which sizes a rewrite is checked: smaller ones where a size is only a name, else its own."""

import numpy as np
import pytest
from sketch import Sketch

from workbench.body import Body
from workbench.network import Tensor
from workbench.records import Stage
from workbench.rewrite import RewriteRule, apply_rules
from workbench.rewrite.smaller import stand_ins, with_sizes


def fused(s: Sketch, *outputs: Tensor) -> Body:
    """The sketch's layers as one Body."""
    s.output(outputs[0])
    return s.network.closure(s.network.layers, anchor=None).body


def replaced(body: Body, *fixed: str) -> set[int]:
    return {old for sizes in stand_ins((body,), fixed=fixed) for old in sizes}


def heads(s: Sketch, rows: int, batch: int = 32) -> Tensor:
    x = s.input(batch, rows, 768)
    apart = s("Reshape", x, s.value(np.array([batch, rows, 12, 64])))
    turned = s("Transpose", apart, perm=(0, 2, 1, 3))
    return s("Softmax", turned, axis=-1)


def test_a_batch_that_is_written_into_a_reshape_is_replaced_there_too() -> None:
    s = Sketch()
    body = fused(s, heads(s, 197))
    sizes = stand_ins((body,))[0]
    assert set(sizes) == {32, 197}
    small = with_sizes(body, sizes)
    (result,) = small.output_types
    assert result.shape == (sizes[32], 12, sizes[197], 64)
    drawn = np.random.default_rng(0).standard_normal(small.inputs[0].type.shape)
    found = small.evaluate({small.inputs[0].name: drawn.astype(np.float32)})
    assert found[small.outputs[0]].shape == result.shape


def test_different_sizes_stay_different_and_equal_ones_equal() -> None:
    s = Sketch()
    body = fused(s, s("Add", s.input(32, 64, 256), s.input(32, 1, 256, name="y")))
    first, second = stand_ins((body,))
    for sizes in (first, second):
        assert len(set(sizes.values())) == len(sizes)
        assert not set(sizes.values()) & {d for i in body.inputs for d in i.type.shape}
        assert with_sizes(body, sizes).inputs[1].type.shape[1] == 1
    assert not set(first.values()) & set(second.values())


def test_a_size_that_is_split_or_merged_keeps_its_number() -> None:
    """768 becomes 12 times 64: no other number would do."""
    s = Sketch()
    assert replaced(fused(s, heads(s, 197))) == {32, 197}


def test_a_size_that_is_cut_keeps_its_number() -> None:
    s = Sketch()
    part = s("Slice", s.input(32, 4096), *(s.value(np.array([n])) for n in (1000, 3000, 1)))
    assert replaced(fused(s, part)) == {32}


def test_sizes_of_weights_that_are_given_keep_their_numbers() -> None:
    s = Sketch()
    body = fused(s, s("MatMul", s.input(32, 100, 512), s.weight(512, 300)))
    weight = next(i.name for i in body.inputs if i.constant)
    assert replaced(body, weight) == {32, 100}
    assert replaced(body) > {32, 512}


def test_a_small_body_is_left_alone() -> None:
    s = Sketch()
    assert stand_ins((fused(s, s("Tanh", s.input(32, 64))),)) == ()


# -- rewrites ---------------------------------------------------------------------------------
MEAN = RewriteRule(
    "mean",
    lambda op, x, axes, d: op.Div(op.ReduceSum(x, axes), d),
    lambda network, match: network.add_layer(
        "ReduceMean", [match.tensors["x"], match.tensors["axes"]], {"keepdims": 1}
    ).outputs[0],
)
"""A sum over an axis that is divided by a number is its mean: true of one size only."""


@pytest.mark.parametrize(("divisor", "right"), [(4096.0, True), (7.0, False), (9.0, False)])
@pytest.mark.parametrize("verify", ["distinct", "all"])
def test_a_rule_that_holds_at_one_size_is_judged_at_that_size(
    divisor: float, right: bool, verify: str
) -> None:
    s = Sketch()
    total = s("ReduceSum", s.input(32, 64, 4096), s.value(np.array([2])), keepdims=1)
    s.output(s("Tanh", s("Div", total, s.value(divisor))))
    attempts = apply_rules((MEAN,), s.network, stage=Stage.FOLD, verify=verify)
    assert [a.applied for a in attempts if a.rule == "mean"] == [right]
