"""The oneDNN binding against NumPy: values, implementation names, checked statuses, ownership."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from workbench.datatypes import DataType
from workbench.errors import DeviceError
from workbench.tactics.onednn import library as onednn
from workbench.tactics.onednn import primitives as ops
from workbench.tactics.onednn.constants import (
    Algorithm,
    Argument,
    ElementType,
    NormalizationFlag,
    Status,
    Tag,
)
from workbench.tactics.onednn.descriptors import (
    ELEMENT_TYPES,
    Attributes,
    Memory,
    MemoryDescriptor,
)

_LOADED = onednn.load()
pytestmark = pytest.mark.skipif(
    isinstance(_LOADED, onednn.Unavailable) and not sys.platform.startswith("linux"),
    reason="oneDNN's wheel is for Linux",
)


@pytest.fixture(scope="module")
def lib():
    assert isinstance(_LOADED, onednn.Library), _LOADED
    return _LOADED


def memory_of(lib, array):
    array = np.ascontiguousarray(array)
    element = ELEMENT_TYPES[DataType.of(array)]
    return Memory.over(MemoryDescriptor.strided(lib, array.shape, element), array)


def run(lib, descriptor, inputs, shape, dtype):
    """Pack what has another layout, run, and give the linear result as ``dtype``."""
    assert isinstance(descriptor, ops.PrimitiveDescriptor)
    bound = {}
    for argument, memory in inputs.items():
        wanted = {Argument.SRC: descriptor.source, Argument.WEIGHTS: lambda: descriptor.weights}
        layout = wanted[argument]() if argument in wanted else memory.descriptor
        if layout != memory.descriptor:
            packed = Memory.allocated(layout)
            ops.run(
                ops.reorder(memory.descriptor, layout),
                {Argument.SRC: memory, Argument.DST: packed},
            )
            memory = packed
        bound[argument] = memory
    result = Memory.allocated(descriptor.destination)
    ops.run(descriptor, {**bound, Argument.DST: result})
    out = np.empty(shape, dtype)
    linear = memory_of(lib, out)
    ops.run(
        ops.reorder(result.descriptor, linear.descriptor),
        {Argument.SRC: result, Argument.DST: linear},
    )
    return linear.owner


def convolve(x, w, *, stride=1, pads=(0, 0, 0, 0), groups=1, dilation=1):
    """Plain convolution in the arrays' type: N C H W by O I/G KH KW."""
    x = np.pad(x, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    n, _c, h, wd = x.shape
    o, ig, kh, kw = w.shape
    oh = (h - dilation * (kh - 1) - 1) // stride + 1
    ow = (wd - dilation * (kw - 1) - 1) // stride + 1
    y = np.zeros((n, o, oh, ow), x.dtype)
    for g in range(groups):
        xs, ws = x[:, g * ig : (g + 1) * ig], w[g * o // groups : (g + 1) * o // groups]
        for i in range(kh):
            for j in range(kw):
                a, b = i * dilation, j * dilation
                part = xs[:, :, a : a + stride * oh : stride, b : b + stride * ow : stride]
                y[:, g * o // groups : (g + 1) * o // groups] += np.einsum(
                    "nchw,oc->nohw", part, ws[:, :, i, j]
                )
    return y


def any_layout(lib, shape, element):
    return MemoryDescriptor.tagged(lib, shape, element, Tag.ANY)


def describe_convolution(lib, shapes, elements, attributes, **kw):
    x, w, y = (any_layout(lib, s, e) for s, e in zip(shapes, elements, strict=True))
    bias = kw.pop("bias", None)
    kw = {"strides": (1, 1), "dilations": (1, 1), "padding": ((1, 1), (1, 1)), **kw}
    return ops.convolution_forward(x, w, bias, y, attributes=attributes, **kw)


def test_importing_loads_no_library():
    code = (
        "import workbench.tactics.onednn.primitives, pathlib;"
        "print('libdnnl' in pathlib.Path('/proc/self/maps').read_text())"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_loading_leaves_the_environment_as_it_was():
    code = (
        "import os; before = dict(os.environ);"
        "from workbench.tactics.onednn.library import load; load();"
        "print(dict(os.environ) == before)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "True"


def test_a_file_that_is_not_onednn_gives_a_reason(tmp_path):
    broken = tmp_path / onednn.FILE_NAME
    broken.write_bytes(b"not a library")
    answer = onednn.open_library(broken)
    assert isinstance(answer, onednn.Unavailable)
    assert str(broken) in answer.reason
    assert "pip install" in answer.remedy


def test_version_and_instruction_set_are_named(lib):
    assert lib.version[0] == 3
    assert lib.version >= (3, 2)
    assert lib.fingerprint.startswith("oneDNN 3.")


def test_thread_count_is_set_for_this_thread(lib):
    before = lib.threads
    lib.set_threads(1)
    assert lib.threads == 1
    lib.set_threads(before)
    with pytest.raises(DeviceError, match="ask for 1 or more"):
        lib.set_threads(0)


def test_a_wrong_status_raises_an_error_that_names_the_call(lib):
    a = MemoryDescriptor.strided(lib, (2, 3), ElementType.F32)
    b = MemoryDescriptor.strided(lib, (4, 5), ElementType.F32)
    with pytest.raises(DeviceError, match=r"desc_create_submemory: .*\(invalid arguments\)"):
        a.part((2, 4), (0, 0))
    assert ops.matmul(a, b, None, a, attributes=Attributes(lib)) is Status.INVALID_ARGUMENTS


def test_an_array_that_is_too_small_is_refused(lib):
    descriptor = MemoryDescriptor.strided(lib, (4, 4), ElementType.F32)
    with pytest.raises(DeviceError, match="60 bytes for a descriptor of 64"):
        Memory.over(descriptor, np.zeros(15, np.float32))


def test_descriptors_know_their_layout(lib):
    shape = (2, 20, 5, 7)
    linear = MemoryDescriptor.strided(lib, shape, ElementType.F32)
    assert linear == MemoryDescriptor.tagged(lib, shape, ElementType.F32, Tag.ABCD)
    last = MemoryDescriptor.tagged(lib, shape, ElementType.F32, Tag.ACDB)
    assert last != linear
    assert last.strides == (700, 1, 140, 20)
    blocked = MemoryDescriptor.tagged(lib, shape, ElementType.F32, Tag.ABCD16B)
    assert blocked.padded_shape == (2, 32, 5, 7)
    assert blocked.blocks == ((1, 16),)
    assert blocked.size_bytes == 2 * 32 * 35 * 4
    assert any_layout(lib, shape, ElementType.F32).is_any


CONVOLUTIONS = [
    # groups, input channels, output channels, stride, pads (top, left, bottom, right), dilation
    (1, 3, 20, 1, (1, 1, 1, 1), 1),
    (1, 32, 32, 2, (0, 0, 1, 1), 1),
    (1, 16, 16, 1, (2, 2, 2, 2), 2),
    (2, 32, 64, 1, (1, 1, 1, 1), 1),
    (32, 32, 32, 1, (1, 1, 1, 1), 1),
]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("groups", "ci", "co", "stride", "pads", "dilation"), CONVOLUTIONS)
def test_convolution_with_bias_and_relu_equals_numpy(
    lib, dtype, groups, ci, co, stride, pads, dilation
):
    rng = np.random.default_rng(0)
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    x = rng.standard_normal((2, ci, 9, 9)).astype(kind)
    w = rng.standard_normal((co, ci // groups, 3, 3)).astype(kind)
    b = rng.standard_normal(co).astype(np.float32)
    exact = convolve(
        *(x.astype(float), w.astype(float)),
        **{"stride": stride, "pads": pads, "groups": groups, "dilation": dilation},
    )
    exact = np.maximum(exact + b[:, None, None], 0)
    grouped = w if groups == 1 else w.reshape(groups, co // groups, ci // groups, 3, 3)
    attributes = Attributes(lib)
    attributes.eltwise(Algorithm.RELU)
    element = ELEMENT_TYPES[DataType.of(x)]
    descriptor = describe_convolution(
        *(lib, (x.shape, grouped.shape, exact.shape), (element,) * 3, attributes),
        bias=memory_of(lib, b).descriptor,
        strides=(stride, stride),
        dilations=(dilation, dilation),
        padding=(pads[:2], pads[2:]),
    )
    checked = 0
    for implementation in descriptor.implementations():
        inputs = {
            Argument.SRC: memory_of(lib, x),
            Argument.WEIGHTS: memory_of(lib, grouped),
            Argument.BIAS: memory_of(lib, b),
        }
        y = run(lib, implementation, inputs, exact.shape, kind)
        tolerance = 1e-5 if dtype == "float32" else 1e-2
        np.testing.assert_allclose(y.astype(float), exact, rtol=tolerance, atol=1e-4)
        checked += 1
    assert checked >= 2


@pytest.mark.parametrize("source", [np.uint8, np.int8])
def test_integer_convolution_sums_exactly_and_rounds_once(lib, source):
    rng = np.random.default_rng(1)
    limits = np.iinfo(source)
    x = rng.integers(limits.min, limits.max + 1, (1, 32, 8, 8)).astype(source)
    w = rng.integers(-127, 128, (16, 32, 3, 3)).astype(np.int8)
    scales = [np.array([0.02]), rng.uniform(0.001, 0.01, 16), np.array([0.5])]
    sx, sw, sy = (s.astype(np.float32) for s in scales)
    sums = convolve(x.astype(np.int64), w.astype(np.int64), pads=(1, 1, 1, 1))
    exact = sums * sx.astype(float) * sw.astype(float)[:, None, None] / sy
    attributes = Attributes(lib)
    names = [attributes.scale(*a) for a in ((Argument.SRC,), (Argument.WEIGHTS, 1))]
    names.append(attributes.scale(Argument.DST))
    elements = (ELEMENT_TYPES[DataType.of(x)], ElementType.S8, ElementType.S8)
    descriptor = describe_convolution(lib, (x.shape, w.shape, sums.shape), elements, attributes)
    inputs = {Argument.SRC: memory_of(lib, x), Argument.WEIGHTS: memory_of(lib, w)}
    inputs |= dict(zip(names, (memory_of(lib, s) for s in (sx, sw, sy)), strict=True))
    y = run(lib, descriptor, inputs, sums.shape, np.int8)
    assert np.abs(y - np.clip(np.rint(exact), -128, 127)).max() <= 1
    # A step of 1 only where the exact value lies at a tie within float32's rounding.
    off = y != np.clip(np.rint(exact), -128, 127)
    assert np.all(np.abs(np.abs(exact[off] - np.floor(exact[off])) - 0.5) < 1e-4)


def test_residual_can_be_added_by_sum_or_by_binary(lib):
    rng = np.random.default_rng(2)
    x, w = (rng.standard_normal(s).astype(np.float32) for s in ((1, 16, 6, 6), (16, 16, 1, 1)))
    r = rng.standard_normal(x.shape).astype(np.float32)
    exact = convolve(x, w) + r
    linear = memory_of(lib, x).descriptor
    by_sum, by_binary = Attributes(lib), Attributes(lib)
    by_sum.sum()
    other = by_binary.binary(Algorithm.ADD, linear)
    for attributes in (by_sum, by_binary):
        d = ops.convolution_forward(
            *(linear, any_layout(lib, w.shape, ElementType.F32), None, linear),
            **{"strides": (1, 1), "dilations": (1, 1), "padding": ((0, 0), (0, 0))},
            attributes=attributes,
        )
        packed = Memory.allocated(d.weights)
        weights = memory_of(lib, w)
        ops.run(
            ops.reorder(weights.descriptor, d.weights),
            {Argument.SRC: weights, Argument.DST: packed},
        )
        y = r.copy()
        bound = {
            Argument.SRC: memory_of(lib, x),
            Argument.WEIGHTS: packed,
            Argument.DST: memory_of(lib, y),
        }
        if attributes is by_binary:
            bound[other] = memory_of(lib, r)
        ops.run(d, bound)
        np.testing.assert_allclose(y, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_matmul_broadcasts_batches_and_takes_strides(lib, dtype):
    rng = np.random.default_rng(3)
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    a = rng.standard_normal((3, 2, 5, 7)).astype(kind)
    b = rng.standard_normal((1, 2, 4, 7)).astype(kind)
    element = ELEMENT_TYPES[DataType.of(a)]
    transposed = MemoryDescriptor.strided(lib, (1, 2, 7, 4), element, (56, 28, 1, 7))
    y = np.empty((3, 2, 5, 4), kind)
    d = ops.matmul(
        *(memory_of(lib, a).descriptor, transposed, None, memory_of(lib, y).descriptor),
        attributes=Attributes(lib),
    )
    ops.run(
        d,
        {
            Argument.SRC: memory_of(lib, a),
            Argument.WEIGHTS: Memory.over(transposed, b),
            Argument.DST: memory_of(lib, y),
        },
    )
    exact = a.astype(float) @ b.astype(float).swapaxes(2, 3)
    tolerance = 1e-5 if dtype == "float32" else 1e-2
    np.testing.assert_allclose(y.astype(float), exact, rtol=tolerance, atol=1e-4)


def test_inner_product_of_integers_equals_the_integer_sum(lib):
    rng = np.random.default_rng(4)
    x = rng.integers(0, 256, (5, 300)).astype(np.uint8)
    w = rng.integers(-127, 128, (40, 300)).astype(np.int8)
    d = ops.inner_product_forward(
        *(any_layout(lib, x.shape, ElementType.U8), any_layout(lib, w.shape, ElementType.S8)),
        *(None, any_layout(lib, (5, 40), ElementType.S32)),
        attributes=Attributes(lib),
    )
    inputs = {Argument.SRC: memory_of(lib, x), Argument.WEIGHTS: memory_of(lib, w)}
    y = run(lib, d, inputs, (5, 40), np.int32)
    np.testing.assert_array_equal(y, x.astype(np.int64) @ w.astype(np.int64).T)


@pytest.mark.parametrize(
    ("algorithm", "reduce"),
    [
        (Algorithm.POOLING_MAX, np.nanmax),
        (Algorithm.POOLING_AVERAGE_EXCLUDE_PADDING, np.nanmean),
        (Algorithm.POOLING_AVERAGE_INCLUDE_PADDING, lambda w, axis: np.nansum(w, axis) / 9),
    ],
)
def test_pooling_equals_numpy(lib, algorithm, reduce):
    x = np.random.default_rng(5).standard_normal((2, 5, 8, 8)).astype(np.float32)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 0), (1, 0)), constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))[:, :, ::2, ::2]
    exact = reduce(windows, axis=(4, 5))
    d = ops.pooling_forward(
        *(algorithm, memory_of(lib, x).descriptor),
        MemoryDescriptor.strided(lib, exact.shape, ElementType.F32),
        **{"kernel": (3, 3), "strides": (2, 2), "dilations": (1, 1)},
        padding=((1, 1), (0, 0)),
        attributes=Attributes(lib),
    )
    y = run(lib, d, {Argument.SRC: memory_of(lib, x)}, exact.shape, np.float32)
    np.testing.assert_allclose(y, exact, rtol=1e-5, atol=1e-6)


def test_softmax_and_layer_normalization_equal_numpy(lib):
    rng = np.random.default_rng(6)
    x = rng.standard_normal((4, 33)).astype(np.float32)
    g, b = (rng.standard_normal(33).astype(np.float32) for _ in range(2))
    d = memory_of(lib, x).descriptor
    soft = ops.softmax_forward(d, d, axis=1, attributes=Attributes(lib))
    y = run(lib, soft, {Argument.SRC: memory_of(lib, x)}, x.shape, np.float32)
    e = np.exp(x - x.max(1, keepdims=True))
    np.testing.assert_allclose(y, e / e.sum(1, keepdims=True), rtol=1e-5)
    norm = ops.layer_normalization_forward(
        *(d, d),
        epsilon=1e-5,
        flags=NormalizationFlag.USE_SCALE | NormalizationFlag.USE_SHIFT,
        attributes=Attributes(lib),
    )
    inputs = {Argument.SRC: memory_of(lib, x), Argument.SCALE: memory_of(lib, g)}
    y = run(lib, norm, inputs | {Argument.SHIFT: memory_of(lib, b)}, x.shape, np.float32)
    z = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(y, z * g + b, rtol=1e-4, atol=1e-5)


def test_elementwise_reduction_concat_and_resampling_equal_numpy(lib):
    rng = np.random.default_rng(7)
    x, z = (rng.standard_normal((2, 3, 4, 4)).astype(np.float32) for _ in range(2))
    d, src = memory_of(lib, x).descriptor, {Argument.SRC: memory_of(lib, x)}
    a = Attributes(lib)
    tanh = ops.eltwise_forward(Algorithm.TANH, d, d, attributes=a)
    np.testing.assert_allclose(run(lib, tanh, src, x.shape, np.float32), np.tanh(x), atol=1e-6)
    product = ops.binary(Algorithm.MUL, d, d, d, attributes=a)
    both = src | {Argument.SRC_1: memory_of(lib, z)}
    np.testing.assert_allclose(run(lib, product, both, x.shape, np.float32), x * z, rtol=1e-6)
    one = MemoryDescriptor.strided(lib, (2, 3, 1, 1), ElementType.F32)
    mean = ops.reduction(Algorithm.REDUCTION_MEAN, d, one, attributes=a)
    exact = x.mean((2, 3), keepdims=True)
    y = run(lib, mean, src, exact.shape, np.float32)
    np.testing.assert_allclose(y, exact, rtol=1e-5, atol=1e-6)
    joined = ops.concat([d, d], None, axis=1, attributes=a)
    pair = {Argument.MULTIPLE_SRC: memory_of(lib, x), Argument.MULTIPLE_SRC + 1: memory_of(lib, z)}
    y = run(lib, joined, pair, (2, 6, 4, 4), np.float32)
    np.testing.assert_array_equal(y, np.concatenate([x, z], 1))
    wide = MemoryDescriptor.strided(lib, (2, 3, 8, 8), ElementType.F32)
    doubled = ops.resampling_forward(Algorithm.RESAMPLING_NEAREST, d, wide, attributes=a)
    y = run(lib, doubled, src, (2, 3, 8, 8), np.float32)
    np.testing.assert_array_equal(y, x.repeat(2, 2).repeat(2, 3))


# An odd zero point moves ties: oneDNN rounds after adding it, ONNX before.
@pytest.mark.parametrize("zero_point", [0, 4])
def test_reorder_quantizes_with_ties_to_even_and_saturates(lib, zero_point):
    x = np.array([[-0.5, 0.5, 1.5, 2.5, 1e6, -1e6, 0.74, 100.0]], np.float32) * 0.25
    attributes = Attributes(lib)
    scale = attributes.scale(Argument.DST)
    extra = {scale: memory_of(lib, np.array([0.25], np.float32))}
    if zero_point:
        point = attributes.zero_point(Argument.DST)
        extra[point] = memory_of(lib, np.array([zero_point], np.int32))
    y = np.empty(x.shape, np.int8)
    d = ops.reorder(
        memory_of(lib, x).descriptor, memory_of(lib, y).descriptor, attributes=attributes
    )
    ops.run(d, {Argument.SRC: memory_of(lib, x), Argument.DST: memory_of(lib, y), **extra})
    np.testing.assert_array_equal(y, np.clip(np.rint(x / 0.25) + zero_point, -128, 127))


def test_reorder_converts_halves_and_blocks_channels(lib):
    x = np.random.default_rng(8).standard_normal((1, 20, 3, 3)).astype(np.float32)
    for kind in (np.float16, ml_dtypes.bfloat16):
        element = ELEMENT_TYPES[DataType.of(np.dtype(kind))]
        blocked = MemoryDescriptor.tagged(lib, x.shape, element, Tag.ABCD16B)
        packed = Memory.allocated(blocked)
        source = memory_of(lib, x)
        ops.run(
            ops.reorder(source.descriptor, blocked), {Argument.SRC: source, Argument.DST: packed}
        )
        stored = packed.owner.view(kind).reshape(1, 2, 3, 3, 16)
        np.testing.assert_array_equal(
            stored[0, 1, ..., :4], x[0, 16:].transpose(1, 2, 0).astype(kind)
        )
        assert not stored[0, 1, ..., 4:].any()


def test_implementations_are_listed_by_name_and_the_reference_is_known(lib):
    shapes, elements = ((1, 16, 8, 8), (16, 16, 3, 3), (1, 16, 8, 8)), (ElementType.F32,) * 3
    d = describe_convolution(lib, shapes, elements, Attributes(lib))
    listed = list(d.implementations())
    assert len(listed) >= 2
    assert listed[0].implementation == d.implementation
    assert [i.is_reference for i in listed].count(True) == 1
    assert listed[-1].implementation.startswith("ref")
    assert ":" in listed[0].implementation


def test_an_unimplemented_case_gives_the_status(lib):
    shapes, elements = ((1, 16, 8, 8), (16, 16, 3, 3), (1, 16, 8, 8)), (ElementType.F32,) * 3
    wino = {"algorithm": Algorithm.CONVOLUTION_WINOGRAD}
    assert (
        describe_convolution(lib, shapes, elements, Attributes(lib), **wino) is Status.UNIMPLEMENTED
    )


def test_an_execution_survives_collection_and_rebinding(lib):
    x = np.arange(-8, 8, dtype=np.float32).reshape(4, 4)
    first, second = np.empty_like(x), np.empty_like(x)

    def relu():
        d = memory_of(lib, x).descriptor
        made = ops.eltwise_forward(Algorithm.RELU, d, d, attributes=Attributes(lib))
        bound = {Argument.SRC: memory_of(lib, x), Argument.DST: memory_of(lib, first)}
        return ops.Execution(ops.Primitive(made), bound)

    execution = relu()
    gc.collect()
    execution()
    np.testing.assert_array_equal(first, np.maximum(x, 0))
    execution.memories[Argument.DST].rebind(second.ctypes.data, second)
    execution()
    np.testing.assert_array_equal(second, first)
