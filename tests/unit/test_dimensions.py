"""Symbolic sizes agree with numbers, whatever is done to them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench import dimensions
from workbench.dimensions import SymbolicDim, symbol
from workbench.errors import NetworkError

MANY = settings(max_examples=150, deadline=None)
NAMES = ("a", "b", "batch")
BINDINGS = st.fixed_dictionaries({n: st.integers(1, 40) for n in NAMES})


@st.composite
def sizes(draw, depth=3):
    """A size, and a function of the bindings that computes it in plain integers."""
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        if draw(st.booleans()):
            number = draw(st.integers(0, 9))
            return number, lambda _: number
        name = draw(st.sampled_from(NAMES))
        return symbol(name), lambda given: given[name]
    (x, f), (y, g) = draw(sizes(depth - 1)), draw(sizes(depth - 1))
    match draw(st.sampled_from(["add", "sub", "mul", "div", "max", "min", "mod"])):
        case "add":
            return x + y, lambda given: f(given) + g(given)
        case "sub":
            return x - y, lambda given: f(given) - g(given)
        case "mul":
            return x * y, lambda given: f(given) * g(given)
        case "max":
            return dimensions.maximum(x, y), lambda given: max(f(given), g(given))
        case "min":
            return dimensions.minimum(x, y), lambda given: min(f(given), g(given))
        case "mod":
            k = draw(st.integers(1, 8))
            return x % k, lambda given: f(given) % k
        case _:
            k = draw(st.integers(1, 8))
            name = draw(st.sampled_from([None, *NAMES]))
            if name is None:
                return dimensions.floordiv(x, k), lambda given: f(given) // k
            by = k * symbol(name)
            return dimensions.floordiv(x, by), lambda given: f(given) // (k * given[name])


@MANY
@given(sizes(), BINDINGS)
def test_arithmetic_agrees_with_integers(case, given_sizes):
    size, number = case
    assert dimensions.evaluate(size, given_sizes) == number(given_sizes)


@MANY
@given(sizes(), BINDINGS)
def test_text_comes_back_as_the_same_size(case, given_sizes):
    size, number = case
    again = dimensions.dim_from_json(dimensions.dim_to_json(size))
    assert again == size
    assert str(again) == str(size)
    assert dimensions.evaluate(again, given_sizes) == number(given_sizes)


@MANY
@given(sizes(), BINDINGS, st.sampled_from(NAMES))
def test_substitution_in_two_steps_gives_the_same_number(case, given_sizes, first):
    size, number = case
    half = dimensions.substitute(size, {first: given_sizes[first]})
    assert first not in dimensions.symbols_of(half)
    assert dimensions.substitute(half, given_sizes) == number(given_sizes)


@MANY
@given(sizes(), BINDINGS)
def test_renaming_symbols_keeps_the_number(case, given_sizes):
    size, number = case
    names = dict(zip(NAMES, ("s1", "s2", "s0"), strict=True))
    renamed = dimensions.substitute(size, {k: symbol(v) for k, v in names.items()})
    values = {v: given_sizes[k] for k, v in names.items()}
    assert dimensions.evaluate(renamed, values) == number(given_sizes)


@MANY
@given(sizes(), st.data())
def test_the_interval_contains_every_value(case, data):
    size, number = case
    bounds, chosen = {}, {}
    for name in NAMES:
        low, high = sorted(data.draw(st.tuples(st.integers(1, 20), st.integers(1, 20))))
        bounds[name], chosen[name] = (low, high), data.draw(st.integers(low, high))
    low, high = dimensions.interval(size, bounds)
    assert low <= number(chosen) <= high


def test_the_interval_of_one_point_is_that_point():
    size = dimensions.floordiv(symbol("a") * 3 - 7, 2) + symbol("b")
    assert dimensions.interval(size, {"a": (5, 5), "b": (2, 2)}) == (6, 6)


def test_arithmetic_that_cancels_gives_a_number():
    n = symbol("n")
    assert n - n == 0
    assert isinstance(n - n, int)
    assert (n + 3) - n == 3
    assert dimensions.floordiv(n * 12, n) == 12
    assert dimensions.floordiv(n * 4 + 5, 4) == n + 1
    assert dimensions.floordiv(n * 4 + symbol("k"), 4) == n + dimensions.floordiv(symbol("k"), 4)
    assert n * 0 == 0
    assert n % 1 == 0


def test_equality_does_not_depend_on_order():
    a, b = symbol("a"), symbol("b")
    assert a * b + 1 == 1 + b * a
    assert dimensions.maximum(a, b) == dimensions.maximum(b, a)
    assert hash(dimensions.minimum(a, 3)) == hash(dimensions.minimum(3, a))
    assert a != b
    assert a != 1


def test_max_and_min_absorb_each_other():
    a, b = symbol("a"), symbol("b")
    assert dimensions.maximum(a, dimensions.minimum(a, b)) == a
    assert dimensions.minimum(dimensions.maximum(b, a), a) == a
    assert dimensions.maximum(a, a) == a


def test_max_and_min_leave_out_what_never_decides():
    a, b = symbol("a"), symbol("b")
    assert dimensions.maximum(dimensions.maximum(a, b), a) == dimensions.maximum(a, b)
    assert dimensions.maximum(a + b, b) == a + b
    assert dimensions.minimum(a + b, b) == b
    assert dimensions.maximum(dimensions.maximum(a, 3), 5) == dimensions.maximum(a, 5)
    assert str(dimensions.maximum(a, 1)) == "max(1, a)"


def test_division_by_a_sum_is_exact_where_it_divides():
    batch, heads, past, new = (symbol(n) for n in ("batch", "heads", "past", "new"))
    tokens = past + new
    assert dimensions.floordiv(48 * batch * tokens, 12 * tokens) == 4 * batch
    assert dimensions.floordiv(batch * heads * tokens, tokens * heads) == batch
    assert dimensions.floordiv(past * past - new * new, past - new) == tokens
    assert str(dimensions.floordiv(past * past + new, tokens)) == (
        "floordiv(new + past*past, new + past)"
    )


def test_division_drops_what_both_sides_share():
    n, m = symbol("n"), symbol("m")
    assert dimensions.floordiv(6 * n * m + 3 * m, 9 * m) == dimensions.floordiv(2 * n + 1, 3)
    assert dimensions.floordiv(2 * n, 4 * m) == dimensions.floordiv(n, 2 * m)


def test_divisions_by_numbers_become_one():
    n = symbol("n")
    halved = dimensions.floordiv(n - 1, 2) + 1
    assert dimensions.floordiv(halved - 1, 2) == dimensions.floordiv(n - 1, 4)
    assert dimensions.floordiv(dimensions.floordiv(n, 4), 8) == dimensions.floordiv(n, 32)
    assert dimensions.ceildiv(dimensions.ceildiv(n, 2), 2) == dimensions.ceildiv(n, 4)


def test_numpy_integers_are_numbers():
    n = symbol("n")
    assert n + np.int64(2) == n + 2
    assert str(np.int64(2) * n) == "2*n"


def test_an_unbound_symbol_is_named():
    with pytest.raises(NetworkError, match="size 'n' is not bound"):
        symbol("n").evaluate({})
    with pytest.raises(NetworkError, match="size 'n' has no bounds"):
        dimensions.interval(symbol("n"), {})


@pytest.mark.parametrize("name", ["", "a-b", "2x", "max", "floordiv", "in", "a b", "None"])
def test_a_name_that_text_cannot_hold_is_refused(name):
    with pytest.raises(NetworkError, match="is not an identifier"):
        symbol(name)


@pytest.mark.parametrize(
    "text",
    ["__import__('os')", "a.b", "a/b", "f(a, b)", "max(a)", "a if b else c", "1.5", "(", "a**2"],
)
def test_any_other_text_is_not_a_size(text):
    with pytest.raises(NetworkError, match="not a size"):
        dimensions.dim_from_json(text)


@pytest.mark.parametrize("value", [None, 1.5, ["a"], "(" * 5000, "a" + "+a" * 100_000])
def test_a_damaged_value_is_not_a_size(value):
    with pytest.raises(NetworkError, match="not a size"):
        dimensions.dim_from_json(value)


# -- broadcasting -------------------------------------------------------------------------
SHAPES = st.lists(st.sampled_from([1, 2, 3]), max_size=4).map(tuple)


@MANY
@given(st.lists(SHAPES, min_size=1, max_size=3))
def test_broadcasting_numbers_agrees_with_numpy(shapes):
    try:
        want = np.broadcast_shapes(*shapes)
    except ValueError:
        with pytest.raises(NetworkError, match="do not broadcast"):
            dimensions.broadcast(*shapes)
    else:
        assert dimensions.broadcast(*shapes) == want


def test_broadcasting_symbols_takes_them_to_fit():
    n, m = symbol("n"), symbol("m")
    assert dimensions.broadcast((n, 1), (1, 4)) == (n, 4)
    assert dimensions.broadcast((n,), (4,)) == (4,)
    assert dimensions.broadcast((n,), (n,)) == (n,)
    either = dimensions.broadcast((n,), (m,))[0]
    assert isinstance(either, SymbolicDim)
    assert either.evaluate({"n": 1, "m": 7}) == 7


def test_shape_questions():
    n = symbol("n")
    assert dimensions.is_static((1, 2))
    assert not dimensions.is_static((1, n))
    assert dimensions.volume((n, 2, 3)) == 6 * n
    assert dimensions.evaluate_shape((n, 2), {"n": 5}) == (5, 2)
    assert dimensions.symbols_of((n, 2, symbol("m") + 1)) == {"n", "m"}
