"""Requested is built is executed, for every layer, in random mixtures; or the blocker is named."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from digits_trials import digits_trials
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from workbench.datatypes import PRECISIONS, DataType
from workbench.lab import PrecisionTrials
from workbench.precision import QUANTIZABLE

MODELS = ("digits_cnn", "digits_inception", "digits_vit")
NATIVE = (DataType.FLOAT, DataType.INT8)


@functools.cache
def trials_of(model: str) -> PrecisionTrials:
    return digits_trials(model, calibration=32, usual=8)


@pytest.mark.parametrize("model", MODELS)
@given(data=st.data())
@settings(max_examples=2, phases=(Phase.generate,))
def test_every_layer_runs_in_its_type_or_names_its_blocker(model: str, data: st.DataObject) -> None:
    trials = trials_of(model)
    kinds = data.draw(st.lists(st.sampled_from(PRECISIONS), min_size=2, max_size=4))
    seed = data.draw(st.integers(0, 2**16))
    random = np.random.default_rng(seed)
    config = trials.config.clone()
    asked: dict[str, DataType] = {}
    for node in trials.network.model_nodes:
        asked[node] = kinds[int(random.integers(len(kinds)))]
    config.precisions = tuple(asked.items())
    state = trials.build(config)
    for choice in state.tuned.layers:
        assert choice.requested is choice.built is choice.executed, choice.layer
    ran = {n: c for c in state.tuned.layers for n in c.origin}
    for d in state.decisions:
        assert d.requested in {asked[n] for n in d.origin}
        assert d.precision is d.requested or d.blocker, d.layer
        if d.op not in QUANTIZABLE:
            continue
        assert ran[d.origin[0]].executed is d.arithmetic, d.layer
        if d.requested in NATIVE:
            assert d.blocker == "", d.layer
