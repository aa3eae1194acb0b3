"""Operators on strings. Values are object arrays of str."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np

from workbench.body import (
    REQUIRED,
    Array,
    Attributes,
    HostType,
    Inference,
    InferRule,
    MisfitRule,
    Operator,
    Reference,
    TensorType,
    UnrankedType,
)
from workbench.datatypes import DataType
from workbench.errors import InferenceError
from workbench.operators.misfits import joined_texts
from workbench.operators.regex import matcher
from workbench.operators.rules import elementwise, no_error

OWN_CASES = frozenset({"az", "lt", "tr"})
"""Languages in which upper and lower case are not what Unicode says by default."""

_CASES = {"NONE": lambda text: text, "LOWER": str.lower, "UPPER": str.upper}


def _texts(inference: Inference) -> TensorType:
    """The first input's type, which must be strings."""
    t = inference.input(0)
    if t.dtype is not DataType.STRING:
        raise InferenceError(f"input 0 is {t}, needs STRING", remedy="insert a Cast")
    return t


def _each(function: Any, x: Array, dtype: Any) -> Array:
    """A function of every string."""
    made = np.empty(x.size, dtype)
    for k, text in enumerate(x.reshape(-1)):
        made[k] = function(text)
    return made.reshape(x.shape)


# -- StringConcat, RegexFullMatch ---------------------------------------------------------
def _concat_types(inference: Inference) -> tuple[TensorType, ...]:
    for i in (0, 1):
        if isinstance(inference.input(i), HostType):
            return (UnrankedType(_texts(inference).dtype),)
    _texts(inference)
    return elementwise(inference)


