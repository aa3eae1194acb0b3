"""COMPOSED: a fused Body run by its parts, at any size and under any names."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tactic_bodies import BF16, BODIES, FLOAT, INT8, Draft, conv, problem_of

from workbench.body import Body, BodyInput, Node
from workbench.checks import check_outputs
from workbench.formats import CHW16, HWC, LINEAR
from workbench.records import Refusal
from workbench.tactics import SOURCES, source_named, sources_for
from workbench.tactics.composed import COMPOSED, composed_tactic, split, steps_of
from workbench.tactics.launch import run_once
from workbench.tactics.protocol import Problem, Tactic, tactic_from_json, tactic_to_json

CPU = [s for s in sources_for("cpu") if s.unavailable() is None]
FUSED = [
    "conv_3x3_residual",
    "conv_strided_clip",
    "conv_bf16",
    "conv_int8",
    "conv_int8_residual",
    "linear_gelu",
    "linear_int8",
    "softmax_masked",
    "layer_norm_residual",
    "pointwise",
    "requantize",
    "broadcasts",
]


def candidates(problem: Problem, body: Body) -> list[Tactic]:
    constants = {i.name: problem.constants[i.name] for i in body.inputs if i.constant}
    inner = replace(problem, body=body, constants=constants)
    offers = [t for s in CPU for t in s.candidates(inner)]
    return [t for t in offers if isinstance(t, Tactic)]


def compose(problem: Problem, pick: int = 0, **boundary) -> Tactic:
    """The composed tactic with the pick-th candidate of every part."""
    parts = split(problem.body)
    choices = []
    for p in parts:
        found = candidates(problem, p.body)
        choices.append(found[pick % len(found)])
    tactic = composed_tactic(problem.body, parts, choices, **boundary)
    assert isinstance(tactic, Tactic), tactic
    return tactic


def assert_correct(tactic: Tactic, body: Body) -> None:
    problem, dynamic, values = problem_of(body)
    call = COMPOSED.prepare(tactic, problem)
    assert not isinstance(call, Refusal), call
    result = check_outputs(body, values, run_once(call, tactic, problem, dynamic))
    assert result.passed, result.message


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("pick", [0, 1, -1])
def test_the_parts_together_compute_the_body(name, pick):
    problem, _, _ = problem_of(BODIES[name](2))
    assert_correct(compose(problem, pick), problem.body)


@pytest.mark.parametrize("name", FUSED)
def test_every_part_can_be_run_by_numpy(name):
    problem, _, _ = problem_of(BODIES[name](2))
    for p in split(problem.body):
        assert any(t.source == "NUMPY" for t in candidates(problem, p.body))


@pytest.mark.parametrize("name", BODIES)
def test_the_parts_of_any_body_cover_it_once(name):
    body = BODIES[name](2)
    parts = split(body)
    produced = [o for p in parts for o in p.body.outputs]
    assert len(set(produced)) == len(produced)
    assert set(body.outputs) <= set(produced)
    available = {i.name for i in body.inputs}
    for p in parts:
        assert {i.name for i in p.body.inputs} <= available
        assert all(p.body.types[v] == body.types[v] for v in p.body.types)
        available |= set(p.body.outputs)


def test_a_schedule_holds_at_another_size_and_under_other_names():
    problem, _, _ = problem_of(BODIES["conv_3x3_residual"](2))
    tactic = compose(problem)
    body = BODIES["conv_3x3_residual"](5)

    def other(v: str) -> str:
        return f"other_{v}" if v else v

    renamed = Body(
        tuple(BodyInput(other(i.name), i.type, i.constant) for i in body.inputs),
        tuple(
            Node(
                n.operator, tuple(map(other, n.inputs)), tuple(map(other, n.outputs)), n.attributes
            )
            for n in body.nodes
        ),
        tuple(map(other, body.outputs)),
        body.anchor,
    )
    assert_correct(tactic, renamed)


def test_boundary_layouts_are_reached_by_reformats():
    problem, _, _ = problem_of(conv(FLOAT, residual=True)(2))
    tactic = compose(problem, -1, inputs=(CHW16, HWC), outputs=(HWC,))
    assert (tactic.inputs, tactic.outputs) == ((CHW16, HWC), (HWC,))
    reformats = [s for s in steps_of(tactic) if not s.nodes]
    assert {(s.reads[0][1], s.writes[0][1]) for s in reformats} == {
        (CHW16, LINEAR),
        (HWC, LINEAR),
        (LINEAR, HWC),
    }
    assert_correct(tactic, problem.body)


def test_the_product_of_an_int8_layer_keeps_its_precision():
    body = BODIES["conv_int8_residual"](2)
    parts = split(body)
    product = next(p for p in parts if body.anchor in p.nodes)
    assert product.body.operator_names == ("DequantizeLinear", "DequantizeLinear", "Conv")
    assert product.body.compute_type is INT8
    problem, _, _ = problem_of(body)
    assert compose(problem).precision is INT8


def test_a_dequantized_residual_is_a_part_of_its_own():
    body = BODIES["conv_int8_residual"](2)
    names = [p.body.operator_names for p in split(body)]
    assert ("DequantizeLinear",) in names


def test_an_emulated_part_marks_the_whole():
    problem, _, _ = problem_of(conv(BF16)(2))
    tactic = compose(problem, -1)
    assert tactic.precision is BF16
    assert tactic.emulated


def test_a_composed_tactic_survives_json():
    problem, _, _ = problem_of(BODIES["conv_int8"](2))
    tactic = compose(problem)
    again = tactic_from_json(tactic_to_json(tactic))
    assert again == tactic
    assert hash(again) == hash(tactic)
    assert steps_of(again) == steps_of(tactic)


def test_constants_are_part_of_what_reads_them():
    problem, _, _ = problem_of(BODIES["conv_strided_clip"](2))
    clip = next(p for p in split(problem.body) if "Clip" in p.body.operator_names)
    assert [n.op for n in clip.body.nodes] == ["Constant", "Constant", "Clip"]


def test_inner_values_share_memory_where_their_lifetimes_allow():
    d = Draft()
    y = d.input(4, 16, 16, 16)
    for _ in range(6):
        y = d("Relu", y)
    problem, _, _ = problem_of(d.body(y))
    call = COMPOSED.prepare(compose(problem, -1), problem)
    assert call.workspace_bytes == 2 * 4 * 16 * 16 * 16 * 4


def test_too_little_workspace_is_refused_with_both_numbers():
    problem, _, _ = problem_of(BODIES["conv_3x3_residual"](2))
    refusal = COMPOSED.prepare(compose(problem), replace(problem, workspace_limit=64))
    assert isinstance(refusal, Refusal)
    assert "limit 64 B" in refusal.reason


def test_an_output_that_is_an_input_is_refused():
    d = Draft()
    x = d.input(2, 3)
    body = Body(tuple(d.inputs), (), (x,))
    assert composed_tactic(body, (), ()).code == "passed_through"


def test_composed_is_found_by_name_but_offers_nothing_by_itself():
    assert source_named("COMPOSED") is COMPOSED
    assert "COMPOSED" not in {s.name for s in SOURCES}
    problem, _, _ = problem_of(BODIES["pointwise"](2))
    (offer,) = COMPOSED.candidates(problem)
    assert isinstance(offer, Refusal)
