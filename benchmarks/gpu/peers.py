"""PyTorch beside ours, its eager mode and ``torch.compile`` max-autotune, and ONNX Runtime."""

from __future__ import annotations

import time
from typing import Any

import torch
from onnxruntime_peer import installed, onnxruntime_run
from places import Place, Replay
from torch import Tensor, nn

PEERS = ("eager", "compile", "onnxruntime")


def runnable(place: Place) -> list[str]:
    """The peers that can run here: ONNX Runtime is no requirement."""
    return [p for p in PEERS if p != "onnxruntime" or installed(place)]


def peer(
    who: str, module: nn.Module, inputs: list[Tensor], place: Place
) -> tuple[Replay, Tensor, dict[str, Any]]:
    """A peer's run, its output, and what is to be told: seconds, and whether it was frozen."""
    start = time.perf_counter()
    if who == "eager":
        run, output = place.captured(module, inputs)
        facts: dict[str, Any] = {}
    elif who == "onnxruntime":
        run, output, facts = onnxruntime_run(module, inputs, place)
    else:
        run, output, facts = _compiled(module, inputs, place)
    return run, output, {"build_s": round(time.perf_counter() - start, 1), **facts}


def _compiled(
    module: nn.Module, inputs: list[Tensor], place: Place
) -> tuple[Replay, Tensor, dict[str, Any]]:
    """Compiled with inductor's freezing, which makes constants of weights; without where it fails.

    The graph is captured here, not by the compiler.
    """
    import torch._inductor.config as inductor

    reason = ""
    for freezing in (True, False):
        torch._dynamo.reset()
        try:
            with inductor.patch(freezing=freezing):
                made = torch.compile(module, mode="max-autotune-no-cudagraphs")
                run, output = place.captured(made, inputs)
        except Exception as e:
            if not freezing:
                raise
            reason = f"{type(e).__name__}: {str(e)[:200]}"
            continue
        told = {"freezing": freezing}
        return run, output, told | ({"not_frozen_because": reason} if reason else {})
    raise AssertionError("either attempt returns or raises")
