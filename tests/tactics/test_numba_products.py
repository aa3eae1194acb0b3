"""Products in one generated kernel: bytes, float32, epilogues, patches, blocks, threads, tiles."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tactic_bodies import FLOAT, INT8, UINT8, Draft, conv, problem_of

from workbench.body import Array, Body
from workbench.checks import bit_equal, check_outputs
from workbench.datatypes import DataType
from workbench.devices import CpuDevice
from workbench.formats import HWC
from workbench.records import Refusal
from workbench.tactics.launch import bind, run_once, upload
from workbench.tactics.numba import NUMBA, product_plan, products
from workbench.tactics.numba.attention_code import Tile
from workbench.tactics.numba.cache import KernelCache
from workbench.tactics.numba.product_code import product_text
from workbench.tactics.numba.product_plan import ProductPlan, plan_product
from workbench.tactics.numba.product_shapes import TILES, ProductTile, suitable_tile
from workbench.tactics.protocol import Call, Problem, Tactic

FEATURES = set(CpuDevice().fingerprint.features)
ABLE = bool(FEATURES & {"avx512_vnni", "avx_vnni"})
WITHOUT = "this processor has no dot products of bytes (AVX-512 VNNI or AVX-VNNI)"


def tactic_of(problem: Problem) -> Tactic | None:
    """The kernel's tactic; where the processor has no such kernel, it says so."""
    offers = NUMBA.candidates(problem)
    if not ABLE and "DequantizeLinear" in problem.body.operator_names:
        assert WITHOUT in [o.reason for o in offers if isinstance(o, Refusal)]
        return None
    return next(o for o in offers if isinstance(o, Tactic) and "product" in o.name)


def checked(body: Body, *, seed: int = 0, threads: int = 1) -> dict[str, Array]:
    """The kernel's outputs, which lie within the bound; none where it is refused."""
    problem, dynamic, values = problem_of(body, seed=seed, threads=threads)
    tactic = tactic_of(problem)
    if tactic is None:
        return {}
    call = NUMBA.prepare(tactic, problem)
    assert isinstance(call, Call), call
    outputs = run_once(call, tactic, problem, dynamic)
    result = check_outputs(body, values, outputs)
    assert result, result.message
    return outputs


def product(
    rows: tuple[int, ...] = (2, 11),
    depth: int = 37,
    columns: int = 50,
    after: Callable[[Draft, str], str] | None = None,
    *,
    turned: bool = False,
    source: DataType = INT8,
) -> Body:
    """Activations by weights, both stored as bytes or in float32, and what follows."""
    d = Draft()
    x = d.input(*rows, depth, dtype=source)
    if source is not FLOAT:
        x = d("DequantizeLinear", x, d.weight(), d.weight(dtype=source))
    shape = (columns, depth) if turned else (depth, columns)
    if source is FLOAT:
        w = d.weight(*shape)
    else:
        w = d.quantized(*shape, axis=0 if turned else 1, constant=True)
    if turned:
        y = d.anchored("Gemm", x, w, d.weight(columns), transB=1)
    else:
        y = d.anchored("MatMul", x, w)
    return d.body(after(d, y) if after else y)


def patches(
    kernel: tuple[int, int] = (3, 3),
    *,
    channels: int = 9,
    size: tuple[int, int] = (8, 11),
    stored: bool = False,
    source: DataType = INT8,
    **attributes: Any,
) -> Body:
    """A convolution whose windows reach beyond the image."""
    d = Draft()
    shape, weights = (2, channels, *size), (21, channels, *kernel)
    if stored:
        x = d("DequantizeLinear", d.input(*shape, dtype=source), d.weight(), d.weight(dtype=source))
        w = d.quantized(*weights, axis=0, constant=True)
    else:
        x, w = d.input(*shape), d.weight(*weights)
    y = d.anchored("Conv", x, w, d.weight(21), **{"pads": (1, 2, 0, 1), **attributes})
    return d.body(d.quantize(d("Relu", y)) if stored else d("Relu", y))


def points(size: int = 7, *, residual: bool = False) -> Body:
    """A convolution of 1 by 1."""
    d = Draft()
    w = (20, 33, 1, 1)
    x = d.quantized(2, 33, size, size)
    y = d.anchored("Conv", x, d.quantized(*w, axis=0, constant=True), d.weight(20))
    if residual:
        y = d("Add", y, d.quantized(2, 20, size, size))
    return d.body(d.quantize(d("Relu", y)))


