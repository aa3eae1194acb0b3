"""Kernels of a plan against ONNX Runtime's: ``python benchmarks/fusion_counts.py FOLDER``.

FOLDER holds what ``datasets/export_large.py`` and ``benchmarks/make_models.py`` made. Each model is
built in FP32 (``--level`` 1 by default, which times tactics), and optimized by ONNX Runtime
(ORT_ENABLE_ALL, CPU provider, the saved model read back). Both are counted by one rule:

- A kernel is a step, or a node, that computes or moves data.
- Reformats (ONNX Runtime: ReorderInput, ReorderOutput) change a layout only; listed beside.
- What copies nothing is no kernel: views; Reshape, Squeeze, Unsqueeze, Flatten, Identity, Constant.
- What only computes sizes is no kernel of ONNX Runtime's: Shape, Size, and nodes that lead to
  nothing but operands that are sizes (a Reshape's shape, a Slice's bounds...). Ours are known when
  the plan is made.
- Where COMPOSED, the tactics of a layer's parts, won by time, its parts are kernels in the column
  "as selected". Under "fused" the layer is one if a tactic of one kernel exists, passed its check,
  and was timed.

Exit status 1 if a plan has more kernels than ONNX Runtime or than its limit, or if its outputs
differ from ONNX Runtime's.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from workbench.builder import BuildState, build
from workbench.config import BuilderConfig, OptimizationProfile
from workbench.plan import Plan, PlanStep
from workbench.selection import LayerChoice
from workbench.tactics.composed import steps_of

Shapes = Mapping[str, tuple[int, ...]]
IMAGE: Shapes = {"image": (1, 3, 224, 224)}
WORDS: Shapes = {"input_ids": (1, 64)}
MASKED: Shapes = {**WORDS, "attention_mask": (1, 64)}
CACHED: Shapes = {
    "input_ids": (1, 8),
    **{f"past_{kind}_{i}": (1, 4, 56, 64) for i in range(12) for kind in ("key", "value")},
}


@dataclass(frozen=True)
class Model:
    """shapes: of every input. limit: most kernels; per_layer: most in one encoder layer."""

    shapes: Shapes
    limit: int | None = None
    per_layer: int | None = None


MODELS: dict[str, Model] = {
    "resnet50": Model(IMAGE, limit=56),
    "resnet50_bn": Model(IMAGE, limit=56),
    "mobilenetv2": Model(IMAGE, limit=56),
    "squeezenet": Model(IMAGE),
    "bert": Model(MASKED, per_layer=8),
    "bert_eager": Model(MASKED, per_layer=8),
    "vit_mha": Model(IMAGE, per_layer=8),
    "vit_sdpa": Model(IMAGE, per_layer=8),
    "vit_eager": Model(IMAGE, per_layer=8),
    "gpt2": Model(WORDS),
    "gpt2_rotary": Model(WORDS),
    "gpt2_cached": Model(CACHED),
}

ERROR_LIMIT = 1e-4
"""Largest difference from ONNX Runtime's outputs, relative to the largest of them."""


# -- ours ---------------------------------------------------------------------------------
def is_reformat(step: PlanStep) -> bool:
    """Whether the step changes a tensor's layout only."""
    return step.type == "REFORMAT"


def computing(plan: Plan) -> list[PlanStep]:
    """The steps that compute or move data."""
    return [s for s in plan.steps if not s.is_view and not is_reformat(s)]


def parts_of(step: PlanStep) -> tuple[int, int]:
    """Kernels and reformats that a step launches."""
    if step.tactic.source != "COMPOSED":
        return 1, 0
    inner = steps_of(step.tactic)
    return sum(bool(s.nodes) for s in inner), sum(not s.nodes for s in inner)


def has_fused(choice: LayerChoice, *, timed: bool) -> bool:
    """Whether the layer has a tactic of one kernel that passed its check (and was timed)."""
    return any(
        c.eligible and c.source != "COMPOSED" and (c.timing is not None or not timed)
        for c in choice.candidates
    )