def _concat(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    return (np.asarray(np.add(*inputs), np.object_),)


def _match_types(inference: Inference) -> tuple[TensorType, ...]:
    x = _texts(inference)
    matcher(inference.attributes["pattern"] or "")
    if isinstance(x, HostType):
        return (UnrankedType(DataType.BOOL),)
    return (TensorType(DataType.BOOL, x.shape),)


def _match(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    return (_each(matcher(attributes["pattern"] or "").full, inputs[0], np.bool_),)


# -- StringSplit --------------------------------------------------------------------------
def _split_types(inference: Inference) -> tuple[TensorType, ...]:
    x = _texts(inference)
    if isinstance(x, HostType):
        return (x, UnrankedType(DataType.INT64))[: inference.outputs]
    parts = TensorType(x.dtype, (*x.shape, inference.later(len(x.shape))))
    return (parts, TensorType(DataType.INT64, x.shape))[: inference.outputs]


def _split(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    """Parts of each string, filled up with empty strings to the longest list of them."""
    (x,) = inputs
    delimiter = attributes["delimiter"] or None
    most = -1 if attributes["maxsplit"] is None else attributes["maxsplit"]
    parts = [
        text.split(delimiter, most) if delimiter else text.strip().split(None, most)
        for text in x.reshape(-1)
    ]
    made = np.full((x.size, max(map(len, parts), default=0)), "", np.object_)
    for k, found in enumerate(parts):
        made[k, : len(found)] = found
    counts = np.array([len(found) for found in parts], np.int64)
    return made.reshape(*x.shape, made.shape[1]), counts.reshape(x.shape)


# -- StringNormalizer ---------------------------------------------------------------------
def _normalizer_types(inference: Inference) -> tuple[TensorType, ...]:
    x, attributes = _texts(inference), inference.attributes
    language = (attributes["locale"] or "").replace("-", "_").split("_")[0].lower()
    if language in OWN_CASES:
        raise InferenceError(
            f"locale {attributes['locale']} has upper and lower case of its own",
            remedy="normalize the strings before they are given to the model",
        )
    if attributes["case_change_action"] not in _CASES:
        raise InferenceError(
            f"case_change_action is {attributes['case_change_action']!r}",
            remedy=f"known: {', '.join(_CASES)}",
        )
    if isinstance(x, HostType):
        return (x,)
    if len(x.shape) not in (1, 2) or (len(x.shape) == 2 and x.shape[0] not in (1, *_open(x))):
        raise InferenceError(f"input is {x}", remedy="give shape [C] or [1, C]")
    last = len(x.shape) - 1
    return (TensorType(x.dtype, (*(1,) * last, inference.later(last))),)


def _open(x: TensorType) -> tuple[Any, ...]:
    """The first size, where it is not known."""
    return () if isinstance(x.shape[0], int) else (x.shape[0],)


def _normalizer(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    """Stop words left out, the others in another case; one empty string where none is left."""
    (x,) = inputs
    change = _CASES[attributes["case_change_action"]]
    read = _CASES["NONE" if attributes["is_case_sensitive"] else "LOWER"]
    stop = {read(word) for word in attributes["stopwords"] or ()}
    kept = [change(text) for text in x.reshape(-1) if read(text) not in stop] or [""]
    return (np.array(kept, np.object_).reshape(*(1,) * (x.ndim - 1), -1),)


# -- TfIdfVectorizer ----------------------------------------------------------------------
def _ngram_types(inference: Inference) -> tuple[TensorType, ...]:
    x, attributes = inference.input(0), inference.attributes
    strings = x.dtype is DataType.STRING
    if not strings and x.dtype not in (DataType.INT32, DataType.INT64):
        raise InferenceError(f"input is {x}", remedy="give strings, INT32 or INT64")
    pool = "pool_strings" if strings else "pool_int64s"
    if not attributes[pool]:
        raise InferenceError(f"input is {x}, and there is no {pool}", remedy=f"give {pool}")
    if attributes["mode"] not in ("TF", "IDF", "TFIDF"):
        raise InferenceError(f"mode is {attributes['mode']!r}", remedy="known: TF, IDF, TFIDF")
    grams, indexes = ngrams(attributes), attributes["ngram_indexes"]
    weights = attributes["weights"]
    if len(grams) != len(indexes) or (weights is not None and len(weights) != len(indexes)):
        raise InferenceError(
            f"{len(grams)} n-grams, {len(indexes)} ngram_indexes, "
            f"{len(indexes) if weights is None else len(weights)} weights",
            remedy="give one of each an n-gram",
        )
    width = max(indexes, default=-1) + 1
    if isinstance(x, HostType):
        return (UnrankedType(DataType.FLOAT),)
    if len(x.shape) > 2:
        raise InferenceError(f"input is {x}", remedy="give shape [C] or [N, C]")
    return (TensorType(DataType.FLOAT, (*x.shape[:-1], width)),)


def ngrams(attributes: Attributes) -> list[tuple[Any, ...]]:
    """The pool's n-grams in order; ``ngram_counts`` says where those of each length start."""
    pool = attributes["pool_strings"] or attributes["pool_int64s"] or ()
    starts = (*attributes["ngram_counts"], len(pool))
    found: list[tuple[Any, ...]] = []
    for n, (start, end) in enumerate(pairwise(starts), 1):
        found += [tuple(pool[k : k + n]) for k in range(start, end - n + 1, n)]
    return found


def _vectorize(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    """How often each n-gram of the pool occurs, weighted; its items lie 1 to 1 + skips apart."""
    (x,) = inputs
    short, long = attributes["min_gram_length"], attributes["max_gram_length"]
    indexes = attributes["ngram_indexes"]
    pool = {g: k for k, g in enumerate(ngrams(attributes)) if short <= len(g) <= long}
    weights = attributes["weights"]
    rows = x.reshape(-1, x.shape[-1] if x.ndim else 1)
    made = np.zeros((len(rows), max(indexes, default=-1) + 1), np.float32)
    for row, out in zip(rows.tolist(), made, strict=True):
        counts: Counter[int] = Counter()
        for n in range(short, long + 1):
            # Items of their own have no distance.
            for step in range(1, 2 if n == 1 else attributes["max_skip_count"] + 2):
                for start in range(len(row) - step * (n - 1)):
                    gram = tuple(row[start : start + step * (n - 1) + 1 : step])
                    if gram in pool:
                        counts[pool[gram]] += 1
        for k, count in counts.items():
            scale = 1.0 if weights is None or attributes["mode"] == "TF" else weights[k]
            out[indexes[k]] += scale * (1 if attributes["mode"] == "IDF" else count)
    return (made.reshape(*x.shape[:-1], -1),)


# -- rows ---------------------------------------------------------------------------------
def _row(
    name: str,
    infer: InferRule,
    reference: Reference,
    attributes: Mapping[str, Any] = MappingProxyType({}),
    misfit: MisfitRule | None = None,
) -> Operator:
    return Operator(
        name=name,
        infer=infer,
        reference=reference,
        bound=no_error,
        layer_type="STRINGS",
        family="strings",
        attributes=MappingProxyType(dict(attributes)),
        host=True,
        stored=True,
        misfit=misfit,
    )


STRINGS: tuple[Operator, ...] = (
    _row("StringConcat", _concat_types, _concat, misfit=joined_texts),
    _row("RegexFullMatch", _match_types, _match, {"pattern": None}),
    _row("StringSplit", _split_types, _split, {"delimiter": None, "maxsplit": None}),
    _row(
        "StringNormalizer",
        _normalizer_types,
        _normalizer,
        {"case_change_action": "NONE", "is_case_sensitive": 0, "locale": None, "stopwords": None},
    ),
    _row(
        "TfIdfVectorizer",
        _ngram_types,
        _vectorize,
        {
            "max_gram_length": REQUIRED,
            "max_skip_count": REQUIRED,
            "min_gram_length": REQUIRED,
            "mode": REQUIRED,
            "ngram_counts": REQUIRED,
            "ngram_indexes": REQUIRED,
            "pool_int64s": None,
            "pool_strings": None,
            "weights": None,
        },
    ),
)
