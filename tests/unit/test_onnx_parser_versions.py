"""The upgrade table covers each domain, and what it gives is right where ONNX Runtime can judge."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from onnx import ValueInfoProto, defs, helper, numpy_helper
from onnx_cases import Case, assert_same, feeds_of, ints, numbers, run_model, run_onnx_runtime

from workbench.body import TensorType
from workbench.datatypes import DataType
from workbench.errors import ParserError
from workbench.onnx_parser.expansion import node_proto
from workbench.onnx_parser.schemas import OPSET, OPSETS, Schema, operator_key, schema
from workbench.onnx_parser.site import Site
from workbench.onnx_parser.source import SourceNode
from workbench.onnx_parser.standard import REFUSED
from workbench.onnx_parser.upgrade import UPGRADES, upgraded
from workbench.onnx_parser.versions import UNCHANGED

OLDEST = 7
JUDGED = 20
"""An opset that ONNX Runtime reads; the newest forms used here are no younger."""


def versions_in_use() -> dict[str, list[int]]:
    """Operator -> its versions that some opset from 7 on uses, oldest first."""
    found: dict[str, set[int]] = defaultdict(set)
    names = {(s.domain, s.name) for s in defs.get_all_schemas_with_history()}
    for domain, name in sorted(n for n in names if n[0] in OPSETS):
        key = operator_key(domain, name)
        for opset in range(1 if domain else OLDEST, OPSETS[domain] + 1):
            row = schema(key, opset)
            if row is not None:
                found[key].add(row.since)
    return {name: sorted(versions) for name, versions in found.items()}


def test_the_pinned_opsets_are_the_newest_that_onnx_defines() -> None:
    assert defs.onnx_opset_version() == OPSET
    for domain, newest in OPSETS.items():
        rows = [s for s in defs.get_all_schemas_with_history() if s.domain == domain]
        assert max(s.since_version for s in rows) == newest


def test_every_version_of_every_operator_since_opset_7_has_a_place_in_the_table() -> None:
    missing = [
        (name, version)
        for name, versions in versions_in_use().items()
        if name not in REFUSED
        for version in versions[:-1]
        if version not in UNCHANGED.get(name, ()) and (name, version) not in UPGRADES
    ]
    assert missing == []


def test_no_version_is_both_unchanged_and_upgraded() -> None:
    both = [(n, v) for n, versions in UNCHANGED.items() for v in versions if (n, v) in UPGRADES]
    assert both == []


def kept(old: Schema, new: Schema) -> bool:
    """Whether the new form reads the old one's attributes, inputs and outputs as they are."""
    lost = [k for k in old.attributes if k not in new.attributes]
    changed = [
        k for k, a in old.attributes.items() if k in new.attributes
        and new.attributes[k].default != a.default
    ]  # fmt: skip
    demanded = [k for k, a in new.attributes.items() if a.required and k not in old.attributes]
    inputs = [f.name for f in new.inputs[: len(old.inputs)] if f.option == "Variadic"]
    added = [f for f in new.inputs[len(old.inputs) :] if f.option == "Single"]
    return not (lost or changed or demanded or added) or bool(inputs and not lost)


def test_an_unchanged_version_keeps_its_attributes_their_defaults_and_its_inputs() -> None:
    different = [
        (name, version)
        for name, versions in UNCHANGED.items()
        for version in versions
        if (name, version) != ("Scan", 8)  # its batch axis is an attribute of the row
        if not kept(_row(name, version), _row(name, OPSET))
    ]
    assert different == []


def _row(name: str, opset: int) -> Schema:
    row = schema(name, opset)
    assert row is not None
    return row


