"""A PyTorch module as one self-contained ONNX file, checked against ONNX Runtime.

Needs: torch, onnxscript, onnx, onnxruntime, numpy.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx_ir.passes import common as ir_passes
from onnxscript import optimizer, rewriter
from onnxscript.rewriter.rules import common as rules

# The exporter's clean-up without its batch-norm rule: folding batch norm is our Fold's work.
CLEANUP_RULES = (
    rules.materialize_reshape_shape_rule,
    rules.no_op_expand_rule,
    rules.remove_optional_bias_from_conv_rule,
)

# The module path of a node ("blocks.0.attention ..."). All else that the exporter notes beside
# a node (source paths and lines, torch's own graph) tells of the exporting machine: removed.
KEPT_METADATA = "namespace"

# The messages that carry a doc string and metadata.
Documented = (
    onnx.ModelProto | onnx.GraphProto | onnx.NodeProto | onnx.TensorProto | onnx.ValueInfoProto
)


def export_module(
    module: torch.nn.Module,
    path: Path,
    *,
    inputs: Mapping[str, torch.Tensor],
    output: str,
    dynamic: Mapping[int, str],
    keep_batch_norm: bool = False,
) -> None:
    """Writes `module` in inference mode to `path`, at the exporter's default opset.

    inputs: example per input name, in the order of `forward`. dynamic: the symbolic name of
    each free axis, the same for every input; examples need size >= 2 there, for the exporter
    takes 0 and 1 as fixed. keep_batch_norm: replaces the exporter's clean-up, which folds
    batch norm into convolutions, by one that doesn't.
    """
    # Else a warning per torchvision operator that no model here uses.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    sizes = {axis: torch.export.Dim(name) for axis, name in dynamic.items()}
    program = torch.onnx.export(
        module.eval(),
        tuple(inputs.values()),
        dynamo=True,
        input_names=list(inputs),
        output_names=[output],
        dynamic_shapes=tuple(sizes for _ in inputs),
        optimize=not keep_batch_norm,
        verbose=False,
    )
    assert program is not None  # None belongs to the exporter of torch < 2.9.
    model = program.model
    if keep_batch_norm:
        optimizer.fold_constants(model, input_size_limit=65536)
        rewriter.rewrite(model, CLEANUP_RULES)
        ir_passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        ir_passes.DeduplicateInitializersPass()(model)
        ir_passes.NameFixPass()(model)
    proto = onnx_ir.serde.serialize_model(model)
    remove_machine_traces(proto)
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def remove_machine_traces(model: onnx.ModelProto) -> None:
    """Deletes metadata and doc strings, but for each node's module path."""
    for message in _messages(model):
        if message.metadata_props:
            kept = [
                prop
                for prop in message.metadata_props
                if isinstance(message, onnx.NodeProto) and prop.key == KEPT_METADATA
            ]
            del message.metadata_props[:]
            message.metadata_props.extend(kept)
        message.ClearField("doc_string")


def _messages(model: onnx.ModelProto) -> Iterator[Documented]:
    graph = model.graph
    yield model
    yield graph
    for group in (graph.node, graph.initializer, graph.input, graph.output, graph.value_info):
        yield from group


def run_onnx(path: Path, **inputs: NDArray[np.generic]) -> NDArray[np.float32]:
    """The first output of the model at `path` on ONNX Runtime's CPU provider."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, inputs)[0])


def largest_difference(
    module: torch.nn.Module, path: Path, batches: Sequence[Mapping[str, torch.Tensor]]
) -> float:
    """Largest |ONNX Runtime - PyTorch| over `batches`, relative to PyTorch's largest |output|."""
    worst = 0.0
    module.eval()
    for batch in batches:
        with torch.inference_mode():
            expected = module(*batch.values()).numpy()
        actual = run_onnx(path, **{name: value.numpy() for name, value in batch.items()})
        error = np.abs(actual - expected).max() / np.abs(expected).max()
        worst = max(worst, float(error))
    return worst