def plan_counts(state: BuildState) -> dict[str, Any]:
    """The counts of a finished build."""
    assert state.plan is not None and state.tuned is not None
    steps, choices = computing(state.plan), {c.layer: c for c in state.tuned.layers}
    timed = state.config.builder_optimization_level > 0
    launched = [parts_of(s) for s in steps]
    fused = [
        1 if has_fused(choices[s.name], timed=timed) else kernels
        for s, (kernels, _) in zip(steps, launched, strict=True)
    ]
    reformats = sum(is_reformat(s) for s in state.plan.steps)
    return {
        "fused": sum(fused),
        "as_selected": sum(k for k, _ in launched),
        "composed": [s.name for s in steps if s.tactic.source == "COMPOSED"],
        "reformats": reformats + sum(r for _, r in launched),
        "views": sum(s.is_view for s in state.plan.steps),
        "per_layer": per_layer(steps, fused),
    }


def per_layer(steps: list[PlanStep], kernels: list[int]) -> int | None:
    """Most kernels from one attention to the next: those of an encoder layer."""
    attentions = [
        i for i, s in enumerate(steps) if s.body.anchor_node and s.body.anchor_node.op == "Softmax"
    ]
    return max((sum(kernels[a:b]) for a, b in pairwise(attentions)), default=None)


def built(path: Path, shapes: Shapes, level: int) -> BuildState:
    """The build of one model at one shape."""
    config = BuilderConfig()
    config.builder_optimization_level = level
    profile = OptimizationProfile()
    for name, shape in shapes.items():
        profile.set_shape(name, shape, shape, shape)
    config.add_optimization_profile(profile)
    return build(path, config)


# -- ONNX Runtime's -----------------------------------------------------------------------
FREE = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Constant"})
SIZES = frozenset({"Shape", "Size"})
REORDERS = frozenset({"ReorderInput", "ReorderOutput"})
SIZE_OPERANDS: dict[str, frozenset[int]] = {
    "ConstantOfShape": frozenset({0}),
    "Expand": frozenset({1}),
    "Pad": frozenset({1}),
    "Range": frozenset({0, 1, 2}),
    "Reshape": frozenset({1}),
    "Resize": frozenset({2, 3}),
    "Slice": frozenset({1, 2, 3, 4}),
    "Split": frozenset({1}),
    "Squeeze": frozenset({1}),
    "Tile": frozenset({1}),
    "Trilu": frozenset({1}),
    "Unsqueeze": frozenset({1}),
}
"""Operator -> the operands that are sizes, axes or bounds."""


def saved(path: Path) -> onnx.ModelProto:
    """What ONNX Runtime makes of a model, without its weights."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "optimized.onnx"
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.optimized_model_filepath = str(target)
        options.log_severity_level = 3  # it warns that the saved model suits this machine only
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_file_name", "weights.bin"
        )
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return onnx.load(target, load_external_data=False)


def size_nodes(graph: onnx.GraphProto) -> set[int]:
    """Indices of the nodes that compute nothing but sizes."""
    readers: dict[str, list[tuple[int, int]]] = {}
    for index, node in enumerate(graph.node):
        for place, name in enumerate(node.input):
            readers.setdefault(name, []).append((index, place))
    outputs = {o.name for o in graph.output}
    found: set[int] = set()
    for index, node in reversed(list(enumerate(graph.node))):
        uses = [use for name in node.output for use in readers.get(name, ())]
        sizes_only = all(
            reader in found or place in SIZE_OPERANDS.get(graph.node[reader].op_type, ())
            for reader, place in uses
        )
        if node.op_type in SIZES or (uses and sizes_only and not outputs & set(node.output)):
            found.add(index)
    return found


def peer_counts(path: Path) -> dict[str, Any]:
    """ONNX Runtime's counts."""
    graph = saved(path).graph
    sizes = size_nodes(graph)
    kinds = Counter(
        n.op_type for i, n in enumerate(graph.node) if i not in sizes and n.op_type not in FREE
    )
    reorders = sum(kinds.pop(op, 0) for op in REORDERS)
    return {
        "kernels": kinds.total(),
        "reorders": reorders,
        "free": len(graph.node) - kinds.total() - reorders,
        "kinds": dict(kinds.most_common()),
    }


