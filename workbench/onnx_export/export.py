"""export_onnx: a network as an ONNX model, in memory or as a file."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from onnx import ModelProto, helper

from workbench.errors import ExportError
from workbench.files import check_target, write_atomically
from workbench.network import NetworkDefinition
from workbench.onnx_export.dialect import Dialect
from workbench.onnx_export.graph import MainGraph, opset_imports
from workbench.onnx_export.weights import MESSAGE_LIMIT
from workbench.onnx_parser.schemas import OPSET

IR_VERSION = 10
"""The oldest with metadata_props of nodes; a newer one where an opset asks for it."""

LISTED = 20
"""Reasons that an error's message spells out; ``reasons`` has all."""

EXTERNAL_ABOVE = 1 << 30
"""Bytes of weights above which they are written to a file of their own."""


def export_onnx(
    network: NetworkDefinition,
    path: str | PathLike[str] | None = None,
    *,
    opset: int = OPSET,
    functions: bool = False,
    external_above: int = EXTERNAL_ABOVE,
) -> ModelProto:
    """The network as a strongly typed ONNX model; written to ``path`` where one is given.

    Every value has its type, with symbolic sizes as dim_params; every node its layer, the model's
    nodes that it stands for, and the cause of an inserted one, in metadata_props. An output of
    unknown rank has no shape, which ONNX Runtime takes and onnx.checker does not.

    opset: of ai.onnx. ONNX Runtime 1.31 loads 26 and older. functions: a fused layer is one call
    of a model-local function, instead of its nodes. external_above: bytes of weights above which
    they lie in a data file beside ``path``, whose name carries a digest; a killed process leaves
    the old model and its data, or the new one and its. Raises ExportError with every reason, and
    FileError where nothing can be written.
    """
    target = Path(path) if path is not None else None
    if target is not None:
        check_target(target)
    if not 1 <= opset <= OPSET:
        raise ExportError(
            f"opset is {opset}", place=network.name, remedy=f"give 1 to {OPSET}, the newest known"
        )
    if not network.outputs:
        raise ExportError(
            "no tensor is marked as output", place=network.name, remedy="mark_output what it gives"
        )
    main = MainGraph(network, Dialect(opset), functions=functions)
    graph = main.run()
    if main.problems:
        raise _refusal(network, main)
    imports = opset_imports(main.shared)
    model = helper.make_model(
        graph,
        opset_imports=imports,
        functions=list(main.functions.values()),
        ir_version=max(IR_VERSION, helper.find_min_ir_version_for(imports, ignore_unknown=True)),
        producer_name="inference-workbench",
    )
    if target is None:
        main.store.inside(model)
        return model
    if main.store.nbytes > min(external_above, MESSAGE_LIMIT // 2):
        main.store.beside(model, target)
    else:
        main.store.inside(model)
    write_atomically(target, model.SerializeToString())
    return model


def _refusal(network: NetworkDefinition, main: MainGraph) -> ExportError:
    reasons = [
        f"{place}: {e.reason}" + (f"; {e.remedy}" if e.remedy else "") for place, e in main.problems
    ]
    place = network.name or "network"
    if len(reasons) == 1:
        where, only = main.problems[0]
        return ExportError(
            only.reason, place=f"{place}: {where}", remedy=only.remedy, reasons=reasons
        )
    lines = [f"{len(reasons)} layers cannot be written", *(f"  - {r}" for r in reasons[:LISTED])]
    if len(reasons) > LISTED:
        lines.append(f"  and {len(reasons) - LISTED} more")
    return ExportError("\n".join(lines), place=place, reasons=reasons)
