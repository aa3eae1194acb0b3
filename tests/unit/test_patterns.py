"""Layers are chosen by name, wildcard, regular expression, operator and place."""

from __future__ import annotations

import json

import pytest

import workbench as wb
from workbench.bundle import bundled
from workbench.errors import ConfigError
from workbench.onnx_parser import parse_model
from workbench.patterns import matches
from workbench.precision import resolve

BF16, FLOAT = wb.DataType.BF16, wb.DataType.FLOAT


def chosen(pattern: str, *more: tuple[str, str]) -> list[tuple[str, str]]:
    """(layer, operator) of those that a pattern gives BF16 to, in digits_vit."""
    config = wb.BuilderConfig()
    config.set_precision(pattern, "BF16")
    for text, kind in more:
        config.set_precision(text, kind)
    again = wb.BuilderConfig.from_json(json.loads(json.dumps(config.to_json())))
    assert again == config
    network = parse_model(bundled("datasets", "digits_vit.onnx"))
    return [(d.layer, d.op) for d in resolve(network, again) if d.requested is BF16]


def test_an_operator_is_chosen_by_type() -> None:
    found = chosen("op:MatMul")
    assert len(found) == 32
    assert {op for _, op in found} == {"MatMul"}


def test_places_are_pythons_slices() -> None:
    every = chosen("at::")
    assert chosen("at:0:3") == every[:3]
    assert chosen("at:-2:") == every[-2:]
    assert chosen("at:4") == every[4:5]
    assert chosen("at:-1") == every[-1:]


def test_a_regular_expression_fits_the_whole_name() -> None:
    found = chosen(r"re:node_MatMul_\d")
    assert found
    assert all(len(name) == len("node_MatMul_7") for name, _ in found)


def test_the_last_match_wins() -> None:
    assert not set(chosen("op:MatMul", ("op:MatMul", "FP32")))
    found = chosen("op:*", ("op:Conv", "FP32"))
    assert "Conv" not in {op for _, op in found}


@pytest.mark.parametrize("pattern", ["re:(", "at:x", "at:1:2:3", "at:"])
def test_what_cannot_be_read_is_refused_at_once(pattern: str) -> None:
    with pytest.raises(ConfigError, match="pattern"):
        wb.BuilderConfig().set_precision(pattern, "BF16")


@pytest.mark.parametrize("pattern", ["op:Matmul", "re:no_such.*", "at:900:"])
def test_what_chooses_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigError, match="no node of the model"):
        chosen(pattern)


def test_a_name_with_brackets_is_still_a_name() -> None:
    assert matches("conv[0]", "conv[0]")
    assert not matches("conv[0]", "conv1")
