"""Builds cuDNN plans in a process of its own: one JSON line in, one out; see ``planners``.

The frontend holds Python's lock while cuDNN compiles, so that threads would wait for each other.
"""

from __future__ import annotations

import base64
import functools
import importlib
import json
import pickle
import sys
from collections.abc import Mapping
from typing import Any

from workbench.records import Refusal
from workbench.tactics.cudnn.frontend import PlanRefused, compiled
from workbench.tactics.cudnn.library import load
from workbench.tactics.triton.worker import answers_apart


@functools.cache
def _handle(index: int) -> Any:
    """This process's cuDNN handle on a device. Raises PlanRefused."""
    cudnn = load()
    if isinstance(cudnn, Refusal):
        raise PlanRefused(str(cudnn))
    importlib.import_module("cupy").cuda.Device(index).use()
    return cudnn.create_handle()


def _answer(request: Mapping[str, Any]) -> dict[str, str]:
    try:
        graph, choice = pickle.loads(base64.b64decode(request["plan"]))
        code = compiled(graph, choice, _handle(request["device"]))
    except PlanRefused as e:
        return {"error": str(e)}
    return {"code": base64.b64encode(code).decode()}


def serve() -> None:
    """Answer requests until there are none."""
    answers = answers_apart()
    for line in sys.stdin:
        answers.write(json.dumps(_answer(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve()
