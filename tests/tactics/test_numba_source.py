"""NUMBA: vector code, kernels kept on disk, accurate functions, threads, clear refusals."""

from __future__ import annotations

import math
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from numba import njit
from tactic_bodies import BODIES, FLOAT, INT64, Draft, pointwise, problem_of, softmax

from workbench.checks import bit_equal, check_outputs
from workbench.errors import ExecutionError
from workbench.files import cache_folder
from workbench.records import Refusal
from workbench.tactics.launch import bind, run_once
from workbench.tactics.numba import NUMBA, NumbaSource, mathematics
from workbench.tactics.numba.cache import KernelCache, KernelText
from workbench.tactics.numba.copies import gather_call
from workbench.tactics.numba.images import SUPPORTED
from workbench.tactics.numba.nests import Stream, load_lines, nest_text, store_line
from workbench.tactics.numba.source import thread_counts

UNIT = 2.0**-24
X86 = platform.machine() in ("x86_64", "AMD64")


def tactics(problem, source=NUMBA):
    return [t for t in source.candidates(problem) if not isinstance(t, Refusal)]


# -- vector code --------------------------------------------------------------------------
def assembly(lines, result):
    streams, outputs = [Stream(FLOAT, True), Stream(FLOAT, True)], [Stream(FLOAT, True)]
    inner = [*load_lines([0, 1], streams), *lines, store_line(0, FLOAT, result)]
    text = nest_text(1, streams, outputs, ["for j in range(n):", *("    " + x for x in inner)])
    kernel = KernelCache(None).compile(text)
    return kernel.inspect_asm(kernel.signatures[0])


@pytest.mark.skipif(not X86, reason="looks for x86 vector instructions")
@pytest.mark.parametrize(
    "line",
    ["v = x0 * x1", "v = exp_f32(x0 * x1)", "v = gelu_f32(x0 * x1)", "v = tanh_f32(x0 * x1)"],
)
def test_contiguous_loops_become_vector_instructions(line):
    text = assembly([line], "v")
    assert "vmulps" in text
    assert "ymm" in text or "zmm" in text


