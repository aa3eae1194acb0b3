"""The HTML report: one offline file that shows what a build did, and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import plotly

from widgets.columns import is_missing, number_text, records
from widgets.figures import (
    before_after_figure,
    calibration_figure,
    memory_figure,
    precision_figure,
    profile_figure,
    tactic_figure,
    timing_figure,
    waterfall_figure,
)
from widgets.html_parts import Figures, table, text, tiles
from workbench import __version__
from workbench.builder import BuildState
from workbench.datatypes import PRECISIONS
from workbench.errors import BuildError
from workbench.files import write_atomically
from workbench.records import Stage
from workbench.reports import (
    calibration_rows,
    coverage,
    histogram_rows,
    layer_rows,
    ledger_rows,
    memory_rows,
    network_graph,
    precision_rows,
    profile_rows,
    stage_rows,
    tactic_rows,
    timing_rows,
    waterfall_rows,
)
from workbench.runtime import Profile
from workbench.selection import Tuned

_HERE = Path(__file__).parent
HISTOGRAMS = 6
"""Histograms drawn: of the tensors that are clipped most; the table has every tensor."""


def write_report(
    state: BuildState,
    path: str | Path,
    *,
    accuracy: pd.DataFrame | None = None,
    profile: Profile | None = None,
) -> Path:
    """Write the report of a finished build; returns its path. Nothing is fetched to show it.

    accuracy: ``reports.accuracy_rows``. profile: a run of the engine. Raises BuildError before
    Serialize.
    """
    target = Path(path)
    write_atomically(target, report_html(state, accuracy=accuracy, profile=profile).encode())
    return target


def report_html(
    state: BuildState, *, accuracy: pd.DataFrame | None = None, profile: Profile | None = None
) -> str:
    """The report's text. Raises BuildError before Serialize."""
    if state.plan_bytes is None or state.tuned is None:
        raise BuildError("there is no plan to report on", place=state.name, remedy="run Serialize")
    page = _Page(state, state.tuned, accuracy, profile)
    sections = [s for s in (make(page) for make in SECTIONS) if s is not None]
    links = "".join(f'<a href="#{s.anchor}">{text(s.title)}</a>' for s in sections)
    body = "".join(
        f'<section id="{s.anchor}"><h2>{text(s.title)}</h2>{s.content}</section>' for s in sections
    )
    script = (Path(plotly.__file__).parent / "package_data" / "plotly.min.js").read_text()
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{text(state.name)}: build report</title>"
        f"<style>{(_HERE / 'report.css').read_text()}</style></head><body>"
        f"<header><div><h1>{text(state.name)}: build report</h1>"
        f'<p class="device">{text(state.log.device)}</p>{_summary(page)}</div></header>'
        f'<nav aria-label="Sections"><div>{links}</div></nav><main>{body}'
        f"<footer>Written by inference-workbench {__version__}. Every number on this page was "
        "measured on the device above or computed from what was; a time carries the day of its "
        "measurement.</footer></main>"
        f"<script>{script}</script><script>{(_HERE / 'report.js').read_text()}</script>"
        "</body></html>"
    )


@dataclass(frozen=True)
class _Section:
    anchor: str
    title: str
    content: str


@dataclass(frozen=True, eq=False)
class _Page:
    state: BuildState
    tuned: Tuned
    accuracy: pd.DataFrame | None
    profile: Profile | None
    figures: Figures = field(default_factory=Figures)

    @property
    def device(self) -> str:
        return self.state.log.device


