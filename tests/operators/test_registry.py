"""Every operator's row is complete."""

from __future__ import annotations

import onnx
import pytest

from workbench.body import REQUIRED
from workbench.errors import NetworkError
from workbench.operators import FAMILIES, OPERATORS, operator_named

ROWS = list(OPERATORS.values())
ATTRIBUTES_NOT_KEPT = {
    # Ours: what the nested graph alone does not say.
    "Loop": {"byte_limit", "carried", "step_limit"},
    "Scan": {"states", "batched"},
    "SequenceMap": {"mapped"},
    # Only read by training, or only by types that are inputs here.
    "Dropout": {"seed"},
}

ENDED = ("ai.onnx.ml::TreeEnsembleClassifier", "ai.onnx.ml::TreeEnsembleRegressor")
"""The newest standard only says that they are deprecated; rows are those of version 3."""


def test_each_name_stands_in_one_row():
    names = [row.key for family in FAMILIES for row in family]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.key)
def test_a_row_has_its_rules_and_completes_its_defaults(row):
    assert all(callable(f) for f in (row.infer, row.reference, row.bound, row.cost))
    required = {k: 1 for k, v in row.attributes.items() if v == REQUIRED}
    assert set(row.complete(required)) == set(row.attributes)
    if required:
        with pytest.raises(NetworkError, match=f"{row.name} needs attribute"):
            row.complete({})


@pytest.mark.parametrize(
    "row", [r for r in ROWS if r.key != "Constant" and r.key not in ENDED], ids=lambda r: r.key
)
def test_attributes_and_inputs_are_those_of_the_newest_standard(row):
    schema = onnx.defs.get_schema(row.name, row.domain)
    standard = {k for k, a in schema.attributes.items()} - ATTRIBUTES_NOT_KEPT.get(row.name, set())
    ours = set(row.attributes) - ATTRIBUTES_NOT_KEPT.get(row.name, set())
    assert ours == standard
    for name, attribute in schema.attributes.items():
        if attribute.required and name in row.attributes:
            assert row.attributes[name] == REQUIRED
    assert all(i < schema.max_input for i in row.structural)


def test_an_unknown_operator_is_refused_by_name():
    with pytest.raises(NetworkError, match="operator Frobnicate is not implemented"):
        operator_named("Frobnicate")
