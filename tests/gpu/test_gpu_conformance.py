"""ONNX's backend suite on the GPU: every kernel against the standard's outputs and our reference.

A build checks each tactic within the bound of its Body before the engine runs; the outputs are then
compared as onnx's own runner does. Cases run a second time with the inputs that decide sizes
written into the model, as they stand in real ones: otherwise only the host could run them.
"""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from onnx import ModelProto
from onnx.backend.test.case.test_case import TestCase

from workbench.datatypes import DataType
from workbench.onnx_backend import WorkbenchBackend, WorkbenchRep
from workbench.reports.support_gpu import HOST_ON_GPU

sys.path.insert(0, str(Path(__file__).parents[1] / "conformance"))
from backend_cases import all_cases, data_of, known_sizes, model_of, run_case, summary, unfit

pytestmark = pytest.mark.gpu
SHARDS = 16
"""The suite takes minutes: each share of it is a test, for processes side by side."""


class OnGpu(WorkbenchBackend):
    """Every source of the GPU; the host for what only it can run."""

    host_layers = True
    tf32 = False  # the standard's outputs are compared to a thousandth

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CUDA", **kwargs: Any) -> WorkbenchRep:
        return super().prepare(model, device, **kwargs)


def with_room(case: TestCase) -> TestCase:
    """The case with room for two last digits of its narrowest output.

    The standard's half outputs are rounded after every operator, which kernels need not do; what is
    0 in exact arithmetic is in its transforms what float32 left of it.
    """
    made = (v for _, expected in data_of(case, model_of(case)) for v in expected)
    outputs = [v for v in made if isinstance(v, np.ndarray)]
    kinds = [DataType.of(v) for v in outputs if v.dtype != object]
    digits = max((k.info.eps for k in kinds if k.is_float and k.itemsize == 2), default=0.0)
    small = max(case.atol, 1e-6 if "dft" in case.name else 0.0)
    return dataclasses.replace(case, rtol=max(case.rtol, 2 * digits), atol=small)


def share(shard: int) -> dict[str, TestCase]:
    """Cases of one test."""
    own = {n: c for n, c in all_cases().items() if crc32(n.encode()) % SHARDS == shard}
    known = {f"{n} (sizes known)": known_sizes(c) for n, c in own.items()}
    return own | {n: c for n, c in known.items() if c is not None}


@pytest.mark.parametrize("shard", range(SHARDS))
def test_no_answer_is_wrong_and_the_host_runs_what_the_table_says(shard: int):
    cases = share(shard)
    outcomes = {n: run_case(with_room(c), OnGpu) for n, c in cases.items()}
    host = {n: o.host for n, o in outcomes.items() if o.host}
    print(summary(outcomes))
    print("on the host:", dict(Counter(op for ops in host.values() for op in ops)))
    print("declined:", declined(outcomes))
    for name, why in unfit(outcomes).items():
        print(f"unfit: {name}: {dict(outcomes[name].sources or {})} {why}".replace("\n", " "))
    assert not unfit(outcomes)
    unexplained = {n: ops - HOST_ON_GPU.keys() for n, ops in host.items()}
    print("on the host, their sizes known only later:", {n: o for n, o in unexplained.items() if o})


def declined(outcomes: Mapping[str, Any]) -> dict[str, str]:
    """Cases that were not built, with the reason."""
    return {n: o.reason[:200] for n, o in outcomes.items() if o.kind == "declined"}
