"""Site and Step: what an upgrade sees of a node, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

import numpy as np

from workbench.body import Array, TensorType
from workbench.onnx_parser.problems import ErrorCode, refuse
from workbench.onnx_parser.schemas import OPSET
from workbench.onnx_parser.source import SourceNode


@dataclass(frozen=True)
class Step:
    """One application of an operator in its newest form."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Surroundings(Protocol):
    """What the importer knows of values that already exist."""

    def type_of(self, name: str) -> TensorType: ...

    def value_of(self, name: str) -> Array | None: ...

    def add_constant(self, name: str, value: Array) -> str: ...

    def fresh(self, name: str) -> str: ...

    def is_read(self, name: str) -> bool: ...


@dataclass(frozen=True)
class Site:
    """A node with its surroundings."""

    node: SourceNode
    around: Surroundings

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute's value; ``default`` where the model leaves it out."""
        return self.node.attributes.get(name, default)

    def input(self, index: int) -> str:
        """The name of an input; empty where it is left out."""
        return self.node.inputs[index] if index < len(self.node.inputs) else ""

    def type(self, index: int) -> TensorType:
        """The type of an input that is given."""
        return self.around.type_of(self.input(index))

    def value(self, index: int) -> Array | None:
        """The value of an input, where it is known now."""
        name = self.input(index)
        return self.around.value_of(name) if name else None

    def rank(self) -> int:
        """The first input's rank."""
        return len(self.type(0).shape)

    def axis(self, default: int) -> int:
        """The attribute ``axis`` as an index from the front. Refuses one outside the rank."""
        given, rank = self.attribute("axis", default), self.rank()
        if not -rank <= given < rank:
            self.refuse(
                ErrorCode.INVALID_NODE,
                f"axis is {given}, its input has rank {rank}",
                "re-export the model",
            )
        return given + rank if given < 0 else given

    def constant(self, label: str, value: Any, dtype: Any = np.int64) -> str:
        """The name of a new constant."""
        return self.around.add_constant(f"{self.node.name}_{label}", np.array(value, dtype))

    def fresh(self, label: str) -> str:
        """The name of a new tensor."""
        return self.around.fresh(f"{self.node.name}_{label}")

    def step(
        self,
        *,
        operator: str = "",
        inputs: tuple[str, ...] | None = None,
        without: tuple[str, ...] = (),
        outputs: tuple[str, ...] | None = None,
        **attributes: Any,
    ) -> Step:
        """The node itself with parts replaced; attributes ``without`` are dropped."""
        kept = {k: v for k, v in self.node.attributes.items() if k not in without}
        return Step(
            operator or self.node.operator,
            self.node.inputs if inputs is None else inputs,
            self.node.outputs if outputs is None else outputs,
            {**kept, **attributes},
        )

    def reads_output(self, index: int) -> bool:
        """Whether an output is given a name that some node or the graph reads."""
        outputs = self.node.outputs
        return index < len(outputs) and self.around.is_read(outputs[index])

    def refuse(self, code: ErrorCode, desc: str, remedy: str) -> NoReturn:
        """Raise ParserError: this form can't be upgraded."""
        refuse(code, desc, rule="upgrade", remedy=remedy, node=self.node)


Rule = Callable[[Site], tuple[Step, ...]]


@dataclass(frozen=True)
class Upgrade:
    """How one old version becomes newest forms. targets: operators in them, if not its own."""

    rule: Rule
    targets: tuple[str, ...] = ()


def as_node(node: SourceNode, step: Step) -> SourceNode:
    """The step as a node of the newest opset, in the place of ``node``."""
    return SourceNode(
        node.name,
        step.operator,
        "",
        OPSET,
        step.inputs,
        step.outputs,
        step.attributes,
        {},
        node.index,
        node.stack,
        node.origin,
    )