class Surroundings:
    """What an upgrade sees, from a case's arrays."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values
        self.added: dict[str, Any] = {}

    def type_of(self, name: str) -> TensorType:
        return TensorType(DataType.of(self.values[name]), self.values[name].shape)

    def value_of(self, name: str) -> Any:
        return self.values[name]

    def add_constant(self, name: str, value: Any) -> str:
        self.added[name] = self.values[name] = value
        return name

    def fresh(self, name: str) -> str:
        return name

    def is_read(self, name: str) -> bool:
        return True


def site_of(case: Case) -> Site:
    stored = {f"c{i}": np.asarray(v) for i, v in enumerate(case.constants) if v is not None}
    names = [f"c{i}" if v is not None else "" for i, v in enumerate(case.constants)]
    node = SourceNode(
        "node",
        case.operator,
        "",
        case.opset,
        (*feeds_of(case), *names),
        tuple(f"y{i}" for i in range(case.outputs)),
        case.attributes,
        {},
        0,
    )
    return Site(node, Surroundings({**feeds_of(case), **stored}))


def newest_form(case: Case) -> bytes:
    """A model of the upgraded case at the newest opset that ONNX Runtime reads."""
    site = site_of(case)
    steps = upgraded(site)
    surroundings = site.around
    assert isinstance(surroundings, Surroundings)
    nodes = [node_proto(s.operator, s.inputs, s.outputs, s.attributes) for s in steps]
    feeds = feeds_of(case)
    inputs = [
        helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
        for k, v in feeds.items()
    ]
    stored = [
        numpy_helper.from_array(v, k) for k, v in surroundings.values.items() if k not in feeds
    ]
    outputs = [ValueInfoProto(name=o) for o in site.node.outputs]
    graph = helper.make_graph(nodes, "newest", inputs, outputs, stored)
    opset = helper.make_opsetid("", JUDGED)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10).SerializeToString()


IMAGE = numbers(1, 2, 4, 5)
GRID = (np.random.default_rng(3).random((1, 3, 3, 2)) * 2 - 1).astype(np.float32)
BOXES = np.array([[0, 0, 3, 3], [1, 1, 4, 3]], np.float32)

NOT_IN_THE_NETWORK_YET = (
    Case("Upsample", 7, [IMAGE], attributes={"scales": [1.0, 1.0, 2.0, 3.0]}),
    Case("Upsample", 7, [IMAGE], attributes={"scales": [1.0, 1.0, 2.0, 3.0], "mode": "linear"}),
    Case("Upsample", 9, [IMAGE], [np.array([1, 1, 2, 2.5], np.float32)]),
    Case("Resize", 10, [IMAGE], [np.array([1, 1, 2, 3], np.float32)]),
    Case("Resize", 10, [IMAGE], [np.array([1, 1, 0.6, 0.5], np.float32)]),
    Case("Resize", 10, [IMAGE], [np.array([1, 1, 0.6, 1.5], np.float32)]),
    Case("Resize", 10, [IMAGE], [np.array([1, 1, 1, 1], np.float32)]),
    Case("Resize", 10, [IMAGE], [np.array([1, 1, 2, 3], np.float32)], {"mode": "linear"}),
    Case("Resize", 10, [IMAGE], [np.array([1, 1, 0.6, 0.5], np.float32)], {"mode": "linear"}),
    *(
        Case("Resize", v, [IMAGE], c, {"mode": m, "coordinate_transformation_mode": t})
        for v in (11, 13)
        for c in (
            [np.zeros(0, np.float32), np.array([1, 1, 2, 3], np.float32)],
            [np.zeros(0, np.float32), np.zeros(0, np.float32), ints(1, 2, 8, 7)],
        )
        for m, t in (("nearest", "asymmetric"), ("linear", "align_corners"))
    ),
    Case("Resize", 13, [IMAGE], [None, np.array([1, 1, 2, 3], np.float32)], {"mode": "cubic"}),
    Case("Resize", 18, [IMAGE], [None, None, ints(8, 7)], {"axes": [2, 3], "mode": "linear"}),
    Case("GridSample", 16, [IMAGE, GRID]),
    Case("GridSample", 16, [IMAGE, GRID], attributes={"mode": "bicubic"}),
    Case("GridSample", 16, [IMAGE, GRID], attributes={"mode": "nearest"}),
    Case(
        "RoiAlign",
        10,
        [IMAGE],
        [BOXES, ints(0, 0)],
        {"output_height": 2, "output_width": 2, "sampling_ratio": 2},
    ),
    Case("DFT", 17, [numbers(1, 8, 1)], attributes={"onesided": 1}),
    Case("DFT", 17, [numbers(1, 4, 8, 1)], attributes={"axis": 2}),
)


@pytest.mark.parametrize("case", NOT_IN_THE_NETWORK_YET, ids=str)
def test_the_newest_form_gives_in_onnx_runtime_what_the_old_one_gives(case: Case) -> None:
    newest = run_model(newest_form(case), feeds_of(case))
    assert_same(newest, run_onnx_runtime(case))


def arithmetic(case: Case) -> Any:
    """The steps of an upgrade, computed by ONNX Runtime: for what it no longer reads itself."""
    return run_model(newest_form(case), feeds_of(case))[0]


def test_add_before_opset_7_aligns_its_second_input_at_the_axis() -> None:
    a, b = numbers(2, 3, 4), numbers(3)
    case = Case("Add", 6, [a, b], attributes={"broadcast": 1, "axis": 1})
    np.testing.assert_allclose(arithmetic(case), a + b[:, None])


def test_add_before_opset_7_without_axis_aligns_at_the_end() -> None:
    a, b = numbers(2, 3, 4), numbers(4)
    np.testing.assert_allclose(
        arithmetic(Case("Add", 6, [a, b], attributes={"broadcast": 1})), a + b
    )


def test_prelu_before_opset_7_has_a_slope_a_channel() -> None:
    x, slope = numbers(2, 3, 4, 4), numbers(3)
    want = np.where(x < 0, x * slope[:, None, None], x)
    np.testing.assert_allclose(arithmetic(Case("PRelu", 6, [x], [slope])), want)


def test_old_batch_normalization_in_training_mode_is_refused() -> None:
    case = Case("BatchNormalization", 6, [IMAGE], [numbers(2)] * 4, {"is_test": 0})
    with pytest.raises(ParserError, match="training mode: is_test is 0"):
        upgraded(site_of(case))


def test_the_mask_of_an_old_dropout_is_refused_when_it_is_read() -> None:
    with pytest.raises(ParserError, match="versions before 12 do not say what it holds"):
        upgraded(site_of(Case("Dropout", 10, [IMAGE], outputs=2)))


def test_resize_for_nearest_half_pixels_is_refused() -> None:
    mode = {"coordinate_transformation_mode": "tf_half_pixel_for_nn"}
    case = Case("Resize", 11, [IMAGE], [None, np.ones(4, np.float32)], mode)
    with pytest.raises(ParserError, match="tf_half_pixel_for_nn has no newest form"):
        upgraded(site_of(case))


def test_a_version_older_than_the_table_is_refused() -> None:
    with pytest.raises(ParserError, match="version 1 is older than the upgrade table"):
        upgraded(site_of(Case("Tile", 1, [IMAGE], [ints(1), ints(1)])))
