"""Ensembles of decision trees: TreeEnsemble, and its predecessors for classes and for targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from workbench.body import (
    REQUIRED,
    Array,
    Attributes,
    Inference,
    Literal,
    Operator,
    TensorType,
)
from workbench.datatypes import DataType
from workbench.errors import ExecutionError, InferenceError
from workbench.operators.features import features_of, ml_row
from workbench.operators.scores import (
    TRANSFORMS,
    check_transform,
    chosen,
    classified_types,
    labels_of,
    regressed_types,
    transformed,
)

MODES = ("LEQ", "LT", "GTE", "GT", "EQ", "NEQ", "MEMBER", "LEAF")
"""In the order of their numbers in TreeEnsemble-5; LEAF is ours."""
LEAF = MODES.index("LEAF")
_AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")


@dataclass(frozen=True)
class Forest:
    """Trees as arrays over their nodes, leaves included.

    modes: index into ``MODES``. splits: thresholds. yes, no: the next node. lost: whether NaN goes
    to ``yes``. members: of each MEMBER node, its set. roots: a node a tree. Votes are sorted by
    leaf: those of node n are ``starts[n]`` to ``starts[n + 1]``.
    """

    roots: Array
    features: Array
    modes: Array
    splits: Array
    yes: Array
    no: Array
    lost: Array
    members: dict[int, Array]
    starts: Array
    targets: Array
    weights: Array

    def leaves(self, x: Array, root: int) -> Array:
        """The leaf that each row reaches. Raises ExecutionError where a tree has a cycle."""
        at = np.full(len(x), root)
        rows = np.arange(len(x))
        for _ in range(len(self.modes) + 1):
            open_ = self.modes[at] != LEAF
            if not open_.any():
                return at
            values = x[rows, self.features[at]]
            yes = self._passed(values, at)
            at = np.where(open_, np.where(yes, self.yes[at], self.no[at]), at)
        raise ExecutionError("a tree has a cycle", remedy="mend its node ids")

    def _passed(self, values: Array, at: Array) -> Array:
        split, modes = self.splits[at], self.modes[at]
        tests = (
            values <= split,
            values < split,
            values >= split,
            values > split,
            values == split,
            values != split,
        )
        passed = np.select([modes == k for k in range(len(tests))], tests, default=False)
        for node in set(at[modes == MODES.index("MEMBER")].tolist()):
            here = at == node
            passed[here] = np.isin(values[here], self.members[node])
        return np.where(np.isnan(values) & self.lost[at], True, passed)

    def summed(self, x: Array, count: int, aggregate: str) -> tuple[Array, Array]:
        """Each row's votes for each of ``count`` targets, and which of them got any."""
        combine = {"MIN": np.minimum, "MAX": np.maximum}.get(aggregate, np.add)
        start = {"MIN": np.inf, "MAX": -np.inf}.get(aggregate, 0.0)
        total = np.full((len(x), count), start)
        touched = np.zeros((len(x), count), np.bool_)
        for root in self.roots.tolist():
            leaf = self.leaves(x, root)
            counts = self.starts[leaf + 1] - self.starts[leaf]
            rows = np.repeat(np.arange(len(x)), counts)
            within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
            votes = np.repeat(self.starts[leaf], counts) + within
            combine.at(total, (rows, self.targets[votes]), self.weights[votes])
            touched[rows, self.targets[votes]] = True
        total[~touched] = 0
        return (total / max(len(self.roots), 1) if aggregate == "AVERAGE" else total), touched


def _numbers(attributes: Attributes, key: str) -> Array | None:
    """A list of numbers: its tensor of doubles where that is set."""
    stored = attributes.get(f"{key}_as_tensor")
    if isinstance(stored, Literal):
        return stored.array().astype(np.float64).reshape(-1)
    if attributes[key] is None:
        return None
    return np.asarray(attributes[key], np.float32).astype(np.float64)


