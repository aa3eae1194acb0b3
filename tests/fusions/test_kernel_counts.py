"""Kernels of the plans of the digits models and of the exports; no more than ONNX Runtime makes.

``python tests/fusions/test_kernel_counts.py`` writes the golden file again.
"""

import importlib.util
import json
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from workbench import fusions
from workbench.builder import BuildState, build
from workbench.bundle import bundled
from workbench.config import BuilderConfig, OptimizationProfile
from workbench.datatypes import DataType
from workbench.devices import CpuDevice
from workbench.plan import Plan

HERE = Path(__file__).parent
GOLDEN = HERE / "kernel_counts.golden.json"
EXPORTS = HERE.parent / "exports"
DIGITS = ("digits_cnn", "digits_inception", "digits_vit")
WHOLE = "digits_vit INT8, attention whole"
KINDS = ("FP32", "BF16", "FP16", "INT8")
SHAPES = {
    "resnet": {"image": (2, 3, 32, 36)},
    "vit": {"image": (2, 3, 24, 24)},
    "bert": dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), (2, 8)),
    "gpt": {"input_ids": (2, 8)},
    "gpt_rotary": {"input_ids": (2, 8)},
    "gpt_cached": {
        "input_ids": (2, 3),
        **{f"past_{kind}_{i}": (2, 2, 5, 12) for kind in ("key", "value") for i in (0, 1)},
    },
}


@cache
def benchmark() -> ModuleType:
    path = HERE.parents[1] / "benchmarks" / "fusion_counts.py"
    spec = importlib.util.spec_from_file_location("fusion_counts", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def kernels(plan: Plan) -> list[int]:
    """Kernels of each step that computes: of a COMPOSED one, those of its parts."""
    return [benchmark().parts_of(s)[0] for s in benchmark().computing(plan)]


def digits_build(model: str, kind: str) -> BuildState:
    config = BuilderConfig()
    config.builder_optimization_level = 0
    config.num_threads = 1
    config.default_precision = next(k for k in DataType if k.info.label == kind)
    config.add_optimization_profile(
        OptimizationProfile().set_shape("image", (1, 1, 8, 8), (8, 1, 8, 8), (8, 1, 8, 8))
    )
    with np.load(bundled("datasets", "digits.npz")) as data:
        samples = {"image": data["calibration_images"][:8]}
    calibration = samples if kind == "INT8" else None
    return build(bundled("datasets", f"{model}.onnx"), config, calibration=calibration)


def digits_counts(model: str, kind: str) -> dict[str, int]:
    """Kernels, and steps that are views. Layouts, so reformats, are the machine's."""
    state = digits_build(model, kind)
    assert state.plan is not None
    views = sum(s.is_view for s in state.plan.steps)
    return {"kernels": sum(kernels(state.plan)), "views": views}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", DIGITS)
def test_the_digits_models_have_their_golden_counts(
    model: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fusions, "multiplies_bytes", lambda device: False)
    assert digits_counts(model, kind) == json.loads(GOLDEN.read_text())[f"{model} {kind}"]


def test_where_bytes_are_multiplied_int8_attention_is_one_kernel() -> None:
    able = fusions.multiplies_bytes(CpuDevice())
    key = WHOLE if able else "digits_vit INT8"
    assert digits_counts("digits_vit", "INT8") == json.loads(GOLDEN.read_text())[key]


@pytest.mark.parametrize("model", SHAPES)
def test_an_export_has_no_more_kernels_than_in_onnx_runtime(model: str) -> None:
    counts = benchmark()
    path = EXPORTS / f"{model}.onnx"
    plan = counts.built(path, SHAPES[model], 0).plan
    assert plan is not None
    assert sum(kernels(plan)) <= counts.peer_counts(path)["kernels"]


@pytest.mark.parametrize("model", ["vit", "bert", "gpt"])
def test_an_encoder_layer_is_at_most_eight_kernels(model: str) -> None:
    counts = benchmark()
    plan = counts.built(EXPORTS / f"{model}.onnx", SHAPES[model], 0).plan
    assert plan is not None
    assert counts.per_layer(counts.computing(plan), kernels(plan)) <= 8


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fusions, "multiplies_bytes", lambda device: False)
        found = {f"{m} {k}": digits_counts(m, k) for m in DIGITS for k in KINDS}
    if not fusions.multiplies_bytes(CpuDevice()):
        sys.exit("run it on a processor with AVX-512 VNNI or AVX-VNNI")
    found[WHOLE] = digits_counts("digits_vit", "INT8")
    GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
