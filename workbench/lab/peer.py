"""ONNX Runtime beside ours: the model's own outputs, as another engine computes them."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from workbench.body import Array
from workbench.builder import Batch
from workbench.errors import ConfigError
from workbench.network import NetworkDefinition
from workbench.onnx_export import export_onnx

PEER_OPSET = 25
"""The newest that ONNX Runtime 1.31 runs."""


def peer_installed() -> bool:
    """Whether ONNX Runtime can be imported here."""
    return importlib.util.find_spec("onnxruntime") is not None


def peer_outputs(
    model: str | Path | bytes | NetworkDefinition, batches: Iterable[Batch], *, threads: int = 1
) -> tuple[dict[str, Array], ...]:
    """Outputs by name of each batch, from ONNX Runtime on its CPU provider.

    A network made by hand is exported first. Raises ConfigError where ONNX Runtime is not
    installed, or does not load the model.
    """
    if not peer_installed():
        raise ConfigError(
            "ONNX Runtime is not installed",
            place="peer_outputs",
            remedy="pip install onnxruntime, or compare with the float reference alone",
        )
    peer: Any = importlib.import_module("onnxruntime")
    options = peer.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    try:
        session = peer.InferenceSession(_given(model), options, providers=["CPUExecutionProvider"])
    except Exception as e:  # its exceptions have no common base
        raise ConfigError(
            f"ONNX Runtime {peer.__version__} does not load it: {e}", place="peer_outputs"
        ) from e
    names = [o.name for o in session.get_outputs()]
    wanted = [i.name for i in session.get_inputs()]
    found: list[dict[str, Array]] = []
    for batch in batches:
        given: Mapping[str, Array] = {n: batch[n] for n in wanted}
        found.append(dict(zip(names, session.run(names, given), strict=True)))
    return tuple(found)


def _given(model: str | Path | bytes | NetworkDefinition) -> str | bytes:
    if isinstance(model, NetworkDefinition):
        return export_onnx(model, opset=PEER_OPSET).SerializeToString()
    return model if isinstance(model, bytes) else str(model)
