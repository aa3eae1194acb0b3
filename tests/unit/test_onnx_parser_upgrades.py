"""Each old version of an operator means after its upgrade what ONNX Runtime makes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx_cases import Case, assert_same, ints, numbers, positive, run_onnx_runtime, run_ours

IMAGE = numbers(2, 6, 4, 5)
MATRIX = numbers(3, 4)

CASES: tuple[Case, ...] = (
    # attributes that became inputs
    Case("Clip", 7, [IMAGE], attributes={"min": -0.5, "max": 0.25}),
    Case("Clip", 7, [IMAGE], attributes={"max": 0.25}),
    Case("Clip", 10, [np.array([np.inf, -np.inf, 1], np.float32)]),
    Case("Clip", 11, [IMAGE], [np.float32(-0.5), np.float32(0.5)]),
    Case("Clip", 12, [IMAGE], [None, np.float32(0.5)]),
    Case("Clip", 13, [IMAGE], [np.float32(-0.5)]),
    *(
        Case("Squeeze", v, [numbers(3, 1, 4, 1)], attributes=a)
        for v, a in ((7, {"axes": [1, 3]}), (11, {"axes": [-1]}), (11, {}))
    ),
    Case("Squeeze", 13, [numbers(3, 1, 4, 1)], [ints(-1)]),
    Case("Unsqueeze", 7, [MATRIX], attributes={"axes": [0, 3]}),
    Case("Unsqueeze", 11, [MATRIX], attributes={"axes": [-1, 1]}),
    Case("Unsqueeze", 13, [MATRIX], [ints(1)]),
    *(
        Case(op, v, [positive(2, 3, 4)], attributes=a)
        for op in (
            "ReduceL1",
            "ReduceL2",
            "ReduceLogSum",
            "ReduceLogSumExp",
            "ReduceMax",
            "ReduceMean",
            "ReduceMin",
            "ReduceProd",
            "ReduceSum",
            "ReduceSumSquare",
        )
        for v, a in (
            (7, {"axes": [1]}),
            (7, {"keepdims": 0}),
            (11, {"axes": [-1, 0], "keepdims": 0}),
        )
    ),
    Case("ReduceSum", 13, [positive(2, 3, 4)], [ints(1)]),
    Case("ReduceMean", 13, [positive(2, 3, 4)], attributes={"axes": [1]}),
    Case("ReduceMean", 18, [positive(2, 3, 4)], [ints(1)]),
    Case("ReduceMax", 20, [positive(2, 3, 4)], [ints(1)]),
    Case("Pad", 7, [MATRIX], attributes={"pads": [1, 0, 0, 2], "value": 1.5}),
    Case("Pad", 7, [MATRIX], attributes={"pads": [1, 0, 0, 2], "mode": "reflect"}),
    Case("Pad", 7, [MATRIX], attributes={"pads": [0, -1, 0, 2], "mode": "edge"}),
    Case("Pad", 11, [MATRIX], [ints(1, 0, 0, 2), np.float32(2)]),
    Case("Pad", 13, [MATRIX], [ints(1, 0, 0, 2)]),
    Case("Pad", 18, [MATRIX], [ints(1, 2), None, ints(1)]),
    Case("Slice", 7, [MATRIX], attributes={"starts": [1], "ends": [1000], "axes": [1]}),
    Case("Slice", 7, [MATRIX], attributes={"starts": [0, -3], "ends": [-1, 4]}),
    Case("Slice", 10, [MATRIX], [ints(1), ints(4), ints(1), ints(2)]),
    Case("Slice", 11, [MATRIX], [ints(-1), ints(-5), ints(-1), ints(-1)]),
    Case("Split", 7, [MATRIX], attributes={"split": [1, 3], "axis": 1}, outputs=2),
    Case("Split", 7, [MATRIX], attributes={"axis": 1}, outputs=2),
    Case("Split", 11, [MATRIX], attributes={"axis": -1}, outputs=4),
    Case("Split", 13, [MATRIX], attributes={"axis": 1}, outputs=2),
    Case("Split", 13, [MATRIX], [ints(3, 1)], attributes={"axis": 1}, outputs=2),
    Case("Split", 18, [MATRIX], attributes={"axis": 1, "num_outputs": 2}, outputs=2),
    Case("Dropout", 7, [MATRIX]),
    Case("Dropout", 10, [MATRIX], attributes={"ratio": 0.9}),
    Case("Dropout", 12, [MATRIX], outputs=2),
    Case("Dropout", 13, [MATRIX], [np.float32(0.3), np.array(False)]),
    Case("TopK", 10, [MATRIX], [ints(2)], outputs=2),
    Case("TopK", 11, [MATRIX], [ints(2)], {"largest": 0, "axis": 0}, outputs=2),
    Case("Scatter", 9, [MATRIX], [np.array([[0, 2]]), numbers(1, 2)], {"axis": 1}),
    Case("ScatterElements", 11, [MATRIX], [np.array([[0, -1]]), numbers(1, 2)], {"axis": 1}),
    Case("ScatterND", 11, [MATRIX], [np.array([[0], [2]]), numbers(2, 4)]),
    # the axis that splits a matrix, before opset 13
    *(
        Case(op, v, [x], attributes=a)
        for op in ("Softmax", "LogSoftmax", "Hardmax")
        for v, x, a in (
            (7, numbers(2, 3, 4), {}),
            (7, MATRIX, {}),
            (7, numbers(2, 3, 1, 1), {"axis": 1}),
            (7, numbers(2, 3, 4), {"axis": 0}),
            (11, numbers(2, 3, 4), {"axis": -2}),
            (11, numbers(2, 3, 4), {"axis": -1}),
            (13, numbers(2, 3, 4), {"axis": 1}),
            (13, numbers(2, 3, 4), {}),
        )
    ),
    # normalization
    *(
        Case("BatchNormalization", v, [IMAGE], [positive(6) for _ in range(4)], {"epsilon": 0.01})
        for v in (7, 9, 14, 15)
    ),
    Case(
        "BatchNormalization",
        7,
        [numbers(2, 3, 4)],
        [positive(3, 4) for _ in range(4)],
        {"spatial": 0},
    ),
    Case("GroupNormalization", 18, [IMAGE], [numbers(3), numbers(3)], {"num_groups": 3}),
    Case("GroupNormalization", 18, [IMAGE], [numbers(6), numbers(6)], {"num_groups": 6}),
    Case("GroupNormalization", 21, [IMAGE], [numbers(6), numbers(6)], {"num_groups": 3}),
    Case("InstanceNormalization", 7, [IMAGE], [numbers(6), numbers(6)]),
    Case("LayerNormalization", 17, [IMAGE], [numbers(5), numbers(5)]),
    Case("LRN", 7, [IMAGE], attributes={"size": 3}),
    # quantization
    *(
        Case(op, v, [x], c, a)
        for op, v, x, c, a in (
            ("QuantizeLinear", 10, IMAGE, [np.float32(0.02), np.uint8(128)], {}),
            ("QuantizeLinear", 10, IMAGE, [np.float32(0.02)], {}),
            ("QuantizeLinear", 13, IMAGE, [positive(6), np.zeros(6, np.int8)], {}),
            ("QuantizeLinear", 19, IMAGE, [positive(5)], {"axis": -1}),
            ("DequantizeLinear", 10, np.array([3, -5], np.int8), [np.float32(0.5)], {}),
            ("DequantizeLinear", 13, np.ones((2, 3), np.uint8), [positive(3)], {"axis": 1}),
        )
    ),
    Case("DynamicQuantizeLinear", 11, [IMAGE], outputs=3),
    # versions that mean the same
    Case("Gemm", 7, [MATRIX], [numbers(4, 2), numbers(2)], {"alpha": 0.5}),
    Case("Gemm", 9, [MATRIX], [numbers(2, 4), numbers(3, 1)], {"transB": 1, "beta": 2.0}),
    Case("Gemm", 11, [MATRIX], [numbers(4, 2)]),
    Case("MatMul", 7, [MATRIX], [numbers(4, 2)]),
    *(Case("Conv", v, [IMAGE], [numbers(4, 3, 3, 3)], {"group": 2}) for v in (7, 11, 22)),
    Case("ConvTranspose", 7, [IMAGE], [numbers(6, 2, 3, 3)], {"strides": [2, 2]}),
    Case("MaxPool", 7, [IMAGE], attributes={"kernel_shape": [2, 2], "strides": [2, 2]}),
    Case("MaxPool", 10, [IMAGE], attributes={"kernel_shape": [3, 3], "ceil_mode": 1}),
    Case("MaxPool", 12, [IMAGE], attributes={"kernel_shape": [2, 2], "dilations": [2, 2]}),
    *(
        Case("AveragePool", v, [IMAGE], attributes={"kernel_shape": [2, 2], "pads": [1, 1, 0, 0]})
        for v in (7, 10, 11, 19)
    ),
    *(Case(op, 7, [IMAGE]) for op in ("GlobalAveragePool", "GlobalMaxPool")),
    *(Case(op, v, [MATRIX, numbers(1, 4)]) for op in ("Add", "Sub", "Mul", "Div") for v in (7, 14)),
    Case("Pow", 7, [positive(3, 4), numbers(4)]),
    Case("Pow", 12, [positive(3, 4)], [ints(2)]),
    *(Case(op, v, [MATRIX, numbers(4)]) for op in ("Max", "Min", "Sum", "Mean") for v in (8, 13)),
    Case("PRelu", 7, [IMAGE], [numbers(6, 1, 1)]),
    Case("PRelu", 9, [IMAGE], [numbers(5)]),
    Case("LeakyRelu", 7, [IMAGE], attributes={"alpha": 0.2}),
    *(
        Case(op, 7, [positive(3, 4)])
        for op in (
            "Abs",
            "Ceil",
            "Elu",
            "Exp",
            "Floor",
            "HardSigmoid",
            "Log",
            "Neg",
            "Relu",
            "Reciprocal",
            "Selu",
            "Sigmoid",
            "Softplus",
            "Softsign",
            "Sqrt",
            "Tanh",
            "Identity",
            "Sin",
            "Cos",
            "Tan",
            "Atan",
        )
    ),
    *(Case(op, 9, [MATRIX]) for op in ("Erf", "Sign", "IsNaN", "Sinh", "Cosh", "Asinh")),
    *(Case(op, 9, [MATRIX, numbers(3, 4)]) for op in ("Greater", "Less")),
    Case("Equal", 7, [np.array([1, 2], np.int32), np.array([1, 3], np.int32)]),
    Case("Equal", 11, [MATRIX, MATRIX.copy()]),
    Case("Where", 9, [MATRIX > 0, MATRIX, numbers(3, 4)]),
    *(Case("Cast", v, [MATRIX], attributes={"to": t}) for v in (7, 9, 13, 19) for t in (7, 10, 9)),
    Case("CastLike", 15, [MATRIX], [np.float16(1)]),
    *(Case("Concat", v, [MATRIX, numbers(3, 2)], attributes={"axis": 1}) for v in (7, 11, 13)),
    *(Case("Reshape", v, [MATRIX], [ints(2, -1)]) for v in (7, 13)),
    *(Case("Reshape", v, [MATRIX], [ints(0, 2, -1)]) for v in (7, 14, 19)),
    *(Case("Flatten", v, [IMAGE], attributes={"axis": 2}) for v in (7, 9, 11, 13)),
    *(Case("Transpose", v, [MATRIX], attributes={"perm": [1, 0]}) for v in (7, 13, 21)),
    *(Case("Shape", v, [MATRIX]) for v in (7, 13)),
    Case("Shape", 15, [IMAGE], attributes={"start": 1, "end": -1}),
    *(Case("Size", v, [MATRIX]) for v in (7, 13)),
    *(Case("Gather", v, [MATRIX], [ints(2, 0)]) for v in (7, 11, 13)),
    Case("GatherElements", 11, [MATRIX], [np.array([[0, 1]])], {"axis": 1}),
    Case("GatherND", 11, [MATRIX], [np.array([[0, 1], [2, 3]])]),
    Case("GatherND", 12, [MATRIX], [np.array([[0], [2], [3]])], {"batch_dims": 1}),
    *(Case("Expand", v, [MATRIX], [ints(2, 1, 4)]) for v in (8, 13)),
    *(Case("Tile", v, [MATRIX], [ints(2, 3)]) for v in (7, 13)),
    Case("ConstantOfShape", 9, [], [ints(2, 3)]),
    Case("OneHot", 9, [ints(0, 2)], [np.int64(3), np.array([0, 1], np.float32)]),
    *(Case("DepthToSpace", v, [numbers(1, 8, 2, 3)], (), {"blocksize": 2}) for v in (7, 11, 13)),
    Case("SpaceToDepth", 7, [numbers(1, 2, 4, 6)], attributes={"blocksize": 2}),
    *(
        Case(op, v, [MATRIX], attributes={"axis": 1})
        for op in ("ArgMax", "ArgMin")
        for v in (7, 12)
    ),
    Case("CumSum", 11, [MATRIX], [np.int64(1)]),
    Case("Mod", 10, [ints(7, -7), ints(3, 3)]),
    Case("Einsum", 12, [MATRIX, numbers(4, 2)], attributes={"equation": "ij,jk->ik"}),
    Case("HardSwish", 14, [IMAGE]),
    Case("Celu", 12, [IMAGE]),
    Case("Mish", 18, [IMAGE]),
    Case("ThresholdedRelu", 10, [IMAGE]),
    Case("Trilu", 14, [MATRIX], attributes={"upper": 0}),
    Case("EyeLike", 9, [MATRIX]),
    Case("Range", 11, [], [np.int64(1), np.int64(9), np.int64(3)]),
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_upgraded_node_gives_what_onnx_runtime_gives(case: Case) -> None:
    assert_same(run_ours(case), run_onnx_runtime(case))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (2, 3, 4, 5)])
def test_batch_normalization_in_training_gives_moments_too(dtype: Any, shape: Any) -> None:
    x = numbers(*shape).astype(dtype)
    scale, bias, mean = (numbers(3).astype(dtype) for _ in range(3))
    variance = positive(3).astype(dtype)
    attributes = {"training_mode": 1, "momentum": 0.75, "epsilon": 1e-3}
    operands = [scale, bias, mean, variance]
    y, new_mean, new_variance = run_ours(
        Case("BatchNormalization", 15, [x], operands, attributes, outputs=3)
    )
    wide = x.astype(np.float64)
    axes = tuple(a for a in range(x.ndim) if a != 1)
    spread = (slice(None), *(None,) * (x.ndim - 2))
    centre, width = wide.mean(axes), wide.var(axes)
    unit = (wide - centre[spread]) / np.sqrt(width[spread] + 1e-3)
    close = 5e-3 if dtype is np.float16 else 1e-5
    assert y.dtype == new_mean.dtype == dtype
    np.testing.assert_allclose(y, unit * scale[spread] + bias[spread], rtol=close, atol=close)
    np.testing.assert_allclose(new_mean, mean * 0.75 + centre * 0.25, rtol=close, atol=close)
    np.testing.assert_allclose(new_variance, variance * 0.75 + width * 0.25, rtol=close, atol=close)