# -- both ---------------------------------------------------------------------------------
def random_feeds(shapes: Shapes, elements: Mapping[str, Any]) -> dict[str, Any]:
    """Words of a small vocabulary, a mask of ones, and normal floats."""
    random = np.random.default_rng(0)
    return {
        name: random.integers(1, 2 if name == "attention_mask" else 1000, shape)
        if elements[name].kind == "i"
        else random.standard_normal(shape).astype(elements[name])
        for name, shape in shapes.items()
    }


def relative_error(path: Path, state: BuildState, shapes: Shapes) -> float:
    """Largest |ours - ONNX Runtime's|, of any output, relative to its largest magnitude."""
    elements = {t.name: np.dtype(t.dtype.numpy) for t in state.network.inputs}
    feeds = random_feeds(shapes, elements)
    ours = state.engine().create_execution_context().run(feeds)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    theirs = dict(zip(names, map(np.asarray, session.run(names, feeds)), strict=True))
    return max(float(np.abs(ours[n] - y).max() / np.abs(y).max()) for n, y in theirs.items())


# -- the table ----------------------------------------------------------------------------
def counted(path: Path, model: Model, level: int) -> dict[str, Any]:
    """One model's row."""
    began = time.perf_counter()
    state = built(path, model.shapes, level)
    row = {
        "model": path.stem,
        "nodes": len(state.network.model_nodes),
        **plan_counts(state),
        "limit": model.limit,
        "per_layer_limit": model.per_layer,
        "build_s": round(time.perf_counter() - began, 1),
        "onnxruntime": peer_counts(path),
        "relative_error": float(f"{relative_error(path, state, model.shapes):.1e}"),
        "device": str(state.device),
    }
    print({k: v for k, v in row.items() if k != "onnxruntime"}, flush=True)
    return row


def falls_short(row: Mapping[str, Any]) -> bool:
    """Whether a row breaks a limit, or has more kernels than ONNX Runtime."""
    return (
        row["fused"] > row["onnxruntime"]["kernels"]
        or row["relative_error"] > ERROR_LIMIT
        or (row["limit"] is not None and row["fused"] > row["limit"])
        or (row["per_layer_limit"] is not None and row["per_layer"] > row["per_layer_limit"])
    )


def as_markdown(rows: list[dict[str, Any]], date: str) -> str:
    """The table for people."""
    lines = [
        "# Kernels of a plan against ONNX Runtime's",
        "",
        f"Written by `benchmarks/fusion_counts.py`, whose first lines give the rule; {date}, "
        f"{rows[0]['device']}, onnxruntime {onnxruntime.__version__} (ORT_ENABLE_ALL, CPU).",
        "",
        "| Model | Nodes | Kernels, fused | as selected | per layer | limit | + reformats | "
        "+ views | ONNX Runtime | + reorders | Error |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for r in rows:
        peer = r["onnxruntime"]
        limit = r["limit"] or (f"{r['per_layer_limit']} a layer" if r["per_layer_limit"] else "")
        cells = (
            *(r["model"], r["nodes"], r["fused"], r["as_selected"], r["per_layer"] or "", limit),
            *(r["reformats"], r["views"], peer["kernels"], peer["reorders"]),
            f"{r['relative_error']:.0e}",
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Exit status: 1 if a row falls short."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--level", type=int, default=1, help="builder optimization level")
    parser.add_argument("--models", nargs="*", choices=tuple(MODELS), default=tuple(MODELS))
    parser.add_argument("--save", type=Path, help="write FILE.json, and FILE.md beside it")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in options.models:
        rows.append(counted(options.folder / f"{name}.onnx", MODELS[name], options.level))
        gc.collect()
    if options.save:
        date = datetime.datetime.now(datetime.UTC).date().isoformat()
        data = {
            "date": date,
            "onnxruntime": onnxruntime.__version__,
            "level": options.level,
            "models": rows,
        }
        options.save.write_text(json.dumps(data, indent=1) + "\n")
        options.save.with_suffix(".md").write_text(as_markdown(rows, date))
    return int(any(map(falls_short, rows)))


if __name__ == "__main__":
    sys.exit(main())