def _sorted_votes(nodes: int, leaf: Array, targets: Array, weights: Array) -> tuple[Array, ...]:
    order = np.argsort(leaf, kind="stable")
    starts = np.searchsorted(leaf[order], np.arange(nodes + 1))
    return starts, targets[order], weights[order]


def _checked(forest: Forest, targets: int) -> Forest:
    """Raise InferenceError where an index points outside."""
    nodes = len(forest.modes)
    for what, values, count in (
        ("a root", forest.roots, nodes),
        ("a true branch", forest.yes, nodes),
        ("a false branch", forest.no, nodes),
        ("a target", forest.targets, targets),
    ):
        if values.size and not 0 <= values.min() <= values.max() < count:
            raise InferenceError(
                f"{what} points to {values.min()} or {values.max()} of {count}",
                remedy="mend the ensemble's indices",
            )
    if forest.features.size and forest.features.min() < 0:
        raise InferenceError("a feature has a negative index", remedy="mend nodes_featureids")
    return forest


# -- TreeEnsemble -------------------------------------------------------------------------
@lru_cache(maxsize=32)
def _forest(key: tuple[tuple[str, Any], ...]) -> Forest:
    """The trees of TreeEnsemble-5: inner nodes first, then the leaves."""
    a = dict(key)
    modes = a["nodes_modes"].array().astype(np.int64)
    inner, targets = len(modes), np.asarray(a["leaf_targetids"], np.int64)
    leaves = len(targets)
    splits = a["nodes_splits"].array().astype(np.float64)

    def branch(what: str) -> Array:
        places = np.asarray(a[f"nodes_{what}nodeids"], np.int64)
        return np.where(np.asarray(a[f"nodes_{what}leafs"]) != 0, inner + places, places)

    lost = a["nodes_missing_value_tracks_true"]
    end = np.zeros(leaves, np.int64)
    weights = a["leaf_weights"].array().astype(np.float64)
    members = np.flatnonzero(modes == MODES.index("MEMBER"))
    found = Forest(
        np.asarray(a["tree_roots"], np.int64),
        np.concatenate([np.asarray(a["nodes_featureids"], np.int64), end]),
        np.concatenate([modes, end + LEAF]),
        np.concatenate([splits, end.astype(np.float64)]),
        np.concatenate([branch("true"), end]),
        np.concatenate([branch("false"), end]),
        np.concatenate([np.asarray(lost or (0,) * inner, np.bool_), end.astype(np.bool_)]),
        dict(zip(members.tolist(), _sets(a["membership_values"], len(members)), strict=True)),
        *_sorted_votes(inner + leaves, inner + np.arange(leaves), targets, weights),
    )
    return _checked(found, a["n_targets"] or 1)


def _sets(values: Literal | None, count: int) -> list[Array]:
    """The sets of the MEMBER nodes, which NaNs part."""
    listed = np.zeros(0) if values is None else values.array().astype(np.float64)
    ends = np.flatnonzero(np.isnan(listed))
    sets = np.split(listed, ends)[: len(ends) + 1]
    clean = [s[~np.isnan(s)] for s in sets] if listed.size else []
    if len(clean) > count and not clean[-1].size:
        clean.pop()
    if len(clean) != count and count:
        raise InferenceError(
            f"membership_values has {len(clean)} sets, {count} nodes test membership",
            remedy="give one set a node, parted by NaN",
        )
    return clean[:count]


def _key(attributes: Attributes) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(attributes.items()))


def _named(number: int, names: tuple[str, ...], what: str) -> str:
    if not 0 <= number < len(names):
        raise InferenceError(f"{what} is {number}", remedy=f"0 to {len(names) - 1}")
    return names[number]


def _ensemble_types(inference: Inference) -> tuple[TensorType, ...]:
    attributes, x = inference.attributes, inference.input(0)
    _named(attributes["aggregate_function"], _AGGREGATES, "aggregate_function")
    _named(attributes["post_transform"], TRANSFORMS, "post_transform")
    _forest(_key(attributes))
    return regressed_types(inference, attributes["n_targets"] or 1, x.dtype)


