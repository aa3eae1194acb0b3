"""INT8 attention in one generated kernel: exact products, every form, blocks, threads, tiles."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from integer_attention_bodies import INTEGER_ATTENTIONS, Integers, Sizes, apart, merged
from tactic_bodies import INT8

from workbench.body import Array, Body
from workbench.checks import bit_equal, check_outputs
from workbench.devices import CpuDevice
from workbench.records import Refusal
from workbench.tactics.launch import run_once
from workbench.tactics.numba import NUMBA, integer_attention
from workbench.tactics.numba.attention_code import Tile
from workbench.tactics.numba.cache import KernelCache, KernelText
from workbench.tactics.numba.integer_attention import IntegerPlan, plan_integer_attention
from workbench.tactics.numba.integer_attention_code import IntegerCode, integer_attention_text
from workbench.tactics.protocol import Call, Problem, Tactic

FEATURES = set(CpuDevice().fingerprint.features)
ABLE = bool(FEATURES & {"avx512_vnni", "avx_vnni"})
WITHOUT = "this processor has no dot products of bytes (AVX-512 VNNI or AVX-VNNI)"


def outputs_of(problem: Problem, dynamic: dict[str, Array]) -> dict[str, Array]:
    """What the kernel gives; where the processor has no such kernel, it says so and we stop."""
    (tactic, *_) = NUMBA.candidates(problem)
    assert isinstance(tactic, Tactic), tactic
    assert tactic.name == "int8 attention"
    call = NUMBA.prepare(tactic, problem)
    assert isinstance(call, Call), call
    outputs = run_once(call, tactic, problem, dynamic)
    assert bit_equal(outputs, run_once(call, tactic, problem, dynamic))
    return outputs


def checked(made: tuple[Integers, Body], *, seed: int = 0, threads: int = 1) -> None:
    """The kernel's outputs lie within the bound, by integers rounded as the graph rounds them."""
    numbers, body = made
    problem, dynamic, values = numbers.problem(body, seed=seed, threads=threads)
    if not ABLE:
        assert [str(x) for x in NUMBA.candidates(problem)] == [WITHOUT]
        return
    outputs = outputs_of(problem, dynamic)
    result = check_outputs(body, values, outputs)
    assert result, result.message


@pytest.mark.parametrize("name", INTEGER_ATTENTIONS)
def test_every_form_of_int8_attention_is_right(name: str) -> None:
    checked(INTEGER_ATTENTIONS[name]())


