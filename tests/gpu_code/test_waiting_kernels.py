"""Kernels for 9.0 wait for the kernel before them before they touch memory; those for 8.0 can't.

Only when told to by their last argument they let the next one start.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import cupy
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tactics"))

from code_device import CodeDevice
from operator_bodies import OPERATORS
from product_bodies import Attention, Convolution, Linear
from tactic_bodies import BODIES, sample_inputs

from workbench.datatypes import DataType
from workbench.gpu_launch import waits
from workbench.records import Refusal
from workbench.tactics.nvrtc.frame import KernelText
from workbench.tactics.nvrtc.kernels import kernel, variants
from workbench.tactics.nvrtc.source import compile_text
from workbench.tactics.protocol import Problem
from workbench.tactics.triton import TRITON
from workbench.tactics.triton.compiler import COMPILERS, unpack_code
from workbench.tactics.triton.source import program_for

WAIT = "griddepcontrol.wait;"
LETS_GO = re.compile(r"griddepcontrol\.launch_dependents;")
ACCESS = re.compile(r"\b(?:ld|st|atom|red|cp)\.(?!param)[a-z.]*global")
PRODUCTS = (
    Convolution(1, 64, 9, 64, 3, 1, 1, DataType.HALF),
    Linear(256, 256, 64, DataType.FP8),
    Attention(1, 2, 256, 64),
)


def entries(ptx: str) -> list[str]:
    return re.split(r"\.entry\s", ptx)[1:]


def waits_first(entry: str) -> bool:
    """It waits before it touches memory; only then, if its last argument says so, it lets go."""
    access, wait, lets = ACCESS.search(entry), entry.find(WAIT), LETS_GO.search(entry)
    first = wait >= 0 and (access is None or wait < access.start())
    return first and lets is not None and wait < lets.start() and lets_go_if_told(entry)


def lets_go_if_told(entry: str) -> bool:
    """Whether the predicate or branch around it is decided by the last parameter alone."""
    last = re.findall(r"\.param[^,)]*?(\w+_param_\d+)", entry.partition("{")[0])[-1]
    told = re.search(rf"ld\.param\.[a-z]64\s+(%\w+), \[{last}\];", entry)
    return told is not None and re.search(
        rf"setp\.(?:eq|ne)\.[a-z]64\s+%\w+, {told[1]}, 0;", entry
    ) is not None  # fmt: skip


def triton_kernel(layer):
    body = layer.body()
    values = sample_inputs(body, seed=0)
    constants = {i.name: values[i.name] for i in body.inputs if i.constant}
    problem = Problem(body, constants, CodeDevice(90))
    tactic = next(t for t in TRITON.candidates(problem) if not isinstance(t, Refusal))
    return program_for(tactic, problem).kernels[-1]


@pytest.mark.parametrize("layer", PRODUCTS, ids=lambda layer: layer.title)
def test_a_product_waits_before_it_reads(layer):
    made = COMPILERS.submit(triton_kernel(layer), "compute_90").result()
    meta, ptx = unpack_code(made)
    (entry,) = entries(ptx.decode())
    assert meta["waits"] == waits("compute_90") == 1 and waits_first(entry)


def test_code_for_older_gpus_neither_waits_nor_is_launched_early():
    made = COMPILERS.submit(triton_kernel(PRODUCTS[0]), "compute_80").result()
    meta, ptx = unpack_code(made)
    assert b"griddepcontrol" not in ptx and meta["waits"] == waits("compute_80") == 0


@pytest.mark.parametrize("name", [*BODIES, *OPERATORS])
def test_a_generated_kernel_waits_before_it_reads(name):
    body = BODIES[name](3) if name in BODIES else OPERATORS[name]()
    texts = [t for v in variants(body) if isinstance(t := kernel(body, v), KernelText)]
    ptx = compile_text(cupy, texts[0].code, "compute_90").decode()
    assert len(entries(ptx)) == len(texts[0].launches) and all(map(waits_first, entries(ptx)))
    if texts[0].since <= 80:
        assert b"griddepcontrol" not in compile_text(cupy, texts[0].code, "compute_80")
