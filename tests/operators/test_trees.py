"""Tree ensembles against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from one_node import run_node, types_of, unknown
from string_peer import string_peer

from workbench.datatypes import DataType
from workbench.errors import ExecutionError, InferenceError

DOMAIN = "ai.onnx.ml"
MODES = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GT", "BRANCH_GTE", "BRANCH_EQ", "BRANCH_NEQ"]
INNER = 3
NODES = 7


def forest(g: Any, trees: int, votes: str, targets: int, *, mixed: bool = True) -> dict[str, Any]:
    """Full trees of depth 2; each leaf votes for every target."""
    found: dict[str, list[Any]] = {}

    def add(key: str, value: Any) -> None:
        found.setdefault(key, []).append(value)

    mode = g.choice(MODES).item()
    for tree in range(trees):
        for node in range(NODES):
            leaf = node >= INNER
            add("nodes_treeids", tree)
            add("nodes_nodeids", node)
            add("nodes_featureids", 0 if leaf else int(g.integers(3)))
            add("nodes_modes", "LEAF" if leaf else g.choice(MODES).item() if mixed else mode)
            add("nodes_values", 0.0 if leaf else float(g.integers(-4, 5)) / 4)
            add("nodes_truenodeids", 0 if leaf else 2 * node + 1)
            add("nodes_falsenodeids", 0 if leaf else 2 * node + 2)
            add("nodes_missing_value_tracks_true", int(g.integers(2)))
            for target in range(targets) if leaf else ():
                add(f"{votes}_treeids", tree)
                add(f"{votes}_nodeids", node)
                add(f"{votes}_ids", target)
                add(f"{votes}_weights", float(g.integers(1, 17)) / 16)
    return found


def rows(g: Any) -> Any:
    x = g.integers(-6, 7, (7, 3)).astype(np.float32) / 4
    x[g.random(x.shape) < 0.15] = np.nan
    return x


def check(op: str, x: Any, attributes: dict[str, Any], *, outputs: int, opset: int = 3) -> None:
    made = run_node(f"{DOMAIN}::{op}", [x], attributes=attributes, outputs=outputs)
    wanted = string_peer(op, [x], attributes, outputs=outputs, domain=DOMAIN, domain_opset=opset)
    for a, b in zip(made, wanted, strict=True):
        assert a.shape == b.shape
        if a.dtype.kind == "f":
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        else:
            assert a.tolist() == b.tolist()


SEEDS = st.integers(0, 2**20)


@settings(max_examples=80, deadline=None)
@given(
    SEEDS,
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from(["SUM", "AVERAGE", "MIN", "MAX"]),
    st.booleans(),
    st.booleans(),
)
def test_regressions_are_those_of_onnx_runtime(
    seed: int, trees: int, targets: int, aggregate: str, based: bool, mixed: bool
):
    g = np.random.default_rng(seed)
    attributes = forest(g, trees, "target", targets, mixed=mixed)
    attributes |= {"n_targets": targets, "aggregate_function": aggregate}
    if based:
        attributes["base_values"] = (g.integers(-4, 5, targets) / 8).tolist()
    check("TreeEnsembleRegressor", rows(g), attributes, outputs=1)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(1, 3), st.sampled_from(["NONE", "SOFTMAX", "LOGISTIC"]), st.booleans())
def test_classes_are_those_of_onnx_runtime(seed: int, trees: int, how: str, based: bool):
    g = np.random.default_rng(seed)
    attributes = forest(g, trees, "class", 3)
    attributes |= {"classlabels_strings": ["a", "b", "c"], "post_transform": how}
    if based:
        attributes["base_values"] = (g.integers(-4, 5, 3) / 8).tolist()
    check("TreeEnsembleClassifier", rows(g), attributes, outputs=2)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.sampled_from(["NONE", "SOFTMAX", "LOGISTIC"]), st.booleans(), st.booleans())
def test_votes_for_one_of_two_classes_give_the_other_the_rest(
    seed: int, how: str, negative: bool, based: bool
):
    g = np.random.default_rng(seed)
    attributes = forest(g, 2, "class", 1)
    attributes |= {"classlabels_int64s": [4, 5], "post_transform": how}
    if negative:
        attributes["class_weights"][0] = -0.5
    if based:
        attributes["base_values"] = [float(g.integers(-4, 5)) / 8]
    check("TreeEnsembleClassifier", rows(g), attributes, outputs=2)


def newest(forest: dict[str, Any], targets: int) -> dict[str, Any]:
    """The trees of a TreeEnsembleRegressor as TreeEnsemble has them."""
    count = len(forest["nodes_nodeids"])
    inner = [k for k in range(count) if forest["nodes_modes"][k] != "LEAF"]
    leaves = [k for k in range(count) if forest["nodes_modes"][k] == "LEAF"]
    where = {k: i for i, k in enumerate(inner)} | {k: i for i, k in enumerate(leaves)}

    def child(key: str, k: int) -> int:
        return k - forest["nodes_nodeids"][k] + forest[key][k]

    attributes: dict[str, Any] = {
        "n_targets": targets,
        "tree_roots": [where[k] for k in inner if forest["nodes_nodeids"][k] == 0],
        "nodes_splits": np.array([forest["nodes_values"][k] for k in inner], np.float32),
        "nodes_modes": np.array([MODES_NOW[forest["nodes_modes"][k]] for k in inner], np.uint8),
        "leaf_weights": np.array(forest["target_weights"], np.float32),
        "leaf_targetids": forest["target_ids"],
    }
    for key in ("nodes_featureids", "nodes_missing_value_tracks_true"):
        attributes[key] = [forest[key][k] for k in inner]
    for branch in ("true", "false"):
        places = [child(f"nodes_{branch}nodeids", k) for k in inner]
        attributes[f"nodes_{branch}nodeids"] = [where[p] for p in places]
        attributes[f"nodes_{branch}leafs"] = [int(p in leaves) for p in places]
    return attributes


MODES_NOW = {
    "BRANCH_LEQ": 0,
    "BRANCH_LT": 1,
    "BRANCH_GTE": 2,
    "BRANCH_GT": 3,
    "BRANCH_EQ": 4,
    "BRANCH_NEQ": 5,
}


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(1, 3), st.integers(0, 3))
def test_the_newest_form_gives_what_the_old_one_gives(seed: int, trees: int, aggregate: int):
    g = np.random.default_rng(seed)
    old, x = forest(g, trees, "target", 1), rows(g)
    named = ("AVERAGE", "SUM", "MIN", "MAX")[aggregate]
    (wanted,) = run_node(
        f"{DOMAIN}::TreeEnsembleRegressor",
        [x],
        attributes={**old, "n_targets": 1, "aggregate_function": named},
    )
    attributes = {**newest(old, 1), "aggregate_function": aggregate}
    (made,) = run_node(f"{DOMAIN}::TreeEnsemble", [x], attributes=attributes)
    assert made.dtype == np.float32
    assert np.array_equal(made, wanted)


def single_leaf(**change: Any) -> dict[str, Any]:
    """A tree of one node, both of whose branches are leaf 0."""
    return {
        "n_targets": 1,
        "tree_roots": [0],
        "nodes_splits": np.array([0.5], np.float32),
        "nodes_modes": np.array([0], np.uint8),
        "nodes_featureids": [0],
        "nodes_truenodeids": [0],
        "nodes_falsenodeids": [0],
        "nodes_trueleafs": [1],
        "nodes_falseleafs": [1],
        "leaf_weights": np.array([2.5], np.float32),
        "leaf_targetids": [0],
        **change,
    }


def test_a_tree_may_be_one_leaf_and_doubles_stay_doubles():
    doubles = {
        "nodes_splits": np.array([0.5]),
        "leaf_weights": np.array([0.1]),
    }
    (made,) = run_node(
        f"{DOMAIN}::TreeEnsemble", [np.zeros((2, 1))], attributes=single_leaf(**doubles)
    )
    assert made.dtype == np.float64
    assert made.tolist() == [[0.1], [0.1]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tree_roots": [3]}, "a root points to 3"),
        ({"nodes_truenodeids": [5]}, "a true branch points to"),
        ({"leaf_targetids": [2]}, "a target points to"),
        ({"aggregate_function": 7}, "aggregate_function is 7"),
        ({"nodes_modes": np.array([6], np.uint8)}, "1 nodes test membership"),
    ],
)
def test_an_ensemble_whose_indices_point_outside_is_refused(change: Any, message: str):
    attributes = single_leaf(**change)
    with pytest.raises(InferenceError, match=message):
        types_of(f"{DOMAIN}::TreeEnsemble", [unknown(DataType.FLOAT, 2, 1)], attributes)


def test_a_tree_with_a_cycle_ends():
    attributes = single_leaf(nodes_trueleafs=[0], nodes_falseleafs=[0])
    with pytest.raises(ExecutionError, match="a tree has a cycle"):
        run_node(f"{DOMAIN}::TreeEnsemble", [np.zeros((1, 1), np.float32)], attributes=attributes)