def _summary(page: _Page) -> str:
    state = page.state
    assert state.plan_bytes is not None and state.plan is not None
    nodes = len(state.networks[Stage.PARSE].model_nodes)
    pairs = [(f"{nodes} → {state.network.num_layers}", "ONNX nodes → layers")]
    if page.profile is not None:
        pairs.append((f"{page.profile.end_to_end_us:.0f} µs", "median end-to-end time"))
    elif state.config.builder_optimization_level:
        pairs.append((f"{page.tuned.total_us:.0f} µs", "sum of the chosen kernels' medians"))
    built = {c.executed.info.label for c in page.tuned.layers}
    pairs.append((" + ".join(sorted(built)), "executed precisions"))
    if page.accuracy is not None and len(page.accuracy):
        last = page.accuracy.iloc[-1]
        pairs.append((f"{last['Accuracy (%)']:.2f}%", f"accuracy in {last['Precision']}"))
    pairs.append((f"{len(state.plan_bytes) / 1024:,.0f} KiB", "plan file"))
    arena = state.plan.profiles[0].arena_bytes
    pairs.append((f"{arena / 1024:,.0f} KiB", "arena at the largest shapes"))
    return tiles(pairs)


# -- sections -----------------------------------------------------------------------------
def _stages(page: _Page) -> _Section:
    content = '<p class="note">What each stage did, in order. Times are this build\'s; a stage '
    content += "that recalls a cache is quick.</p>" + table(stage_rows(page.state.log))
    return _Section("stages", "Stages", content)


def _graph(page: _Page) -> _Section:
    state = page.state
    before, after = network_graph(state.networks[Stage.PARSE]), network_graph(state.network)
    nodes = len(state.networks[Stage.PARSE].model_nodes)
    figure = before_after_figure(
        before,
        after,
        f"{nodes} ONNX nodes → {state.network.num_layers} layers",
        "click a box to outline what it became, or came from; drag to move, scroll to zoom",
        captions=("As parsed", "As built"),
    )
    content = page.figures.place(figure, "The network as parsed and as built, side by side")
    return _Section("graph", "Graph", content)


def _layers(page: _Page) -> _Section:
    rows = layer_rows(page.tuned)
    timing = timing_rows(page.tuned)
    content = ""
    if len(timing):
        content = page.figures.place(
            timing_figure(timing, page.device), "Median time of each layer's candidates"
        )
    how = (
        "exactly"
        if page.tuned.exact
        else (f"heuristically (no choice beats {page.tuned.lower_bound_us:.1f} µs)")
    )
    content += (
        f'<p class="note">Tactics and layouts were chosen together, {how}. Fusion gain: what the '
        "layer's parts would take one by one (COMPOSED) less the chosen tactic.</p>"
    )
    return _Section("layers", "Layers", content + table(rows))


def _tactics(page: _Page) -> _Section:
    parts = [
        '<p class="note">Every tactic of every layer: its time, its largest error as a '
        "fraction of the allowed bound, or why it was refused.</p>"
    ]
    for choice in page.tuned.layers:
        rows = tactic_rows(choice)
        each = records(rows)
        timed = sum(not is_missing(r["Median (µs)"]) for r in each)
        refused = sum(r["Status"] == "refused" for r in each)
        figure = ""
        if timed:
            figure = page.figures.place(
                tactic_figure(rows, choice.layer, page.device), f"Tactics of {choice.layer}"
            )
        parts.append(
            f"<details><summary>{text(choice.layer)} <small>{text(' + '.join(choice.operators))} "
            f"· {text(choice.winner.title)} · {timed} timed, {refused} refused</small></summary>"
            f"<div>{figure}{table(rows)}</div></details>"
        )
    return _Section("tactics", "Tactics", "".join(parts))


def _ledger(page: _Page) -> _Section:
    rows = ledger_rows(page.state.log)
    applied = sum(r["Outcome"] == "applied" for r in records(rows))
    note = f"{applied} rewrites applied, {len(rows) - applied} refused, each with its reason."
    return _Section("ledger", "Ledger", f'<p class="note">{note}</p>{table(rows)}')


def _precision(page: _Page) -> _Section:
    lines = "".join(
        f"<li>{text(coverage(page.tuned, p))}</li>"
        for p in PRECISIONS
        if coverage(page.tuned, p).executed
    )
    figure = page.figures.place(
        precision_figure(layer_rows(page.tuned), page.device),
        "Layers by requested, built and executed precision",
    )
    note = '<p class="note">Requests as they were resolved, before fusion. A blocker says why a '
    note += "request could not be met.</p>"
    content = f"<ul>{lines}</ul>{figure}{note}{table(precision_rows(page.state.decisions))}"
    return _Section("precision", "Precision", content)


