"""Kernels of every operator compile to machine code for 8.0 and 9.0; needs no GPU."""

from __future__ import annotations

import sys
from pathlib import Path

import cupy
import pytest

from workbench.records import Refusal
from workbench.tactics.nvrtc.kernels import kernel, variants
from workbench.tactics.nvrtc.source import compile_text

sys.path.insert(0, str(Path(__file__).parents[1] / "tactics"))
from operator_bodies import OPERATORS

TARGETS = (80, 90)


@pytest.mark.parametrize("name", OPERATORS)
def test_the_first_and_the_last_kernel_of_an_operator_compile(name):
    body = OPERATORS[name]()
    offered = variants(body)
    assert not isinstance(offered, Refusal), offered
    texts = [t for v in offered if not isinstance(t := kernel(body, v), Refusal)]
    for text in {texts[0], texts[-1]}:
        for target in TARGETS:
            if target >= text.since:
                assert compile_text(cupy, text.code, f"sm_{target}")[:4] == b"\x7fELF"
