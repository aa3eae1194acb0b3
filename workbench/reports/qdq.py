"""Where Q and DQ stand, why there, and what became of each: absorbed, moved, or a kernel left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from workbench.builder import BuildState
from workbench.datatypes import DataType
from workbench.errors import BuildError
from workbench.network import Layer, NetworkDefinition, Tensor
from workbench.records import Attempt, Stage
from workbench.rewrite import FusionAnswers

QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
UNFUSED = "a kernel of its own"
_SHORT = {"QuantizeLinear": "Q", "DequantizeLinear": "DQ"}
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
COLUMNS = ("Layer", "Kind", "Tensor", "Type", "Scale", "Why here", "After Fuse", "Why not fused")


def qdq_rows(state: BuildState) -> pd.DataFrame:
    """Every QuantizeLinear and DequantizeLinear that Calibrate left, in the network's order.

    Columns: Layer, Kind (Q or DQ), Tensor, Type, Scale, Why here, After Fuse, Why not fused; the
    last two are empty until Fuse has run. Raises BuildError before Calibrate.
    """
    if Stage.CALIBRATE not in state.networks:
        raise BuildError("no Q and DQ are written yet", place=state.name, remedy="run Calibrate")
    network = state.networks[Stage.CALIBRATE]
    placed = [x for x in network.layers if x.op in QUANTIZERS]
    fates: Mapping[str, tuple[str, str]] = {}
    if Stage.FUSE in state.networks:
        fates = _fates(placed, state.networks[Stage.FUSE], state.log[Stage.FUSE].attempts)
    rows = [(*_placement(x), *fates.get(x.name, ("", ""))) for x in placed]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def unfused_quantizers(network: NetworkDefinition) -> tuple[str, ...]:
    """Layers of a fused network that do nothing but quantize or dequantize: each is a kernel."""
    return tuple(x.name for x in network.layers if set(x.operator_names) <= set(QUANTIZERS))


# -- placement ------------------------------------------------------------------------------
def _placement(layer: Layer) -> tuple[str, str, str, str, str, str]:
    source, scale = layer.inputs[0], layer.inputs[1]
    assert source is not None and scale is not None
    quantizes = layer.op == "QuantizeLinear"
    stored = layer.outputs[0].dtype if quantizes else source.dtype
    tensor = source.name if quantizes else layer.outputs[0].name
    return (
        *(layer.name, _SHORT[layer.op], tensor, stored.info.label),
        *(_scale_text(scale, layer), _why_here(layer)),
    )


def _scale_text(scale: Tensor, layer: Layer) -> str:
    if scale.value is not None and scale.value.size == 1:
        return f"{float(scale.value.reshape(-1)[0]):.4g}"
    sizes = "×".join(map(str, scale.shape))
    block = layer.attributes["block_size"]
    return f"{sizes}, blocks of {block}" if block else f"{sizes}, one a channel"


def _why_here(layer: Layer) -> str:
    if layer.origin or layer.cause is None:
        return "in the model: its training chose the scale (QAT)"
    source = layer.inputs[0]
    assert source is not None
    dq = layer if layer.op == "DequantizeLinear" else _reader(layer)
    readers = dq.outputs[0].users if dq is not None else []
    if source.is_constant:
        names = ", ".join(u.name for u in readers)
        if source.dtype is DataType.INT4:
            return f"weights of {names}, a scale a block"
        return f"weights of {names}, a scale an output channel"
    parts = [f"{_role(u)} {u.name}" for u in readers]
    return "; ".join(dict.fromkeys(parts)) or layer.cause.reason


def _role(reader: Layer) -> str:
    if reader.op in _PRODUCTS:
        return "factor of"
    if reader.op == "Add":
        return "residual of"
    return "read by"


def _reader(q: Layer) -> Layer | None:
    return next((u for u in q.outputs[0].users if u.op == "DequantizeLinear"), None)


# -- what became of it ------------------------------------------------------------------------
def _fates(
    placed: Sequence[Layer], fused: NetworkDefinition, attempts: Sequence[Attempt]
) -> dict[str, tuple[str, str]]:
    left = set(unfused_quantizers(fused))
    answers = FusionAnswers(fused, attempts)
    found: dict[str, tuple[str, str]] = {}
    for layer in placed:
        if layer.name in left:
            found[layer.name] = (UNFUSED, _why_not(fused.layer(layer.name), answers, attempts))
            continue
        last = next((a for a in reversed(attempts) if a.applied and layer.name in a.place), None)
        found[layer.name] = (_fate(layer, last), "")
    return found


def _fate(layer: Layer, last: Attempt | None) -> str:
    if last is None:
        return "gone"
    others = [n for n in last.created or last.place if n != layer.name]
    where = others[-1] if others else layer.name
    if last.rule in ("merge_quantize", "requantize_pair"):
        return f"gone by {last.rule}"
    return f"in {where}"


def _why_not(layer: Layer, answers: FusionAnswers, attempts: Sequence[Attempt]) -> str:
    if layer.op == "QuantizeLinear":
        source = layer.inputs[0]
        if source is not None and source.producer is None:
            return f"'{source.name}' comes from outside: no kernel before it could write integers"
        pairs = [(source.producer.name, layer.name)] if source is not None else []  # pyright: ignore
    else:
        pairs = [(layer.name, u.name) for u in layer.outputs[0].users]
        if not pairs:
            return f"'{layer.outputs[0].name}' is an output of the network"
    for producer, reader in pairs:
        refused = [a for a in answers.ask(producer, reader).attempts if not a.applied]
        refused.sort(key=lambda a: "quantize" not in a.rule)
        if refused:
            return refused[0].reason
    own = [a for a in attempts if not a.applied and layer.name in a.place]
    return own[0].reason if own else "no fusion takes it in here"
