"""ONNX Runtime beside ours, on PyTorch's tensors, where its package for the device is installed."""

from __future__ import annotations

import importlib.util
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from models import export
from places import Place, Replay
from torch import Tensor, nn

PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
"""By PyTorch's name of the device."""
ELEMENTS = {torch.float32: 1, torch.int64: 7, torch.float16: 10, torch.bfloat16: 16}
"""ONNX's numbers of the element types."""
WARM_UPS = 3
"""Runs before it is timed: the second one captures the CUDA graph."""


def installed(place: Place) -> bool:
    """Whether ONNX Runtime is there, and runs on this device."""
    if importlib.util.find_spec("onnxruntime") is None:
        return False
    import onnxruntime

    return PROVIDERS[place.name] in onnxruntime.get_available_providers()


def onnxruntime_run(
    module: nn.Module, inputs: list[Tensor], place: Place
) -> tuple[Replay, Tensor, dict[str, Any]]:
    """The exported module's run, on a GPU as one CUDA graph, its output, and the version."""
    import onnxruntime

    given = {f"input{k}": t.contiguous() for k, t in enumerate(inputs)}
    with torch.no_grad():
        output = torch.empty_like(module(*inputs)).contiguous()
    provider: Any = PROVIDERS[place.name]
    stream = torch.cuda.Stream() if place.name == "cuda" else None
    if stream is not None:
        settings = {
            "enable_cuda_graph": "1",
            "user_compute_stream": str(stream.cuda_stream),
            "use_tf32": str(int(torch.backends.cuda.matmul.allow_tf32)),
        }
        provider = (provider, settings)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export(module, given, "output", path)
        session = onnxruntime.InferenceSession(path, providers=[provider])
    bound = session.io_binding()
    for name, tensor in given.items():
        bound.bind_input(name, *_place(tensor))
    bound.bind_output("output", *_place(output))
    options = onnxruntime.RunOptions()
    # Whoever times it waits for the stream.
    options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    run = _Bound(session, bound, options, stream, given)
    if stream is not None:
        torch.cuda.synchronize()
    for _ in range(WARM_UPS):
        run()
    return run, output, {"version": onnxruntime.__version__}


@dataclass(frozen=True, eq=False)
class _Bound:
    """A session's run on tensors that live as long as it. stream: of a GPU, the session's own."""

    session: Any
    binding: Any
    options: Any
    stream: torch.cuda.Stream | None
    given: dict[str, Tensor]

    def __call__(self) -> None:
        if self.stream is None:
            self.session.run_with_iobinding(self.binding, self.options)
            return
        callers = torch.cuda.current_stream()
        self.stream.wait_stream(callers)
        self.session.run_with_iobinding(self.binding, self.options)
        callers.wait_stream(self.stream)


def _place(tensor: Tensor) -> tuple[str, int, int, list[int], int]:
    """Device, its index, element type, shape and address, as a binding asks for them."""
    index = tensor.device.index or 0
    kind = ELEMENTS[tensor.dtype]
    return tensor.device.type, index, kind, list(tensor.shape), tensor.data_ptr()