def both(d: Draft, y: str) -> str:
    return d("Add", d("Add", y, d.weight(50)), d.input(2, 11, 50))


def two_outputs() -> Body:
    """What a norm reads, and its integers."""
    d = Draft()
    y = d.anchored("MatMul", d.quantized(9, 30), d.quantized(30, 20, axis=1, constant=True))
    total = d("Add", y, d.input(9, 20))
    return d.body(total, d.quantize(total))


FORMS: dict[str, Callable[[], Body]] = {
    "alone": product,
    "bias and residual": lambda: product(after=both),
    "gelu, quantized": lambda: product(after=lambda d, y: d.quantize(d("Gelu", y))),
    "gelu": lambda: product(after=lambda d, y: d("Gelu", d("Mul", y, d.literal(0.01)))),
    "clip": lambda: product(after=lambda d, y: d("Clip", y, d.literal(0.0), d.literal(6.0))),
    "scaled by a row": lambda: product(after=lambda d, y: d("Sub", d("Mul", y, d.weight(50)), y)),
    "divided": lambda: product(after=lambda d, y: d("Div", y, d.literal(3.0))),
    "stored residual": lambda: product(
        after=lambda d, y: d.quantize(d("Relu", d("Add", y, d.quantized(2, 11, 50))))
    ),
    "rounded on the way": lambda: product(
        after=lambda d, y: d("DequantizeLinear", d.quantize(y), d.weight())
    ),
    "Gemm": lambda: product((13,), turned=True),
    "unsigned": lambda: product(source=UINT8),
    "one row": lambda: product((1,), 64, 96),
    "two outputs": two_outputs,
    "points": points,
    "points, stored residual": lambda: points(residual=True),
    "one point": lambda: points(1),
    "patches": lambda: patches(stored=True),
    "patches of unsigned": lambda: patches(stored=True, source=UINT8),
    "float": lambda: product(source=FLOAT),
    "float, bias and residual": lambda: product(after=both, source=FLOAT),
    "float, gelu": lambda: product(
        after=lambda d, y: d("Gelu", d("Mul", y, d.literal(0.01))), source=FLOAT
    ),
    "float, quantized": lambda: product(after=lambda d, y: d.quantize(y), source=FLOAT),
    "float Gemm": lambda: product((13,), turned=True, source=FLOAT),
    "float, copied": lambda: product((29,), 41, 50, source=FLOAT),
    "float, deep, copied": lambda: product((7,), 901, 60, source=FLOAT),
    "float, deep": lambda: product((11,), 900, 60, source=FLOAT),
    "float, one row": lambda: product((1,), 64, 96, source=FLOAT),
    "float points": lambda: conv(kernel=1, pad=0, residual=True)(2),
    "float, strided points": lambda: conv(kernel=1, pad=0, stride=2)(2),
    "float patches": patches,
    "float, strided patches": lambda: patches(strides=(2, 3)),
    "float, dilated patches": lambda: patches(dilations=(2, 2)),
    "float patches of one channel": lambda: patches((5, 7), channels=1, pads=(2, 3, 2, 3)),
    "float patches of more padding than image": lambda: patches(size=(2, 2), pads=(4, 5, 3, 4)),
    "float patches, deep": lambda: patches(channels=70),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_a_product_is_right(name: str) -> None:
    checked(FORMS[name]())


def test_what_lies_beside_a_row_is_not_multiplied() -> None:
    """Infinities in one row stay in it; an odd depth is read in pairs."""
    body = product((5,), 37, 300, source=FLOAT)
    problem, dynamic, _ = problem_of(body)
    tactic = tactic_of(problem)
    assert tactic is not None
    call = NUMBA.prepare(tactic, problem)
    assert isinstance(call, Call)
    (name,) = dynamic
    spoilt = {name: dynamic[name].copy()}
    spoilt[name][2] = np.inf
    clean, found = (
        next(iter(run_once(call, tactic, problem, d).values())) for d in (dynamic, spoilt)
    )
    others = [0, 1, 3, 4]
    assert np.array_equal(found[others], clean[others])
    assert not np.isfinite(found[2]).any()


def error_of(body: Body) -> float:
    """Relative L2 distance of the tactic's result to the exact one."""
    problem, dynamic, values = problem_of(body)
    tactic = tactic_of(problem)
    assert tactic is not None
    call = NUMBA.prepare(tactic, problem)
    assert isinstance(call, Call)
    (found,) = run_once(call, tactic, problem, dynamic).values()
    (name,) = problem.body.outputs
    exact = problem.body.exact(values)[name][0]
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


def test_sums_in_blocks_have_a_shorter_chains_error(monkeypatch: pytest.MonkeyPatch) -> None:
    body = product((16,), 4096, 96, source=FLOAT)
    blocks = error_of(body)
    monkeypatch.setattr(products, "SUMMED", 4096)
    assert blocks < 0.5 * error_of(body)


def test_patches_sums_are_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    body = patches((7, 7), channels=3, size=(24, 24))
    short = error_of(body)
    monkeypatch.setattr(products, "SUMMED_OF_PATCHES", 1 << 16)
    assert short < 0.8 * error_of(body)


def test_few_products_are_summed_in_short_chains(monkeypatch: pytest.MonkeyPatch) -> None:
    body = product((64,), 64, 10, source=FLOAT, turned=True)
    short = error_of(body)
    monkeypatch.setattr(products, "FEW", 0)
    assert short < 0.7 * error_of(body)


def test_one_rows_sums_are_of_short_chains() -> None:
    """One row of weights is read once: what is added meanwhile costs nothing."""
    one, sixteen = (error_of(product((n,), 2048, 256, source=FLOAT)) for n in (1, 16))
    assert one < 0.75 * sixteen


@given(
    rows=st.integers(1, 40),
    depth=st.integers(1, 150),
    columns=st.integers(1, 110),
    turned=st.booleans(),
    source=st.sampled_from([INT8, FLOAT]),
    threads=st.integers(1, 3),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_every_size_is_right(
    rows: int, depth: int, columns: int, turned: bool, source: DataType, threads: int, seed: int
) -> None:
    body = product((rows,), depth, columns, turned=turned, source=source)
    checked(body, seed=seed, threads=threads)


@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    channels=st.integers(1, 40),
    size=st.tuples(st.integers(4, 9), st.integers(4, 9)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pads=st.tuples(*[st.integers(1, 4)] * 4),
    stored=st.booleans(),
    threads=st.integers(1, 3),
)
@settings(max_examples=25, deadline=None)
def test_patches_of_every_geometry_are_right(
    kernel: tuple[int, int],
    channels: int,
    size: tuple[int, int],
    stored: bool,
    threads: int,
    **attributes: Any,
) -> None:
    body = patches(kernel, channels=channels, size=size, stored=stored, **attributes)
    checked(body, threads=threads)


@pytest.mark.parametrize("tile", TILES, ids=lambda t: f"{t.name} of {t.lanes}")
def test_every_tile_gives_the_same_bits(tile: ProductTile, monkeypatch: pytest.MonkeyPatch) -> None:
    body = product((23,), 70, 77, lambda d, y: d("Add", y, d.weight(77)))
    expected = checked(body)
    if "avx512_vnni" not in FEATURES:
        assert product_plan.integer_tile() != Tile("dot_12x32", 12, 32)
        return
    monkeypatch.setattr(product_plan, "suitable_tile", lambda *_: tile)
    assert bit_equal(checked(body), expected)


def test_rows_are_cut_into_blocks_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    body = product((150,), 40, 100)
    whole = checked(body)
    monkeypatch.setattr(products, "BLOCK_BYTES", 64 * 20)
    assert bit_equal(checked(body, threads=4), whole)


def test_rows_read_in_place_are_cut_into_blocks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    body = product((150,), 40, 100, source=FLOAT)
    whole = checked(body)
    monkeypatch.setattr(products, "BLOCK_BYTES", 40 * 4 * 20)
    assert bit_equal(checked(body, threads=4), whole)


@pytest.mark.parametrize("first", [-128, 127])
@pytest.mark.parametrize("second", [-128, 127])
def test_the_largest_products_do_not_saturate(first: int, second: int) -> None:
    body = product((5,), 3000, 48)
    problem, dynamic, _ = problem_of(body)
    constants = {n: np.ones_like(a) for n, a in problem.constants.items()}
    (weights,) = (n for n, a in constants.items() if a.ndim == 2)
    constants[weights] = np.full_like(constants[weights], second)
    (zero,) = (n for n, a in constants.items() if a.dtype == np.int8 and not a.ndim)
    constants[zero] = np.zeros_like(constants[zero])
    problem = dataclasses.replace(problem, constants=constants)
    tactic = tactic_of(problem)
    if tactic is not None:
        call = NUMBA.prepare(tactic, problem)
        assert isinstance(call, Call)
        given = {n: np.full_like(a, first) for n, a in dynamic.items()}
        (found,) = run_once(call, tactic, problem, given).values()
        assert np.all(found == 3000 * first * second)


@pytest.mark.parametrize(("source", "zero"), [(INT8, -7), (UINT8, 130)])
def test_zero_points_of_activations_and_results_count(source: DataType, zero: int) -> None:
    body = product((9,), 40, 60, lambda d, y: d.quantize(d("Add", y, d.weight(60))), source=source)
    problem, dynamic, values = problem_of(body)
    moved = {
        n: np.full_like(a, zero if a.dtype == source.numpy else 9)
        for n, a in problem.constants.items()
        if not a.ndim and a.dtype != np.float32
    }
    assert moved
    problem = dataclasses.replace(problem, constants={**problem.constants, **moved})
    tactic = tactic_of(problem)
    if tactic is not None:
        call = NUMBA.prepare(tactic, problem)
        assert isinstance(call, Call)
        outputs = run_once(call, tactic, problem, dynamic)
        assert check_outputs(body, {**values, **moved}, outputs)
        assert not check_outputs(body, values, outputs)


def test_points_of_an_image_lie_channels_last() -> None:
    problem, _, _ = problem_of(points(residual=True))
    tactic = tactic_of(problem)
    if tactic is not None:
        assert tactic.inputs == (HWC, HWC)
        assert tactic.outputs == (HWC,)


def test_a_residual_of_the_outputs_type_may_be_overwritten() -> None:
    body = product(after=both)
    problem, dynamic, values = problem_of(body)
    tactic = tactic_of(problem)
    if tactic is None:
        return
    assert tactic.overwrites == 1
    call = NUMBA.prepare(tactic, problem)
    assert isinstance(call, Call)
    apart = run_once(call, tactic, problem, dynamic)
    inputs = upload(tactic, problem, dynamic)
    bound = bind(call, tactic, problem, None, inputs, (inputs[1],))
    bound.launch()
    assert bit_equal(bound.read(), apart)
    assert check_outputs(body, values, apart)
    assert plan_of_two_outputs().overwritable is None


def test_a_residual_that_is_multiplied_too_is_not_overwritten() -> None:
    d = Draft()
    x = d.input(16, 48)
    body = d.body(d("Add", d.anchored("MatMul", x, d.weight(48, 48)), x))
    assert _plan(body).overwritable is None
    checked(body)


def plan_of_two_outputs() -> ProductPlan:
    plan = plan_product(two_outputs())
    assert isinstance(plan, ProductPlan)
    return plan


def test_packed_weights_travel_with_a_plan() -> None:
    problem, dynamic, _ = problem_of(product())
    tactic = tactic_of(problem)
    if tactic is None:
        return
    call = NUMBA.prepare(tactic, problem)
    assert isinstance(call, Call)
    (kept,) = call.prepacked.values()
    again = dataclasses.replace(problem, prepacked=call.prepacked)
    second = NUMBA.prepare(tactic, again)
    assert isinstance(second, Call)
    assert np.shares_memory(next(iter(second.packed.values())), kept)
    outputs = (run_once(c, tactic, p, dynamic) for c, p in ((call, problem), (second, again)))
    assert bit_equal(*outputs)


# -- tiles --------------------------------------------------------------------------------
def test_a_tile_is_chosen_that_wastes_no_rows() -> None:
    for rows in (49, 128, 197, 784):
        tile = suitable_tile(rows, 768, 96, 16)
        assert -(-rows // tile.rows) * tile.rows - rows <= 1, (rows, tile)


def test_a_tile_is_chosen_that_wastes_no_columns() -> None:
    for columns in (16, 32, 48, 64, 96):
        assert columns % suitable_tile(3136, columns, 32, 16).columns == 0


def _plan(body: Body) -> ProductPlan:
    plan = plan_product(body)
    assert isinstance(plan, ProductPlan), plan
    return plan


@pytest.fixture
def able(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor with AVX-512 VNNI."""
    monkeypatch.setattr(product_plan, "integer_tile", lambda: Tile("dot_12x32", 12, 32))


@pytest.mark.usefixtures("able")
def test_one_kernel_serves_sizes_of_one_tile() -> None:
    plans = [_plan(product((n,), k, 96)) for n, k in ((18, 40), (27, 90))]
    assert plans[0].code.tile == plans[1].code.tile
    assert product_text(plans[0].code) == product_text(plans[1].code)


def test_sums_stay_in_registers_and_the_epilogue_is_vectors() -> None:
    if "avx512_vnni" not in FEATURES:
        assert product_plan.integer_tile() != Tile("dot_12x32", 12, 32)
        return
    plan = _plan(product((197,), 768, 768, lambda d, y: d.quantize(d("Gelu", y))))
    assert plan.code.tile.name == "9x48"
    kernel: Any = KernelCache(None).compile(product_text(plan.code))
    text = kernel.inspect_asm(kernel.signatures[0])
    (loop,) = (part.split("\tj")[0] for part in text.split("\n.LBB") if "vpdpbusd" in part)
    assert loop.count("vpdpbusd") == 2 * 27
    assert "(%rsp)" not in loop
    # One of each a vector of the row, a whole register wide.
    (finish,) = (part.split("\tj")[0] for part in text.split("\n.LBB") if "vrcp14ps" in part)
    assert [finish.count(f"\t{x}") for x in ("vrcp14ps", "vpmovdb")] == [3, 3]
    assert "%ymm" not in finish


# -- refusals -----------------------------------------------------------------------------
def test_a_processor_without_dot_products_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product_plan, "integer_tile", lambda: None)
    answer = plan_product(product())
    assert isinstance(answer, Refusal)
    assert answer.reason == WITHOUT


def _columnwise() -> Body:
    d = Draft()
    w = d.quantized(8, 6, axis=0, constant=True)
    return d.body(d.anchored("MatMul", d.quantized(4, 8), w))


def _dynamic() -> Body:
    d = Draft()
    return d.body(d.anchored("MatMul", d.quantized(4, 8), d.quantized(8, 6, axis=1)))


def _mixed() -> Body:
    d = Draft()
    w = d.quantized(8, 6, axis=1, constant=True)
    return d.body(d.anchored("MatMul", d.input(4, 8), w))


def _computed() -> Body:
    d = Draft()
    return d.body(d.anchored("MatMul", d("Relu", d.input(4, 8)), d.weight(8, 6)))


REFUSED: dict[str, tuple[Callable[[], Body], str]] = {
    "groups": (lambda: conv(group=2)(1), "it has groups"),
    "floats": (_mixed, "reaches the product in floating point"),
    "half precision": (lambda: conv(DataType.HALF)(1), "HALF, not float32"),
    "computed": (_computed, "computed inside"),
    "rows' scales": (_columnwise, "not quantized along the result's columns"),
    "two activations": (_dynamic, "are not constant"),
    "a sine": (
        lambda: product(after=lambda d, y: d("Sin", y)),
        "is no step of an epilogue here",
    ),
    "across": (
        lambda: product(after=lambda d, y: d("Add", y, d.weight(11, 1))),
        "lies across the result's rows",
    ),
    "16 bits": (
        lambda: product(
            after=lambda d, y: d("QuantizeLinear", y, d.weight(), d.weight(dtype=DataType.INT16))
        ),
        "is quantized to INT16",
    ),
}


@pytest.mark.usefixtures("able")
@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_with_its_reason(name: str) -> None:
    make, reason = REFUSED[name]
    answer = plan_product(make())
    assert isinstance(answer, Refusal)
    assert reason in answer.reason


def test_weights_with_a_zero_point_are_refused_when_it_is_known() -> None:
    d = Draft()
    w = d.weight(8, 6, dtype=INT8)
    w = d("DequantizeLinear", w, d.weight(6), d.weight(6, dtype=INT8), axis=1)
    problem, _, _ = problem_of(d.body(d.anchored("MatMul", d.quantized(4, 8), w)))
    (zeros,) = (n for n, a in problem.constants.items() if a.dtype == np.int8 and a.ndim == 1)
    constants = {**problem.constants, zeros: np.array([0, 0, 3, 0, 0, 0], np.int8)}
    problem = dataclasses.replace(problem, constants=constants)
    tactic = tactic_of(problem)
    if tactic is not None:
        answer = NUMBA.prepare(tactic, problem)
        assert isinstance(answer, Refusal)
        assert answer.code == "zero"
