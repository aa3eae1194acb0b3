"""VIEW: layers whose outputs lie in their inputs' memory, or the other way round: no launch.

``workbench.storage`` decides which layers those are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workbench.body import Body, TensorType
from workbench.devices import Buffer
from workbench.formats import LINEAR, Format
from workbench.records import Refusal
from workbench.tactics.native import nothing
from workbench.tactics.protocol import Call, Launch, Problem, Tactic


class ViewSource:
    """The absence of a kernel, under a tactic source's name."""

    name = "VIEW"
    device_kind = "any"

    def unavailable(self) -> Refusal | None:
        """None: it needs nothing."""
        return None

    @property
    def version(self) -> str:
        """Of the rules in ``workbench.storage``."""
        return "2"

    def tactic(self, body: Body, layout: Format = LINEAR) -> Tactic:
        """The tactic of a Body whose memory is planned so."""
        ins = (layout,) * len(body.dynamic_inputs)
        outs = (layout,) * len(body.outputs)
        return Tactic(self.name, "no copy", ins, outs, body.compute_type, version=self.version)

    def candidates(self, problem: Problem) -> Sequence[Tactic | Refusal]:
        """A refusal: whether it is one depends on the layer's neighbours."""
        return (_REFUSAL,)

    def prepare(self, tactic: Tactic, problem: Problem) -> Call | Refusal:
        """A Call that launches nothing."""
        return Call("no kernel", _bind)

    def reformat(self, type_: TensorType, source: Format, target: Format) -> Tactic | Refusal:
        """A refusal: another layout is another order in memory."""
        return _REFUSAL


def _bind(
    inputs: Sequence[Buffer], outputs: Sequence[Buffer], workspace: Buffer | None, stream: Any
) -> Launch:
    return nothing


_REFUSAL = Refusal("the memory plan makes views, layer by layer", "VIEW", code="view")

VIEW = ViewSource()
