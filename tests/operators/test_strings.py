"""Operators on strings against ONNX Runtime, Python and the standard's text."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from one_node import run_node, texts, types_of, unknown
from string_peer import string_peer

from workbench.body import Literal, UnrankedType
from workbench.datatypes import DataType
from workbench.errors import ExecutionError, InferenceError
from workbench.operators.regex import matcher

WORDS = st.text("ab ,é", max_size=6)


def grids(least: int = 0, most: int = 2) -> st.SearchStrategy[Any]:
    """Small arrays of strings."""
    shapes = hnp.array_shapes(min_dims=least, max_dims=most, min_side=1, max_side=3)
    return hnp.arrays(np.object_, shapes, elements=WORDS)


def same(a: Any, b: Any) -> bool:
    return a.shape == b.shape and a.tolist() == b.tolist()


@settings(max_examples=40, deadline=None)
@given(grids(), WORDS)
def test_concat_and_equal_broadcast(x: Any, word: str):
    y = texts(word)
    (joined,) = run_node("StringConcat", [x, y])
    assert same(joined, string_peer("StringConcat", [x, y])[0])
    (equal,) = run_node("Equal", [x, y])
    assert equal.dtype == np.bool_
    assert same(equal, np.equal(*np.broadcast_arrays(x, y)).astype(np.bool_))


@settings(max_examples=60, deadline=None)
@given(grids(), st.sampled_from([",", "a", " ,"]), st.sampled_from([None, 0, 1, 2]))
def test_split_at_a_delimiter_is_python_s(x: Any, delimiter: str, most: int | None):
    attributes = {"delimiter": delimiter, "maxsplit": most}
    parts, counts = run_node("StringSplit", [x], attributes=attributes, outputs=2)
    assert parts.shape[:-1] == counts.shape == x.shape
    for index, text in np.ndenumerate(x):
        wanted = text.split(delimiter, -1 if most is None else most)
        assert parts[index][: len(wanted)].tolist() == wanted
        assert set(parts[index][len(wanted) :]) <= {""}
        assert counts[index] == len(wanted)


@settings(max_examples=40, deadline=None)
@given(grids(least=1), st.sampled_from([None, "", 1, 2]))
def test_split_at_white_space_is_onnx_runtime_s(x: Any, case: Any):
    attributes = {"delimiter": case} if isinstance(case, str) else {"maxsplit": case}
    ours = run_node("StringSplit", [x], attributes=attributes, outputs=2)
    theirs = string_peer("StringSplit", [x], attributes, outputs=2)
    assert all(same(a, b) for a, b in zip(ours, theirs, strict=True))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(["a", "A", "b", "É", ""]), min_size=1, max_size=5),
    st.sets(st.sampled_from(["a", "A", "é", "b"])),
    st.sampled_from(["NONE", "LOWER", "UPPER"]),
    st.booleans(),
    st.booleans(),
)
def test_normalizer_drops_stop_words_and_changes_case(
    words: list[str], stop: set[str], action: str, exact: bool, row: bool
):
    x = np.array(words, np.object_).reshape(*(1,) * row, -1)
    attributes: dict[str, Any] = {"case_change_action": action, "is_case_sensitive": int(exact)}
    if stop:
        attributes["stopwords"] = sorted(stop)
    (ours,) = run_node("StringNormalizer", [x], attributes=attributes)
    fold = str if exact else str.lower
    kept = [w for w in words if fold(w) not in {fold(s) for s in stop}]
    change = {"NONE": str, "LOWER": str.lower, "UPPER": str.upper}[action]
    wanted = [change(w) for w in kept] or [""]
    assert ours.tolist() == ([wanted] if row else wanted)


def test_normalizer_refuses_what_it_cannot_do():
    x = texts("a")
    with pytest.raises(InferenceError, match="tr_TR has upper and lower case of its own"):
        types_of("StringNormalizer", [x], {"locale": "tr_TR"})
    with pytest.raises(InferenceError, match="case_change_action is 'TITLE'"):
        types_of("StringNormalizer", [x], {"case_change_action": "TITLE"})
    with pytest.raises(InferenceError, match=r"shape \[C\] or \[1, C\]"):
        types_of("StringNormalizer", [unknown(DataType.STRING, 2, 3)])
    with pytest.raises(InferenceError, match="needs STRING"):
        types_of("StringNormalizer", [unknown(DataType.FLOAT, 3)])


PATTERNS = (
    *("a$", "(?i)k", r"\w", "[[:alpha:]]+", r"[^\d\s]*", "a|b(?i)c|d", "(a|b)*abb"),
    *(r"\Qa.b\E+", r"\Qa+\E*", "x{2,3}", "x{,5}", "(?s).*", ".*", "(?P<n>a)(?:b)?"),
    *(r"\bfoo\b.*", "(?m)^a$\n^b$", r"[a\-z]+", "[]a]+", "[^]a]+", r"\x{1F600}", r"\101"),
    *(r"\x41", r"[\D]+", "[[:^digit:]x]", "(?i:Ab)c", "(?U)a+", "(?<n>b)", r"\z", "", "()*"),
    *("(|a)+", r"\_", "(?-i)a", "(?i)[k-l]", "^*", r"\v|\f", "é+", r"a\B", "(a+)+$"),
    *("a**", "a*+", "(?=a)", r"\1", "(a", "a)", "[z-a]", "a{2}{3}", "[[:foo:]]", r"[a-\d]"),
    *("*a", "a{1001}", "(?P=n)", "(?>a)", "[a"),
)
SUBJECTS = texts(
    *("a", "a\n", "b", "k", "K", "\u212a", "é", "_", "abc", "d", "aabb", "a.b", "a.ba.b"),
    *("a.bbb", "a+a+", "a+", "xx", "xxx", "x{,5}", "", "foo bar", "a\nb", "-", "]", "\U0001f600"),
    *("A", "5", "x", "Abc", "abC", "bC", "B", "D", "\u017f", "s", "\v", "éé", "aaa", "É"),
)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_means_what_it_means_to_re2(pattern: str):
    theirs = string_peer("RegexFullMatch", [SUBJECTS], {"pattern": pattern}, refused=None)
    if theirs is None:
        with pytest.raises(InferenceError, match="is no RE2 syntax"):
            types_of("RegexFullMatch", [SUBJECTS], {"pattern": pattern})
        return
    (ours,) = run_node("RegexFullMatch", [SUBJECTS], attributes={"pattern": pattern})
    assert ours.tolist() == theirs[0].tolist()


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.sampled_from(["a", "b", ".", "[ab]", "[^a]"]),
        lambda inner: st.one_of(
            st.tuples(inner, inner).map("".join),
            st.tuples(inner, inner).map(lambda p: f"(?:{p[0]}|{p[1]})"),
            st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,3}"])).map(
                lambda p: f"(?:{p[0]}){p[1]}"
            ),
        ),
        max_leaves=6,
    ),
    st.text("abc", max_size=6),
)
def test_plain_patterns_match_what_python_matches(pattern: str, text: str):
    assert matcher(pattern).full(text) is (re.fullmatch(pattern, text) is not None)


def test_a_pattern_that_would_backtrack_for_ages_takes_linear_time():
    assert not matcher("(a|a)*(a+)+$").full("a" * 3000 + "b")


def test_a_pattern_too_large_is_refused():
    with pytest.raises(InferenceError, match="more than 20000 states"):
        matcher("((a{100}){100}){100}")
    with pytest.raises(InferenceError, match="groups within groups"):
        matcher("(" * 500 + "a" + ")" * 500)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.booleans())
def test_ngrams_are_counted_and_weighted_as_onnx_runtime_does(data: st.DataObject, words: bool):
    items = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=8))
    pool = [1, 2, 3, *(1, 1), *(1, 2), *(3, 1), *(1, 2, 3), *(2, 2, 2)]
    short = data.draw(st.integers(1, 3))
    attributes: dict[str, Any] = {
        "mode": data.draw(st.sampled_from(["TF", "IDF", "TFIDF"])),
        "min_gram_length": short,
        "max_gram_length": data.draw(st.integers(short, 3)),
        "max_skip_count": data.draw(st.integers(0, 3)),
        "ngram_counts": [0, 3, 9],
        "ngram_indexes": data.draw(st.permutations(range(8))),
        "weights": [float(k + 1) for k in range(8)],
    }
    rows = data.draw(st.integers(0, 2))
    x = np.array(items if not rows else [items] * rows, np.int64)
    if words:
        x = x.astype(str).astype(np.object_)
    attributes["pool_strings" if words else "pool_int64s"] = [str(p) if words else p for p in pool]
    (ours,) = run_node("TfIdfVectorizer", [x], attributes=attributes)
    (theirs,) = string_peer("TfIdfVectorizer", [x], attributes, opset=9)
    assert ours.dtype == np.float32
    assert same(ours, theirs)


def test_ngrams_without_their_pool_or_weights_are_refused():
    attributes: dict[str, Any] = {
        "mode": "TF",
        "min_gram_length": 1,
        "max_gram_length": 1,
        "max_skip_count": 0,
        "ngram_counts": [0],
        "ngram_indexes": [0, 1],
        "pool_int64s": [5, 6],
    }
    with pytest.raises(InferenceError, match="there is no pool_strings"):
        types_of("TfIdfVectorizer", [texts("5")], attributes)
    with pytest.raises(InferenceError, match="2 n-grams, 2 ngram_indexes, 1 weights"):
        types_of("TfIdfVectorizer", [np.array([5])], {**attributes, "weights": [1.0]})


@settings(max_examples=100, deadline=None)
@given(st.floats(width=32), st.floats(), st.integers(-(2**63), 2**63 - 1))
def test_a_number_written_as_a_string_reads_back_as_itself(single: float, double: float, n: int):
    for value, kind in (
        (np.array([single], np.float32), DataType.FLOAT),
        (np.array([double]), DataType.DOUBLE),
        (np.array([n], np.int64), DataType.INT64),
    ):
        (text,) = run_node("Cast", [value], attributes={"to": DataType.STRING})
        assert "e" not in text[0].lower().replace("inf", "")
        (back,) = run_node("Cast", [text], attributes={"to": kind})
        assert back.dtype == value.dtype
        assert np.array_equal(back, value, equal_nan=True)


def test_numbers_are_written_plainly():
    x = np.array([1, 0.1, 1e-5, 1e10, 314.1593, np.nan, np.inf, -np.inf, -0.0], np.float32)
    (ours,) = run_node("Cast", [x], attributes={"to": DataType.STRING})
    plain = ["1", "0.1", "0.00001", "10000000000", "314.1593", "NaN", "INF", "-INF", "-0"]
    assert ours.tolist() == plain
    (bits,) = run_node("Cast", [np.array([True, False])], attributes={"to": DataType.STRING})
    assert bits.tolist() == ["1", "0"]


def test_strings_are_read_as_the_standard_lists():
    x = texts("3.14", "1000", "1e-5", "1E8", "+INF", "inf", "-INF", "NaN", "nan")
    (ours,) = run_node("Cast", [x], attributes={"to": DataType.DOUBLE})
    wanted = [3.14, 1000, 1e-5, 1e8, np.inf, np.inf, -np.inf, np.nan, np.nan]
    assert np.array_equal(ours, wanted, equal_nan=True)
    (whole,) = run_node("Cast", [texts("100.5", "-7")], attributes={"to": DataType.INT8})
    assert whole.tolist() == [100, -7]
    with pytest.raises(ExecutionError, match="could not convert string to float: 'Hello'"):
        run_node("Cast", [texts("Hello")], attributes={"to": DataType.FLOAT})
    (none,) = run_node("Cast", [texts()], attributes={"to": DataType.FLOAT})
    assert none.shape == (0,)


GRID = np.array([["a", "b", "c"], ["d", "e", "f"]], np.object_)
INDEX = np.array([[1, 0, 1]])
MOVES: dict[str, tuple[list[Any], dict[str, Any], Any]] = {
    "Concat": ([GRID, GRID], {"axis": 0}, np.concatenate([GRID, GRID])),
    "Expand": ([texts("a", "b", "c"), np.array([2, 3])], {}, np.array([["a", "b", "c"]] * 2)),
    "Flatten": ([GRID], {"axis": 0}, GRID.reshape(1, 6)),
    "Gather": ([GRID, np.array([1])], {"axis": 1}, GRID[:, [1]]),
    "GatherElements": ([GRID, INDEX], {"axis": 0}, np.array([["d", "b", "f"]])),
    "GatherND": ([GRID, np.array([[0, 1]])], {}, np.array(["b"])),
    "Identity": ([GRID], {}, GRID),
    "OneHot": (
        [np.array([0, 1]), np.array(2), texts("n", "y")],
        {},
        np.array([["y", "n"], ["n", "y"]]),
    ),
    "Pad": ([texts("a"), np.array([1, 0])], {}, np.array(["", "a"])),
    "Reshape": ([GRID, np.array([3, 2])], {}, GRID.reshape(3, 2)),
    "ReverseSequence": (
        [GRID, np.array([2, 1, 2])],
        {},
        np.array([["d", "b", "f"], ["a", "e", "c"]]),
    ),
    "ScatterElements": (
        [GRID, np.array([[1, 0]]), np.array([["x", "y"]], np.object_)],
        {"axis": 1},
        np.array([["y", "x", "c"], ["d", "e", "f"]]),
    ),
    "ScatterND": ([texts("a", "b"), np.array([[1]]), texts("z")], {}, np.array(["a", "z"])),
    "Slice": ([GRID, np.array([1]), np.array([3]), np.array([1])], {}, GRID[:, 1:3]),
    "Split": ([GRID, np.array([1, 1])], {"axis": 0}, GRID[:1]),
    "Squeeze": ([GRID[None], np.array([0])], {}, GRID),
    "Tile": ([texts("a"), np.array([2])], {}, np.array(["a", "a"])),
    "Transpose": ([GRID], {}, GRID.T),
    "Trilu": ([GRID, np.array(0)], {"upper": 0}, np.array([["a", "", ""], ["d", "e", ""]])),
    "Unsqueeze": ([texts("a"), np.array([0])], {}, np.array([["a"]])),
    "Where": ([np.array([True, False]), texts("a", "b"), texts("c")], {}, np.array(["a", "c"])),
}


@pytest.mark.parametrize("op", MOVES)
def test_what_moves_numbers_moves_strings(op: str):
    inputs, attributes, wanted = MOVES[op]
    outputs = 2 if op == "Split" else 1
    ours = run_node(op, inputs, attributes=attributes, outputs=outputs)[0]
    assert ours.dtype == np.object_
    assert ours.tolist() == wanted.tolist()


@pytest.mark.parametrize(("op", "inputs"), [
    ("Resize", [GRID.reshape(1, 1, 2, 3), None, np.ones(4, np.float32)]),
    ("GridSample", [GRID.reshape(1, 1, 2, 3), np.zeros((1, 2, 2, 2), np.float32)]),
    ("Col2Im", [np.full((1, 4, 1), "a", np.object_), np.array([2, 2]), np.array([2, 2])]),
    ("RandomUniformLike", [GRID]),
    ("Add", [GRID, GRID]),
    ("Less", [GRID, GRID]),
])  # fmt: skip
def test_what_computes_with_numbers_refuses_strings(op: str, inputs: list[Any]):
    with pytest.raises(InferenceError, match=r"STRING|strings"):
        types_of(op, inputs)


def test_a_literal_of_strings_is_one_of_strings():
    literal = Literal.of(GRID)
    assert literal.dtype is DataType.STRING
    assert literal.array().tolist() == GRID.tolist()


def test_without_a_rank_only_the_element_type_is_known():
    x = UnrankedType(DataType.STRING)
    assert types_of("StringConcat", [x, texts("a")]) == (x,)
    assert types_of("RegexFullMatch", [x], {"pattern": "a"}) == (UnrankedType(DataType.BOOL),)
    assert types_of("StringSplit", [x], outputs=2) == (x, UnrankedType(DataType.INT64))
