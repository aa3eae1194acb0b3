"""A Split whose parts all go through the same pointwise layer moves behind it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from workbench.fusions.horizontal import joined
from workbench.network import Layer, NetworkDefinition, Tensor
from workbench.records import Refusal
from workbench.rewrite import Match, Miss, Replaced, RewriteRule
from workbench.rewrite.twins import same_operand


@dataclass(frozen=True)
class SplitReaders:
    """Finds a Split (named ``split``) whose every part has one reader, a pointwise operator."""

    operators: frozenset[str] = frozenset({"Split"})
    depth: int = 1
    size: int = 8

    def find(self, layer: Layer) -> Iterator[Match]:
        """The Split and its readers."""
        if layer.operator is None or any(t.is_network_output for t in layer.outputs):
            return
        readers = [t.users[0] for t in layer.outputs if len(t.users) == 1]
        pointwise = all(r.operator is not None and r.operator.pointwise for r in readers)
        if len(set(readers)) == len(layer.outputs) and pointwise:
            yield Match((layer, *readers), layer, named={"split": layer})

    def nearest_miss(self, layer: Layer) -> Miss | None:
        """None: readers that differ are a match, which the rule refuses."""
        return None


def _axis(split: Layer) -> int:
    return split.attributes["axis"] % len(split.outputs[0].shape)


def _refuse(match: Match) -> Refusal | None:
    split, readers = match.layers[0], match.layers[1:]
    first = readers[0]
    for x in readers[1:]:
        if x.operator != first.operator or x.attributes != first.attributes:
            return Refusal(
                f"its parts go on differently: {first.op} '{first.name}', {x.op} '{x.name}'",
                code="different_epilogues",
            )
    rank, axis = len(split.outputs[0].shape), _axis(split)
    for index in range(len(first.inputs)):
        operands = [x.inputs[index] for x in readers]
        if operands == split.outputs or all(same_operand(operands[0], t) for t in operands):
            continue
        for t, part in zip(operands, split.outputs, strict=True):
            if t is None or not t.is_constant or not _runs_along(t, rank, axis, part):
                return Refusal(
                    f"operand {index} of its readers is not a constant along axis {axis}",
                    code="different_epilogues",
                )
    return None


def _runs_along(constant: Tensor, rank: int, axis: int, part: Tensor) -> bool:
    """Whether a constant has an element for each of the part's along the axis."""
    at = axis - (rank - len(constant.shape))
    return at >= 0 and len(constant.shape) <= rank and constant.shape[at] == part.shape[axis]


def _moved(network: NetworkDefinition, match: Match) -> Replaced:
    split, readers = match.layers[0], match.layers[1:]
    first, axis, rank = readers[0], _axis(split), len(split.outputs[0].shape)
    inputs: list[Tensor | None] = []
    for index, t in enumerate(first.inputs):
        operands = [x.inputs[index] for x in readers]
        if operands == split.outputs:
            inputs.append(split.inputs[0])
        elif all(same_operand(t, o) for o in operands):
            inputs.append(t)
        else:
            parts = [o for o in operands if o is not None]
            at = axis - (rank - len(parts[0].shape))
            inputs.append(joined(network, parts, at, f"{parts[0].name}_wide"))
    assert first.operator is not None and split.operator is not None
    origin = tuple(dict.fromkeys(o for x in readers for o in x.origin))
    wide = network.add_layer(
        first.operator,
        inputs,
        first.attributes,
        name=f"{first.name}_wide",
        origin=origin,
        cause=None if origin else first.cause,
    )
    new = network.add_layer(
        split.operator,
        [wide.outputs[0], *split.inputs[1:]],
        split.attributes,
        name=split.name,
        outputs=len(split.outputs),
        origin=split.origin,
        cause=split.cause,
    )
    return {x.outputs[0]: t for x, t in zip(readers, new.outputs, strict=True)}


SPLIT_LATER = RewriteRule(
    "split_later",
    SplitReaders(),
    _moved,
    _refuse,
    shares_inner=True,
    changes_weights=True,
    any_size=True,
    about="Parts that all go through the same layer are split after it.",
)