# -- cache --------------------------------------------------------------------------------
PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from tactic_bodies import BODIES, problem_of
from workbench.tactics.launch import run_once
from workbench.tactics.numba import NumbaSource
from workbench.tactics.numba.cache import KernelCache
source = NumbaSource(KernelCache(Path({folder!r})))
problem, dynamic, _ = problem_of(BODIES["softmax_masked"](2))
tactic = source.candidates(problem)[0]
run_once(source.prepare(tactic, problem), tactic, problem, dynamic)
print(len(source.cache.kernels()), "numba" in sys.modules)
"""


def test_a_second_process_compiles_nothing(tmp_path):
    tests = str(Path(__file__).parent)
    program = PROGRAM.format(tests=tests, folder=str(tmp_path))
    found = [
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(2)
    ]
    # Where no images are kept, numba loads what it compiled.
    assert found == [["1", "True"], ["1", str(not SUPPORTED)]]


def test_a_folder_that_cannot_be_written_is_named_in_a_warning(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    source = NumbaSource(KernelCache(blocked / "kernels"))
    problem, dynamic, values = problem_of(pointwise(FLOAT)(1))
    tactic = tactics(problem, source)[0]
    with pytest.warns(RuntimeWarning, match="file"):
        call = source.prepare(tactic, problem)
    assert check_outputs(problem.body, values, run_once(call, tactic, problem, dynamic))


def test_another_kernel_text_is_another_kernel(tmp_path):
    cache = KernelCache(tmp_path)
    one = cache.compile(KernelText("def kernel(x):\n    return x + 1\n", "int64(int64)"))
    two = cache.compile(KernelText("def kernel(x):\n    return x + 2\n", "int64(int64)"))
    assert (one(1), two(1)) == (2, 3)


def test_the_cache_folder_follows_the_operating_system(monkeypatch, tmp_path):
    if sys.platform != "linux":
        pytest.skip("the rule of Linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder("kernels") == tmp_path / "inference-workbench" / "kernels"


def test_importing_the_source_does_not_import_numba():
    program = "import sys, workbench.tactics; print('numba' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "False"


# -- functions ----------------------------------------------------------------------------
def reference(name):
    return {
        "exp": np.exp,
        "tanh": np.tanh,
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        "erf": np.vectorize(math.erf),
        "softplus": lambda x: np.logaddexp(0, x),
    }[name]


@pytest.mark.parametrize(
    ("name", "units"), [("exp", 1.3), ("tanh", 3), ("sigmoid", 4), ("erf", 3), ("softplus", 3)]
)
def test_functions_err_by_no_more_than_they_document(name, units):
    function = getattr(mathematics, f"{name}_f32")
    x = np.concatenate([np.linspace(-90, 88, 20001), np.linspace(-2, 2, 20001)]).astype(np.float32)

    @njit
    def every(x, y):
        for i in range(x.size):
            y[i] = function(x[i])

    y = np.empty_like(x)
    every(x, y)
    exact = reference(name)(x.astype(np.float64))
    normal = np.abs(exact) > np.finfo(np.float32).tiny
    error = np.abs(y - exact)[normal] / np.abs(exact[normal])
    assert error.max() <= units * UNIT


def test_gelu_errs_by_two_units_of_its_argument():
    @njit
    def every(x, y):
        for i in range(x.size):
            y[i] = mathematics.gelu_f32(x[i])

    x = np.linspace(-20, 20, 40001).astype(np.float32)
    y = np.empty_like(x)
    every(x, y)
    wide = x.astype(np.float64)
    exact = 0.5 * wide * np.vectorize(math.erfc)(-wide / math.sqrt(2))
    assert np.all(np.abs(y - exact) <= 2 * UNIT * np.abs(wide))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0, -0.0])
def test_functions_treat_special_values_as_numpy_does(value):
    x = np.float32(value)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(mathematics.exp_f32(x), np.exp(x))
        np.testing.assert_array_equal(mathematics.tanh_f32(x), np.tanh(x))


@pytest.mark.parametrize(
    ("dtype", "load", "store"),
    [
        (ml_dtypes.bfloat16, mathematics.bf16_to_float, mathematics.float_to_bf16),
        (np.float16, "half_to_float", "float_to_half"),
    ],
    ids=["bf16", "half"],
)
def test_half_types_convert_bit_for_bit(dtype, load, store):
    load = getattr(mathematics, load) if isinstance(load, str) else load
    store = getattr(mathematics, store) if isinstance(store, str) else store

    @njit
    def every(bits, wide, x, narrow):
        for i in range(bits.size):
            wide[i] = load(bits[i])
        for i in range(x.size):
            narrow[i] = store(x[i])

    bits = np.arange(65536, dtype=np.uint16)
    x = np.random.default_rng(0).integers(0, 2**32, 100_000).astype(np.uint32).view(np.float32)
    x = x[~np.isnan(x)]
    wide, narrow = np.empty(bits.size, np.float32), np.empty(x.size, np.uint16)
    every(bits, wide, x, narrow)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(wide, bits.view(dtype).astype(np.float32))
        np.testing.assert_array_equal(narrow, x.astype(dtype).view(np.uint16))


# -- tactics ------------------------------------------------------------------------------
@pytest.mark.parametrize("make", [pointwise(FLOAT), softmax(FLOAT, masked=True)])
def test_several_threads_give_the_same_bits(make):
    problem, dynamic, _ = problem_of(make(300), threads=2)
    by_threads = {t.parameter("threads"): t for t in reversed(tactics(problem))}
    assert set(by_threads) == {1, 2}
    results = [
        run_once(NUMBA.prepare(t, problem), t, problem, dynamic) for t in by_threads.values()
    ]
    assert all(bit_equal(results[0], r) for r in results[1:])


def test_a_small_loop_is_tried_by_one_thread_and_a_long_one_by_all_alone():
    problem, _, _ = problem_of(pointwise(FLOAT)(2), threads=2)
    counts = [thread_counts(problem, n) for n in (1000, 1 << 18, 1 << 20)]
    assert counts == [(1,), (2, 1), (2,)]
    assert thread_counts(replace(problem, threads=1), 1 << 20) == (1,)


def test_an_index_outside_the_table_raises_and_names_it():
    d = Draft()
    table, rows = d.weight(50, 24), d.input(4, dtype=INT64)
    problem, dynamic, _ = problem_of(d.body(d("Gather", table, rows, axis=0)))
    (tactic,) = tactics(problem)
    bound = bind(NUMBA.prepare(tactic, problem), tactic, problem)
    name = problem.body.dynamic_inputs[0].name
    bound.write({name: np.array([1, -50, 50, 2])})
    with pytest.raises(ExecutionError, match="index 50 lies outside size 50"):
        bound.launch()
    assert list(dynamic) == [name]
    bound.write({name: np.array([1, -50, 49, 2])})
    bound.launch()
    (found,) = bound.read().values()
    np.testing.assert_array_equal(found, problem.constants[table][[1, 0, 49, 2]])


@pytest.mark.skipif(not SUPPORTED, reason="images of kernels are for Linux on x86-64")
def test_a_gather_is_run_without_loading_numba(tmp_path):
    d = Draft()
    problem, _, _ = problem_of(
        d.body(d("Gather", d.weight(50, 24), d.input(4, dtype=INT64), axis=0))
    )
    gather_call(problem, KernelCache(tmp_path), 1)
    assert list(tmp_path.glob("*.image"))


def test_read_only_weights_are_used_where_they_lie():
    problem, dynamic, values = problem_of(pointwise(FLOAT)(2))
    frozen = {k: v.copy() for k, v in problem.constants.items()}
    for v in frozen.values():
        v.flags.writeable = False
    problem = replace(problem, constants=frozen)
    tactic = tactics(problem)[0]
    out = run_once(NUMBA.prepare(tactic, problem), tactic, problem, dynamic)
    assert check_outputs(problem.body, values, out)


def test_layouts_are_offered_where_they_fit():
    problem, _, _ = problem_of(pointwise(FLOAT)(2))
    assert {str(t.outputs[0]) for t in tactics(problem)} == {"LINEAR", "HWC", "CHW16"}
    problem, _, _ = problem_of(BODIES["activations"](2))
    assert {str(t.outputs[0]) for t in tactics(problem)} == {"LINEAR"}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("conv_grouped_dilated", "not depthwise"),
        ("softmax_channels", "innermost axes"),
        ("linear_gelu_half", "HALF, not float32"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_reason(name, reason):
    problem, _, _ = problem_of(BODIES[name](2))
    refusals = NUMBA.candidates(problem)
    assert all(isinstance(r, Refusal) for r in refusals)
    assert any(reason in r.reason for r in refusals)


def test_one_compiled_kernel_serves_every_size(tmp_path):
    source = NumbaSource(KernelCache(tmp_path))
    for batch in (2, 3, 7):
        problem, dynamic, values = problem_of(pointwise(FLOAT)(batch))
        tactic = tactics(problem, source)[0]
        out = run_once(source.prepare(tactic, problem), tactic, problem, dynamic)
        assert check_outputs(problem.body, values, out)
    assert len(source.cache.kernels()) == 1
