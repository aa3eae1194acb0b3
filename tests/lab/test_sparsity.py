"""2:4 sparsity: checked, pruned by magnitude, its cost measured, and no speed claimed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from digits_trials import digits_trials
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.bundle import bundled
from workbench.devices import open_device
from workbench.lab import acceleration, check_sparsity, prune, pruning_curve
from workbench.lab.sparsity import prune_array
from workbench.onnx_parser import parse_model
from workbench.reports.weights_and_types import pruning_rows, sparsity_rows


@given(st.integers(0, 2**31), st.sampled_from([(0, (8, 3)), (1, (5, 12)), (1, (2, 4, 3, 3))]))
@settings(max_examples=20)
def test_of_every_four_the_best_two_are_kept(seed: int, case: tuple[int, tuple[int, ...]]) -> None:
    axis, shape = case
    array = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    found = prune_array(array, axis)
    fours = np.moveaxis(array, axis, -1).reshape(-1, 4)
    for four, kept in zip(fours, np.moveaxis(found, axis, -1).reshape(-1, 4), strict=True):
        best = max(
            itertools.combinations(range(4), 2), key=lambda p: np.square(four[list(p)]).sum()
        )
        expected = np.zeros(4, np.float32)
        expected[list(best)] = four[list(best)]
        np.testing.assert_array_equal(kept, expected)


def test_dense_weights_do_not_fit_and_pruned_ones_do() -> None:
    network = parse_model(bundled("datasets", "digits_cnn.onnx"))
    before = {w.layer: w for w in check_sparsity(network)}
    blocked = {w.layer for w in before.values() if w.blocker}
    assert len(before) == 6
    assert len(blocked) == 2  # one input channel: the stem, and the depthwise convolution
    assert not any(w.is_sparse for w in before.values())
    after = {w.layer: w for w in check_sparsity(prune(network))}
    for name, w in after.items():
        if name not in blocked:
            assert w.is_sparse
            assert w.zeros >= 0.5
            assert w.lost == pytest.approx(0.0)
            assert 0 < before[name].lost < 0.5
    rows = sparsity_rows(list(after.values()))
    assert list(rows["Note"]).count("2:4") == 4
    fitting = dict(zip(rows["Layer"], rows["Fitting (%)"], strict=True))
    assert {n for n, share in fitting.items() if np.isnan(share)} == blocked
    assert [w.zeros for w in check_sparsity(network)] == [w.zeros for w in before.values()]


def test_the_curve_begins_with_the_model_and_ends_with_every_layer_pruned() -> None:
    curve = pruning_curve(digits_trials(tests=128), points=3)
    assert curve[0].layers == ()
    assert curve[0].quality.relative_l2 < 1e-5
    assert curve[-1].pruned_share == 100.0
    assert list(pruning_rows(curve)["Weights pruned (%)"])[-1] == 100.0
    assert curve[-1].quality.relative_l2 > curve[1].quality.relative_l2 > 0.01


def test_no_speed_is_claimed_where_no_kernel_is() -> None:
    assert acceleration(open_device("cpu")).startswith("checked, not accelerated: none of ONEDNN")
