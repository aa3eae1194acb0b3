"""Generated CUDA C++ compiles to machine code for compute capability 8.0 and 9.0; needs no GPU."""

from __future__ import annotations

import sys
from itertools import permutations
from pathlib import Path

import cupy
import pytest

from workbench.body import TensorType
from workbench.datatypes import DataType
from workbench.formats import CHW32, HWC, LINEAR
from workbench.records import Refusal
from workbench.tactics.launch import reformat_body
from workbench.tactics.nvrtc.frame import KernelText
from workbench.tactics.nvrtc.kernels import kernel, reformat_kernel, variants
from workbench.tactics.nvrtc.pooling import pool_kernel, pool_shapes
from workbench.tactics.nvrtc.source import compile_text

sys.path.insert(0, str(Path(__file__).parents[1] / "tactics"))
from tactic_bodies import BODIES, Draft

TARGETS = (80, 90)


@pytest.mark.parametrize("name", BODIES)
def test_the_first_variant_of_each_layout_and_the_widest_rows_compile(name):
    body = BODIES[name](3)
    offered = variants(body)
    assert not isinstance(offered, Refusal), offered
    texts = [t for v in offered if not isinstance(t := kernel(body, v), Refusal)]
    for text in (texts[0], texts[-1]):
        for target in TARGETS:
            if target >= text.since:
                assert compile_text(cupy, text.code, f"sm_{target}")[:4] == b"\x7fELF"


@pytest.mark.parametrize("kind", [DataType.HALF, DataType.INT8, DataType.FLOAT])
def test_reformats_compile(kind):
    body = reformat_body(TensorType(kind, (2, 64, 7, 9)))
    layouts = (LINEAR, HWC, CHW32) if kind is DataType.INT8 else (LINEAR, HWC)
    for source, target in permutations(layouts, 2):
        text = reformat_kernel(body, source, target)
        assert isinstance(text, KernelText), text
        assert compile_text(cupy, text.code, "sm_90")[:4] == b"\x7fELF"


@pytest.mark.parametrize("kind", ["FLOAT", "HALF", "BF16", "INT8", "UINT8", "FP8", "FP8E5M2"])
def test_the_largest_of_packed_elements_compiles(kind):
    d = Draft()
    x = d.input(2, 64, 12, 12, dtype=DataType[kind])
    body = d.body(d.anchored("MaxPool", x, kernel_shape=(3, 3), strides=(2, 2), pads=(1,) * 4))
    text = pool_kernel(body, pool_shapes(body)[0])
    assert isinstance(text, KernelText), text
    for target in TARGETS:
        if target >= text.since:
            assert compile_text(cupy, text.code, f"sm_{target}")[:4] == b"\x7fELF"


@pytest.mark.parametrize("op", ["ReduceSum", "ReduceLogSumExp", "ReduceMax", "Softmax"])
@pytest.mark.parametrize("kind", [DataType.HALF, DataType.FLOAT])
def test_rows_that_blocks_share_compile(op, kind):
    d = Draft()
    x = d.input(3, 1 << 17, dtype=kind)
    given = {"axis": -1} if op == "Softmax" else {"keepdims": 1}
    operands = () if op == "Softmax" else (d.literal([1], "int64"),)
    body = d.body(d.anchored(op, x, *operands, **given))
    offered = variants(body)
    assert not isinstance(offered, Refusal), offered
    for v in (offered[0], offered[-1]):
        text = kernel(body, v)
        assert isinstance(text, KernelText) and v.name.startswith("long rows"), v.name
        for target in TARGETS:
            assert compile_text(cupy, text.code, f"sm_{target}")[:4] == b"\x7fELF"


@pytest.mark.parametrize("kind", [DataType.HALF, DataType.DOUBLE])
@pytest.mark.parametrize("length", [1024, 1 << 17])
def test_a_spectrum_in_two_sums_compiles(kind, length):
    d = Draft()
    x = d.input(2, length, 1, dtype=kind)
    body = d.body(d.anchored("DFT", x, onesided=1))
    (offered,) = variants(body)
    text = kernel(body, offered)
    assert offered.name == "split sums" and isinstance(text, KernelText), text
    for target in TARGETS:
        assert compile_text(cupy, text.code, f"sm_{target}")[:4] == b"\x7fELF"