def _accuracy(page: _Page) -> _Section | None:
    if page.accuracy is None:
        return None
    return _Section("accuracy", "Accuracy", table(page.accuracy))


def _calibration(page: _Page) -> _Section | None:
    result = page.state.calibration
    if result is None:
        return None
    source = f"{result.calibrator.value} calibrator, {result.samples} samples ({result.label})"
    ranked = sorted(result.ranges.values(), key=lambda r: -r.clipped_share)
    parts = [
        f'<p class="note">{text(source)}; data SHA-256 <code>{result.digest[:16]}…</code>. '
        f"Drawn: the {min(HISTOGRAMS, len(ranked))} tensors that are clipped most.</p>"
    ]
    for r in ranked[:HISTOGRAMS]:
        figure = calibration_figure(
            histogram_rows(r),
            tensor=r.tensor,
            threshold=r.threshold,
            scale=r.scale,
            clipped_share=r.clipped_share,
            source=f"{source} · {page.device}",
        )
        place = page.figures.place(figure, f"Histogram of {r.tensor}")
        clipped = number_text(100 * r.clipped_share)
        parts.append(
            f"<details><summary>{text(r.tensor)} <small>clipped {clipped}%</small></summary>"
            f"<div>{place}</div></details>"
        )
    parts.append(table(calibration_rows(result)))
    return _Section("calibration", "Calibration", "".join(parts))


def _memory(page: _Page) -> _Section:
    parts: list[str] = []
    for index, memory in enumerate(page.state.memory):
        rows = memory_rows(memory)
        if not len(rows):
            parts.append(f"<p>Profile {index} keeps no inner tensor in the arena.</p>")
            continue
        figure = memory_figure(
            rows,
            page.device,
            arena_bytes=memory.arena_bytes,
            total_bytes=memory.total_bytes,
            profile=index,
        )
        parts.append(page.figures.place(figure, "Arena offsets over the plan's steps"))
        parts.append(table(rows))
    return _Section("memory", "Memory", "".join(parts))


def _profile(page: _Page) -> _Section | None:
    if page.profile is None:
        return None
    rows = profile_rows(page.profile)
    runs = f"{page.profile.iterations} runs"
    falls = waterfall_figure(waterfall_rows(page.profile), page.device, inputs=runs)
    figure = profile_figure(rows, page.device, inputs=runs)
    note = (
        '<p class="note">Each layer was timed alone, the whole apart; the residual is what '
        "launches cost and what neighbours gain from warm caches (it may be negative).</p>"
    )
    place = page.figures.place(falls, "What a run's time is made of")
    place += page.figures.place(figure, "Where the execution's time goes")
    return _Section("profile", "Profile", place + note + table(rows))


def _plan(page: _Page) -> _Section:
    state = page.state
    assert state.plan is not None and state.plan_bytes is not None
    versions = ", ".join(f"{k} {v}" for k, v in state.plan.versions.items())
    facts = pd.DataFrame(
        [
            ("SHA-256", state.sha256),
            ("Size", f"{len(state.plan_bytes):,} bytes"),
            ("Steps", f"{len(state.plan.steps)} (layers and reformats)"),
            ("Threads", str(state.plan.threads)),
            ("Versions", versions),
        ],
        columns=["Fact", "Value"],
    )
    note = (
        "<p class=\"note\">The plan is this workbench's own format (safetensors inside): NVIDIA's "
    )
    note += "runtime cannot load it, and this one loads no NVIDIA plan.</p>"
    return _Section("plan", "Plan", note + table(facts))


SECTIONS = (
    _stages,
    _graph,
    _layers,
    _tactics,
    _ledger,
    _precision,
    _accuracy,
    _calibration,
    _memory,
    _profile,
    _plan,
)
"""The report's sections in order; one that has nothing to show returns None."""
