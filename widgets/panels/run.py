"""RunPanel: the finished plan: its size and digest, its export, and its profile."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import ipywidgets as ipw

from widgets.figures import profile_figure, roofline_figure, waterfall_figure
from widgets.html_report import write_report
from widgets.panels.base import Panel
from widgets.parts import button, dropdown, note, plot, row, text_of, tiles
from widgets.runner import Failure
from widgets.table import Table
from workbench.builder import BuildState
from workbench.datatypes import DataType
from workbench.errors import WorkbenchError
from workbench.lab import Ceilings, measure_ceilings
from workbench.onnx_export import trtexec_line
from workbench.records import Stage
from workbench.reports import (
    arithmetic_types,
    layer_work,
    profile_rows,
    roofline_rows,
    waterfall_rows,
)
from workbench.runtime import Profile

NOT_NVIDIA = (
    "The plan is this workbench's own format: its Runtime loads it in a bare process; NVIDIA's "
    "runtime cannot load it."
)
SHAPES = (("smallest", 0), ("tuned-for", 1), ("largest", 2))


class RunPanel(Panel):
    """Export the plan, run it, and see where the time goes."""

    heading: ClassVar[str] = "Plan"
    stage: ClassVar[Stage] = Stage.SERIALIZE

    def setup(self) -> None:
        self.which = 1
        self.profile: Profile | None = None
        self.ceilings: Ceilings | None = None
        self._asked: frozenset[DataType] = frozenset()
        self._sizes: dict[str, int] = {}
        self._measured = ""
        self._inputs = ""
        self.path = ipw.Text(
            value=f"{self.session.name}.plan",
            description="File",
            style={"description_width": "initial"},
            layout={"width": "320px"},
        )
        self.result = ipw.HTML()

    def lasting(self) -> Sequence[ipw.Widget]:
        return (self.path, self.result)

    def draw(self, state: BuildState) -> Sequence[ipw.Widget]:
        assert state.plan is not None and state.plan_bytes is not None
        self.state = state
        facts = [
            (f"{len(state.plan_bytes) / 1024:,.1f} KiB", "plan file"),
            (f"{len(state.plan.steps)}", "steps: layers and reformats"),
            (f"{state.plan.profiles[0].arena_bytes / 1024:,.0f} KiB", "arena"),
        ]
        shape = dropdown("at its", SHAPES, self.which, self._set_which, width="190px")
        parts: list[ipw.Widget] = [
            tiles(facts),
            ipw.HTML(f"<div>SHA-256 <code>{state.sha256}</code></div>"),
            note(NOT_NVIDIA),
            row(
                self.path,
                button("Export plan", self.export, primary=True),
                button("Export ONNX", self.export_onnx),
                button("Write HTML report", self.report),
            ),
            self.result,
            row(button("Run and profile", self.measure), shape, ipw.Label("sizes")),
        ]
        if self.profile is not None and self._measured == state.sha256:
            rows = profile_rows(self.profile)
            device = str(self.session.device)
            falls, self.waterfall = plot(
                waterfall_figure(waterfall_rows(self.profile), device, inputs=self._inputs)
            )
            box, self.figure = plot(profile_figure(rows, device, inputs=self._inputs))
            parts += [
                falls,
                box,
                note(
                    "Each layer was timed alone, the whole apart. The residual is what launches "
                    "cost and what neighbours gain from warm caches; it may be negative."
                ),
                Table(rows.drop(columns=["Type"]), label="profile of each layer", height=380),
                row(button("Measure the ceilings", self.measure_ceilings)),
            ]
            if self.ceilings is not None and not self._asked.issuperset(
                arithmetic_types(layer_work(state.plan, self._sizes))
            ):
                self.ceilings = None  # measured for another plan
            if self.ceilings is not None:
                near = roofline_rows(
                    layer_work(state.plan, self._sizes), self.profile, self.ceilings
                )
                roof, self.roofline = plot(
                    roofline_figure(near, self.ceilings, inputs=self._inputs)
                )
                near = near.drop(columns=["Type"] if any(near["Note"]) else ["Type", "Note"])
                parts += [roof, Table(near, label="work and ceiling of each layer", height=380)]
        return parts

    # -- what the controls do -------------------------------------------------------------
    def export(self) -> None:
        """Write the plan to the file in the field; what it wrote, or why not, is shown."""
        path = Path(self.path.value.strip() or f"{self.session.name}.plan")
        try:
            digest = self.session.export_plan(path)
        except (WorkbenchError, OSError) as error:
            self.show_failure(Failure(error))
            return
        size = path.stat().st_size
        self._say(f"{path.resolve()}: {size:,} bytes, SHA-256 {digest}")

    def export_onnx(self) -> None:
        """Write the network with its Cast and Q/DQ, before fusion, beside the plan.

        Its name is never the model's own.
        """
        path = Path(self.path.value.strip() or self.session.name).with_suffix(".exported.onnx")
        try:
            self.session.export_onnx(path)
        except (WorkbenchError, OSError) as error:
            self.show_failure(Failure(error))
            return
        self._say(
            f"{path.resolve()}: {path.stat().st_size:,} bytes, for any engine that reads ONNX; "
            f"TensorRT: {trtexec_line(path, self.session.config)}"
        )

    def report(self) -> None:
        """Write the HTML report beside the plan."""
        path = Path(self.path.value.strip() or self.session.name).with_suffix(".html")
        try:
            own = self._measured == self.state.sha256
            write_report(self.state, path, profile=self.profile if own else None)
        except (WorkbenchError, OSError) as error:
            self.show_failure(Failure(error))
            return
        self._say(f"{path.resolve()}: opens offline in any browser")

    def measure(self) -> None:
        """Run the engine on example inputs and profile it, in the worker thread."""
        state = self.state

        def work() -> None:
            inputs, label = self.session.example_inputs(self.which)
            engine = state.engine()
            self.profile = engine.create_execution_context().profile(inputs)
            self._sizes = engine.bindings_of({n: a.shape for n, a in inputs.items()})
            self._measured = state.sha256
            shapes = ", ".join(f"{n} {list(a.shape)}" for n, a in inputs.items())
            self._inputs = f"{shapes}, {label}, {self.profile.iterations} runs"

        self.runner.run(work, "running and profiling")

    def measure_ceilings(self) -> None:
        """Measure what the device can reach, in every type that the plan computes in."""
        state = self.state
        assert state.plan is not None
        types = arithmetic_types(layer_work(state.plan, self._sizes))

        def work() -> None:
            self.ceilings = measure_ceilings(state.device, types)
            self._asked = frozenset(types)

        self.runner.run(work, "measuring the device's ceilings")

    def _set_which(self, which: int) -> None:
        self.which = which

    def _say(self, text: str) -> None:
        self.result.value = f'<div role="status">✓ {text_of(text)}</div>'