def _ensemble(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x = np.atleast_2d(inputs[0])
    aggregate = _AGGREGATES[attributes["aggregate_function"]]
    count = attributes["n_targets"] or 1
    total, _ = _forest(_key(attributes)).summed(x.astype(np.float64), count, aggregate)
    return (transformed(total, TRANSFORMS[attributes["post_transform"]]),)


# -- TreeEnsembleRegressor, TreeEnsembleClassifier ----------------------------------------
@lru_cache(maxsize=32)
def _old_forest(key: tuple[tuple[str, Any], ...], votes: str, targets: int) -> Forest:
    """The trees of version 3: (tree, node) ids name nodes. votes: prefix of their attributes."""
    a = dict(key)
    trees, nodes = (np.asarray(a[k] or (), np.int64) for k in ("nodes_treeids", "nodes_nodeids"))
    place = {tn: k for k, tn in enumerate(zip(trees.tolist(), nodes.tolist(), strict=True))}

    def placed(tree: Array, node: Sequence[int]) -> Array:
        pairs = zip(tree.tolist(), node, strict=True)
        return np.array([place.get(tn, -1) for tn in pairs], np.int64)

    names = [m.removeprefix("BRANCH_") for m in a["nodes_modes"] or ()]
    wrong = sorted({n for n in names if n not in MODES or n == "MEMBER"})
    if wrong:
        raise InferenceError(f"nodes_modes has {', '.join(wrong)}", remedy="use the standard's")
    modes = np.array([MODES.index(n) for n in names], np.int64)
    end = modes == LEAF
    yes, no = (placed(trees, a[f"nodes_{b}nodeids"] or ()) for b in ("true", "false"))
    splits = _numbers(a, "nodes_values")
    voters = placed(np.asarray(a[f"{votes}_treeids"] or (), np.int64), a[f"{votes}_nodeids"] or ())
    weights = _numbers(a, f"{votes}_weights")
    if voters.size and voters.min() < 0:
        raise InferenceError("a vote is of a node that is not there", remedy="mend its ids")
    first = [k for k, t in enumerate(trees.tolist()) if k == 0 or t != trees[k - 1]]
    found = Forest(
        np.array(first, np.int64),
        np.asarray(a["nodes_featureids"] or (), np.int64),
        modes,
        np.zeros(0) if splits is None else splits,
        np.where(end, 0, yes),
        np.where(end, 0, no),
        np.asarray(a["nodes_missing_value_tracks_true"] or (0,) * len(modes), np.bool_),
        {},
        *_sorted_votes(
            len(modes),
            voters,
            np.asarray(a[f"{votes}_ids"] or (), np.int64),
            np.zeros(0) if weights is None else weights,
        ),
    )
    lengths = {len(v) for v in (trees, found.features, modes, found.splits, found.yes, found.no)}
    if len(lengths) != 1 or len({len(voters), len(found.targets), len(found.weights)}) != 1:
        raise InferenceError("lists of one node, or of one vote, differ in length")
    return _checked(found, targets)


def _base(attributes: Attributes) -> Array:
    base = _numbers(attributes, "base_values")
    return np.zeros(0) if base is None else base


def _regressor_types(inference: Inference) -> tuple[TensorType, ...]:
    attributes = inference.attributes
    if attributes["aggregate_function"] not in _AGGREGATES:
        raise InferenceError(f"aggregate_function is {attributes['aggregate_function']!r}")
    check_transform(attributes["post_transform"])
    targets = attributes["n_targets"] or 1
    _old_forest(_key(attributes), "target", targets)
    if len(_base(attributes)) not in (0, targets):
        raise InferenceError(f"{len(_base(attributes))} base_values for {targets} targets")
    return regressed_types(inference, targets, DataType.FLOAT)


def _regressor(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x, targets = np.atleast_2d(features_of(inputs[0])), attributes["n_targets"] or 1
    forest = _old_forest(_key(attributes), "target", targets)
    total, _ = forest.summed(x.astype(np.float64), targets, attributes["aggregate_function"])
    base = _base(attributes)
    total = total + (base if base.size else 0)
    return (transformed(total, attributes["post_transform"]).astype(np.float32),)


def _classifier_types(inference: Inference) -> tuple[TensorType, ...]:
    attributes = inference.attributes
    check_transform(attributes["post_transform"])
    labels = labels_of(attributes, integers="classlabels_int64s")
    _old_forest(_key(attributes), "class", len(labels))
    if len(_base(attributes)) not in (0, 1, len(labels)):
        raise InferenceError(f"{len(_base(attributes))} base_values for {len(labels)} classes")
    return classified_types(inference, labels, max(len(labels), 2))


def _classifier(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    x = np.atleast_2d(features_of(inputs[0]))
    labels = labels_of(attributes, integers="classlabels_int64s")
    forest = _old_forest(_key(attributes), "class", len(labels))
    total, _ = forest.summed(x.astype(np.float64), len(labels), "SUM")
    base, transform = _base(attributes), attributes["post_transform"]
    if len(labels) == 2 and base.size < 2 and set(forest.targets.tolist()) == {0}:
        return _one_sided(labels, forest, total, base, transform)
    total = total + (base if base.size else 0)
    scores = transformed(total, transform).astype(np.float32)
    return chosen(labels, total.argmax(-1)), scores


def _one_sided(
    labels: tuple[Any, ...], forest: Forest, total: Array, base: Array, transform: str
) -> tuple[Array, ...]:
    """Two classes, all votes for one of them: the score of the second; the first has the rest."""
    score = total[:, forest.targets[0]] + (base[-1] if base.size else 0)
    positive = bool((forest.weights >= 0).all())
    second = score > (0.5 if positive else 0)
    if transform == "PROBIT":
        both = transformed(np.stack([1 - score, score], -1), transform)
    elif transform == "LOGISTIC":
        both = transformed(np.stack([-score, score], -1), transform)
    else:
        both = np.stack([1 - score if positive else -score, score], -1)
    return chosen(labels, second.astype(np.int64)), both.astype(np.float32)


_NODES = (
    "falsenodeids",
    "featureids",
    "hitrates",
    "missing_value_tracks_true",
    "modes",
    "truenodeids",
)
_OLD = dict.fromkeys(
    (
        "base_values",
        "base_values_as_tensor",
        *(f"nodes_{n}" for n in _NODES),
        "nodes_hitrates_as_tensor",
        "nodes_nodeids",
        "nodes_treeids",
        "nodes_values",
        "nodes_values_as_tensor",
    )
)

TREES: tuple[Operator, ...] = (
    ml_row(
        "TreeEnsemble",
        _ensemble_types,
        _ensemble,
        {
            **dict.fromkeys(f"nodes_{n}" for n in _NODES if n in ("hitrates", _NODES[3])),
            **{f"nodes_{n}": REQUIRED for n in _NODES if n not in ("hitrates", _NODES[3])},
            **dict.fromkeys(("nodes_falseleafs", "nodes_trueleafs", "nodes_splits"), REQUIRED),
            **dict.fromkeys(("leaf_targetids", "leaf_weights", "tree_roots"), REQUIRED),
            "aggregate_function": 1,
            "membership_values": None,
            "n_targets": None,
            "post_transform": 0,
        },
    ),
    ml_row(
        "TreeEnsembleRegressor",
        _regressor_types,
        _regressor,
        {
            **_OLD,
            **dict.fromkeys(f"target_{n}" for n in ("ids", "nodeids", "treeids", "weights")),
            "aggregate_function": "SUM",
            "n_targets": None,
            "post_transform": "NONE",
            "target_weights_as_tensor": None,
        },
    ),
    ml_row(
        "TreeEnsembleClassifier",
        _classifier_types,
        _classifier,
        {
            **_OLD,
            **dict.fromkeys(f"class_{n}" for n in ("ids", "nodeids", "treeids", "weights")),
            "class_weights_as_tensor": None,
            "classlabels_int64s": None,
            "classlabels_strings": None,
            "post_transform": "NONE",
        },
    ),
)
