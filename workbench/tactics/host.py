"""HOST: layers that only the host runs, value by value, by the interpreter.

No rival and no fallback: a layer either must run here (``Layer.on_host``), or never does. The
runtime calls the interpreter itself; there is nothing to prepare and nothing to time.
"""

from __future__ import annotations

from collections.abc import Sequence

from workbench.body import Body, TensorType
from workbench.formats import LINEAR, Format
from workbench.records import Refusal
from workbench.tactics.protocol import Call, Problem, Tactic

VERSION = "1"


class HostSource:
    """The interpreter under a tactic source's name."""

    name = "HOST"
    device_kind = "host"

    def unavailable(self) -> Refusal | None:
        """None: it needs nothing."""
        return None

    @property
    def version(self) -> str:
        """Of the interpreter."""
        return VERSION

    def tactic(self, body: Body) -> Tactic:
        """The one way to run a Body on the host."""
        ins = (LINEAR,) * len(body.dynamic_inputs)
        outs = (LINEAR,) * len(body.outputs)
        return Tactic(self.name, "interpreter", ins, outs, body.compute_type, version=VERSION)

    def candidates(self, problem: Problem) -> Sequence[Tactic | Refusal]:
        """A refusal: kernels are for other sources."""
        return (_REFUSAL,)

    def prepare(self, tactic: Tactic, problem: Problem) -> Call | Refusal:
        """A refusal: the runtime runs such a step itself."""
        return _REFUSAL

    def reformat(self, type_: TensorType, source: Format, target: Format) -> Tactic | Refusal:
        """A refusal: values on the host have no layouts."""
        return _REFUSAL


_REFUSAL = Refusal("only layers that must run on the host do", "HOST", code="host")

HOST = HostSource()
