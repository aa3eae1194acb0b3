"""Constants beyond a half type's range: clipped, and told, instead of turned into infinities."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import workbench as wb
from workbench.network import Weight
from workbench.precision.casts import beyond, cast_weight

LOWEST = float(np.finfo(np.float32).min)


def masked_softmax() -> bytes:
    """Softmax(x + (1 - mask) * lowest), as exporters write a padding mask."""
    constants = {"one": 1.0, "lowest": LOWEST}
    graph = helper.make_graph(
        [
            helper.make_node("Sub", ["one", "mask"], ["hidden"], name="invert"),
            helper.make_node("Mul", ["hidden", "lowest"], ["bias"], name="scale_mask"),
            helper.make_node("Add", ["x", "bias"], ["masked"], name="add_mask"),
            helper.make_node("Softmax", ["masked"], ["y"], name="softmax", axis=-1),
        ],
        "masked",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, (2, 8)) for n in ("x", "mask")],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (2, 8))],
        [numpy_helper.from_array(np.array(v, np.float32), k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    onnx.checker.check_model(model)
    return model.SerializeToString()


@pytest.mark.parametrize("kind", [wb.DataType.HALF, wb.DataType.BF16])
def test_a_mask_of_the_lowest_float_gives_no_nan_in_half_precision(kind: wb.DataType) -> None:
    session = wb.Session(masked_softmax())
    session.do(wb.session.SetDefaultPrecision(kind))
    session.do(wb.session.SetOption("builder_optimization_level", 0))
    engine = session.run().engine()
    x = np.linspace(-2, 2, 16, dtype=np.float32).reshape(2, 8)
    mask = np.ones((2, 8), np.float32)
    mask[1, 5:] = 0
    got = engine.create_execution_context().run({"x": x, "mask": mask})["y"]
    kept = np.exp(x) * mask
    assert np.allclose(got, kept / kept.sum(-1, keepdims=True), atol=5e-3)
    assert not got[1, 5:].any()


def test_the_ledger_tells_which_values_were_clipped() -> None:
    session = wb.Session(masked_softmax())
    session.do(wb.session.SetDefaultPrecision(wb.DataType.HALF))
    details = [a.detail for a in session.run().log.attempts]
    assert "scale_mask in FP16; 1 of 1 values of lowest clipped to ±65504" in details


def test_a_value_that_rounds_to_the_largest_is_not_called_clipped() -> None:
    values = np.array([65504, 65510, 65519, -65519, np.inf, np.nan, 65520, -1e6], np.float32)
    assert beyond(Weight("w", values), wb.DataType.HALF) == 2
    kept = cast_weight(Weight("w", values[:4]), wb.DataType.HALF).array
    assert kept.tolist() == [65504, 65504, 65504, -65504]