@given(
    sizes=st.builds(
        Sizes,
        batch=st.just(1),
        heads=st.integers(1, 2),
        queries=st.integers(1, 30),
        keys=st.integers(1, 70),
        depth=st.integers(1, 66),
        width=st.integers(1, 66),
    ),
    mask=st.sampled_from(((), "keys", "queries", "pairs")),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_every_size_is_right(sizes: Sizes, mask: str, seed: int) -> None:
    shape = {
        (): (),
        "keys": (1, 1, 1, sizes.keys),
        "queries": (sizes.queries, 1),
        "pairs": (1, 1, sizes.queries, sizes.keys),
    }[mask]
    checked(apart(sizes, mask=shape, result=INT8), seed=seed)


@pytest.mark.parametrize("tile", [Tile("dot_6x16", 6, 16), Tile("dot_12x32", 12, 32)])
def test_every_tile_gives_the_same_bits(tile: Tile, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers, body = apart(Sizes(1, 2, 25, 50, 20, 40))
    problem, dynamic, _ = numbers.problem(body)
    if "avx512_vnni" not in FEATURES:
        assert integer_attention.integer_tile() != Tile("dot_12x32", 12, 32)
        return
    expected = outputs_of(problem, dynamic)
    monkeypatch.setattr(integer_attention, "integer_tile", lambda: tile)
    assert bit_equal(outputs_of(problem, dynamic), expected)


def test_queries_are_cut_into_blocks_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integer_attention, "MOST_QUERIES", 24)
    checked(merged(Sizes(1, 2, 150, 150, 16, 16)), threads=4)


@pytest.mark.parametrize("unit", ["coarse", "fine"])
def test_scores_of_any_unit_reach_their_softmax(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As integers where one is worth enough, which a mask or a tiny scale prevents."""
    made = apart(Sizes(1, 2, 13, 70, 24, 33))
    if unit == "fine":
        monkeypatch.setattr(integer_attention, "LEAST_UNIT", float("inf"))
    asked: list[bool] = []
    text = integer_attention.integer_attention_text

    def spy(code: IntegerCode) -> KernelText:
        asked.append(code.by_integers)
        return text(code)

    monkeypatch.setattr(integer_attention, "integer_attention_text", spy)
    checked(made)
    assert set(asked) == ({unit == "coarse"} if ABLE else set())


@pytest.mark.parametrize("extreme", [-128, 127])
def test_the_largest_products_do_not_saturate(extreme: int) -> None:
    numbers, body = apart(Sizes(1, 1, 3, 40, 64, 64))
    problem, dynamic, values = numbers.problem(body)
    for name in dynamic:
        dynamic[name] = np.full_like(dynamic[name], extreme)
    values.update(dynamic)
    if ABLE:
        (found,) = outputs_of(problem, dynamic).values()
        # Every key is alike: the probabilities, rounded, times the one value.
        share = np.rint(127 / 40) * 40 / 127
        np.testing.assert_allclose(found, share * 0.03 * extreme, rtol=1e-5)


def test_a_row_of_which_all_is_masked_is_zero_as_its_quantized_softmax() -> None:
    numbers, body = apart(Sizes(1, 1, 4, 5), mask=(4, 1))
    problem, dynamic, values = numbers.problem(body)
    (mask,) = (n for n, a in dynamic.items() if a.dtype == np.float32)
    dynamic[mask] = np.array([[0], [-np.inf], [0], [0]], np.float32)
    reference = next(iter(body.evaluate({**values, **dynamic}).values()))
    assert not reference[0, 0, 1].any()
    if ABLE:
        (found,) = outputs_of(problem, dynamic).values()
        assert not found[0, 0, 1].any()
        assert found[0, 0, 0].any()


def _plan(made: tuple[Integers, Body]) -> IntegerPlan:
    plan = plan_integer_attention(made[1])
    assert isinstance(plan, IntegerPlan), plan
    return plan


@pytest.fixture
def able(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor with AVX-512 VNNI."""
    monkeypatch.setattr(integer_attention, "integer_tile", lambda: Tile("dot_12x32", 12, 32))


@pytest.mark.usefixtures("able")
def test_one_kernel_serves_every_size() -> None:
    texts = {
        integer_attention_text(_plan(merged(Sizes(b, 3, n, n))).code).source
        for b, n in ((1, 17), (3, 40))
    }
    assert len(texts) == 1


def test_the_loops_are_vectors() -> None:
    if "avx512_vnni" not in FEATURES:
        assert integer_attention.integer_tile() != Tile("dot_12x32", 12, 32)
        return
    kernel: Any = KernelCache(None).compile(integer_attention_text(_plan(merged()).code))
    text = kernel.inspect_asm(kernel.signatures[0])
    counts = {x: text.count(f"\t{x}") for x in ("vpdpbusd", "vroundps", "vrndscaleps", "vpmovdb")}
    assert counts["vpdpbusd"] == 2 * 24
    # Queries, keys, values, probabilities and the result are rounded and narrowed by vectors.
    assert counts["vroundps"] + counts["vrndscaleps"] >= 5
    assert counts["vpmovdb"] >= 5
    # Both tiles keep their sums in registers: nothing but the factors is read on the way.
    loops = [part.split("\tj")[0] for part in text.split("\n.LBB") if part.count("vpdpbusd") == 24]
    assert len(loops) == 2
    assert not any("(%rsp)" in loop for loop in loops)


def test_a_processor_without_dot_products_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integer_attention, "integer_tile", lambda: None)
    answer = plan_integer_attention(apart()[1])
    assert isinstance(answer, Refusal)
    assert answer.reason == WITHOUT


@pytest.mark.usefixtures("able")
def test_a_factor_in_floats_is_refused() -> None:
    n = Integers()
    d = n.draft
    k = n.read(d.input(3, 5, dtype=INT8), 0.02)
    p = d.anchored("Softmax", d("MatMul", d.input(4, 3), k), axis=-1)
    answer = plan_integer_attention(d.body(d("MatMul", p, d.input(5, 2))))
    assert isinstance(answer, Refusal)
    assert "reaches its product in floating point" in answer.reason


@pytest.mark.usefixtures("able")
def test_probabilities_in_floats_are_refused() -> None:
    n = Integers()
    d = n.draft
    q, k, v = (n.read(d.input(4, 4, dtype=INT8), 0.02) for _ in range(3))
    p = d.anchored("Softmax", d("MatMul", q, k), axis=-1)
    answer = plan_integer_attention(d.body(d("MatMul", p, v)))
    assert isinstance(answer, Refusal)
    assert "its probabilities are not quantized" in answer.reason


def test_a_zero_point_is_refused_when_it_is_known() -> None:
    numbers, body = apart()
    problem, _, _ = numbers.problem(body)
    name = next(n for n, a in problem.constants.items() if a.dtype == np.int8)
    moved = dataclasses.replace(problem, constants={**problem.constants, name: np.int8(3)})
    plan = plan_integer_attention(body)
    if isinstance(plan, Refusal):
        assert plan.code == "vnni"
        return
    answer = integer_attention.integer_attention_call(plan, moved, NUMBA.cache, 1)
    assert isinstance(answer, Refusal)
    assert answer.code == "zero"


def test_a_wrong_kernel_fails_the_check_in_one_step() -> None:
    numbers, body = apart(Sizes(1, 1, 6, 64, 64, 8), result=INT8)
    _, _, values = numbers.problem(body)
    (name, right), *_ = body.evaluate(values).items()
    assert check_outputs(body, values, {name: right})
    wrong = right.copy()
    wrong[0, 0, 2, 3] += 2
    assert not check_outputs(body, values, {name: wrong})
    # What forgets to round the probabilities is off, too.
    float_body = _without_inner_rounding(values)
    assert not check_outputs(body, values, {name: float_body})


def _without_inner_rounding(values: dict[str, Array]) -> Array:
    q, k, v = (a.astype(np.float64) for a in values.values() if a.ndim == 4)
    scores = (q * 0.02) @ (k * 0.01).swapaxes(-1, -2)
    e = np.exp(scores - scores.max(-1, keepdims=True))
    y = e / e.sum(-1, keepdims=True) @ (v * 0.03)
    return np.clip(np.rint(y / 0.02), -128, 127).astype(np.int8)
