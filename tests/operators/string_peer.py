"""One operator in ONNX Runtime, on arrays of strings too; and operators of other domains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper


def string_peer(
    op: str,
    inputs: Sequence[Any],
    attributes: Mapping[str, Any] | None = None,
    *,
    outputs: int = 1,
    opset: int = 20,
    domain: str = "",
    domain_opset: int = 3,
    refused: Any = ...,
) -> Any:
    """What ONNX Runtime gives for one node. refused: what to give where it refuses the model."""
    names = [f"i{k}" if x is not None else "" for k, x in enumerate(inputs)]
    made = [f"o{k}" for k in range(outputs)]
    given = {k: v for k, v in (attributes or {}).items() if v is not None}
    node = helper.make_node(op, names, made, domain=domain, **given)
    feeds = {n: x for n, x in zip(names, inputs, strict=True) if n}
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(n, _element_type(x), x.shape) for n, x in feeds.items()],
        [onnx.ValueInfoProto(name=n) for n in made],
    )
    opsets = [helper.make_opsetid("", opset)]
    if domain:
        opsets.append(helper.make_opsetid(domain, domain_opset))
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception:
        if refused is ...:
            raise
        return refused
    return session.run(None, feeds)


def _element_type(x: Any) -> int:
    if x.dtype == np.object_:
        return TensorProto.STRING
    return helper.np_dtype_to_tensor_dtype(x.dtype)
