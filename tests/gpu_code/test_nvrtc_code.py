"""Generated CUDA C++ compiles to machine code for compute capability 8.0 and 9.0; needs no GPU."""

from __future__ import annotations

import sys
from pathlib import Path

import cupy
import pytest

from workbench.body import TensorType
from workbench.datatypes import DataType
from workbench.formats import HWC, LINEAR
from workbench.records import Refusal
from workbench.tactics.launch import reformat_body
from workbench.tactics.nvrtc.kernels import kernel, reformat_kernel, variants
from workbench.tactics.nvrtc.source import compile_text

sys.path.insert(0, str(Path(__file__).parents[1] / "tactics"))
from tactic_bodies import BODIES

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
    body = reformat_body(TensorType(kind, (2, 5, 7, 9)))
    for source, target in ((LINEAR, HWC), (HWC, LINEAR)):
        code = reformat_kernel(body, source, target).code
        assert compile_text(cupy, code, "sm_90")[:4] == b"\x7fELF"
