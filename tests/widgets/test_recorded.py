"""Recorded builds and what-if: shown without the device, and labelled."""

from __future__ import annotations

import pytest
from digits import quick_session, texts

from widgets.figures import tactic_figure, timing_figure, waterfall_figure
from widgets.panels import RecordedBuild, TacticPanel
from widgets.panels.tactic_view import EVERY
from workbench.builder import BuildState
from workbench.datatypes import DataType
from workbench.lab import Ceilings
from workbench.records import Stage
from workbench.reports import sources_of, tactic_rows, timing_rows, waterfall_rows, what_if_rows
from workbench.reports.recording import Recording, load_recording, record
from workbench.selection import LayerChoice
from workbench.session import SetOption, SetWorkspace

LAYER = "node_Conv_82"


@pytest.fixture(scope="module")
def built() -> BuildState:
    """A tuned build with the tactics of two sources."""
    session = quick_session()
    session.do(SetOption("tactic_sources", ("ONEDNN", "NUMPY")))
    return session.run()


@pytest.fixture(scope="module")
def won(built: BuildState) -> LayerChoice:
    """A layer that a tactic of ONEDNN's won and that NUMPY can run: which one, the clock says."""
    assert built.tuned is not None
    return next(
        choice
        for choice in built.tuned.layers
        if choice.winner.source == "ONEDNN"
        and any(c.source == "NUMPY" and c.eligible and c.timing for c in choice.candidates)
    )


@pytest.fixture(scope="module")
def recording(built: BuildState, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    path = tmp_path_factory.mktemp("recorded") / "digits.json.gz"
    session = quick_session()
    inputs, _ = session.example_inputs(1)
    engine = built.engine()
    ceilings = Ceilings(
        built.device.fingerprint, 1, 1e10, {DataType.FLOAT: 1e11}, {"bytes": "b", "FP32": "p"}
    )
    record(
        built,
        path,
        precision="FP32",
        profile=engine.create_execution_context().profile(inputs, iterations=3),
        sizes=engine.bindings_of({n: a.shape for n, a in inputs.items()}),
        inputs="image [8, 1, 8, 8]",
        ceilings=ceilings,
        date="2020-02-02",
    )
    return load_recording(path)


def test_every_figure_and_table_of_a_recorded_build_is_labelled(recording: Recording):
    panel = RecordedBuild(recording)
    assert "2020-02-02" in recording.label
    shown = (panel.view.figure, panel.view.tactic_chart, panel.waterfall, panel.profile)
    for figure in (*shown, panel.roofline):
        assert recording.label in " ".join(figure.layout.title.text.split("<br>"))
    assert "not measured on this machine" in texts(panel)


def test_a_recorded_build_lists_every_tactic_of_the_layer_that_takes_longest(
    built: BuildState, recording: Recording
):
    assert built.tuned is not None
    slowest = max(built.tuned.layers, key=lambda c: c.median_us or 0.0)
    panel = RecordedBuild(recording)
    assert panel.view.layer == slowest.layer
    assert len(panel.view.tactics.rows) == len(slowest.candidates)


def test_one_source_alone_is_shown_in_figure_and_table(recording: Recording):
    view = RecordedBuild(recording, layer=LAYER).view
    view.show_source("NUMPY")
    drawn = [str(y) for t in view.tactic_chart.data for y in t.y]
    assert drawn and all(y.startswith("NUMPY") for y in drawn)
    assert all(view.tactics.rows["Tactic"].str.startswith("NUMPY"))
    layers = {x.layer: {c.source for c in x.candidates} for x in recording.tuned.layers}
    able = {name: sources for name, sources in layers.items() if "NUMPY" in sources}
    assert len({frozenset(sources) for sources in able.values()}) > 1, "layers differ in sources"
    for layer in able:
        view.chooser.value = layer
        assert (view.layer, view.source, view.filter.value) == (layer, "NUMPY", "NUMPY")
        assert set(view.tactics.rows["Tactic"].str.split().str[0]) == {"NUMPY"}
    view.show_source(EVERY)
    assert set(view.filter.options) >= {EVERY, "ONEDNN", "NUMPY"}


def test_what_a_source_is_worth_is_read_off_the_timings(built: BuildState, won: LayerChoice):
    tuned = built.tuned
    assert tuned is not None
    assert {"ONEDNN", "NUMPY"} <= set(sources_of(tuned))
    nothing = what_if_rows(tuned, sources_of(tuned))
    assert (nothing["Loss (µs)"] == 0).all()
    rows = what_if_rows(tuned, ["NUMPY"]).set_index("Layer")
    numpy = [c for c in won.candidates if c.source == "NUMPY" and c.eligible and c.timing]
    fastest = min(c.timing.median_us for c in numpy if c.timing)
    assert rows.loc[won.layer, "Their median (µs)"] == pytest.approx(fastest)
    assert rows.loc[won.layer, "Loss (µs)"] == pytest.approx(fastest - (won.median_us or 0.0))
    assert what_if_rows(tuned, []).set_index("Layer").loc[won.layer, "With these sources"] == (
        "nothing runs it"
    )


def test_unticking_a_source_names_the_layers_that_lose(recording: Recording, won: LayerChoice):
    what_if = RecordedBuild(recording).what_if
    assert "Nothing changes" in what_if.total.value
    what_if.boxes["ONEDNN"].value = False
    assert won.layer in set(what_if.table.rows["Layer"])
    assert "layouts aside" in what_if.total.value
    assert what_if.sources == ("NUMPY",)
    assert f"{len(what_if.table.rows)} layers run another tactic" in what_if.total.value
    what_if.boxes["NUMPY"].value = False
    nothing = int(what_if.table.rows["Loss (µs)"].isna().sum())
    assert nothing
    assert f"For {nothing} nothing else was timed" in what_if.total.value
    assert "layers run another" not in what_if.total.value


def test_tuning_with_the_ticked_sources_is_an_action_and_uses_what_was_timed():
    session = quick_session()
    session.do(SetOption("tactic_sources", ("ONEDNN", "NUMPY")))
    session.run(Stage.TUNE)
    panel = TacticPanel(session)
    panel.what_if.boxes["ONEDNN"].value = False
    panel.set_sources(panel.what_if.sources)
    assert session.config.tactic_sources == ("NUMPY",)
    state = session.run(Stage.TUNE)
    assert state.tuned is not None
    assert {c.winner.source for c in state.tuned.layers} <= {"NUMPY", "VIEW", "COMPOSED"}
    assert "tactic_sources" in session.code()


def test_where_nothing_was_timed_no_time_is_told():
    session = quick_session()
    session.do(SetOption("builder_optimization_level", 0))
    session.run(Stage.TUNE)
    said = texts(TacticPanel(session))
    assert "Nothing was timed: each layer has the first tactic that fits." in said
    assert "µs" not in said


def test_the_limits_of_the_search_outlive_a_redrawing_and_each_choice_is_one_action():
    session = quick_session()
    session.run(Stage.TUNE)
    panel = TacticPanel(session)
    limits, count = (panel.level, panel.space), len(session.actions)
    assert panel.level.value == session.config.builder_optimization_level
    panel.space.value = 1 << 20
    panel.level.value = 2
    asked = [SetWorkspace(1 << 20), SetOption("builder_optimization_level", 2)]
    assert list(session.actions[count:]) == asked
    assert (panel.level, panel.space) == limits
    assert all(w.comm is not None for w in limits)


def test_a_smaller_workspace_is_an_action_that_waits_for_tune_to_be_asked():
    session = quick_session()
    session.run(Stage.TUNE)
    panel = TacticPanel(session)
    panel.set_workspace(0)
    assert "Tune has not run" in texts(panel)
    state = session.run(Stage.TUNE)
    assert state.tuned is not None
    refused = [str(c.refusal) for x in state.tuned.layers for c in x.candidates if c.refusal]
    assert any("of workspace > limit 0 B" in r for r in refused)


def test_the_bars_of_the_waterfall_end_where_the_next_begin(recording: Recording):
    rows = waterfall_rows(recording.profile)
    figure = waterfall_figure(rows, recording.label)
    bar = figure.data[0]
    ends = [b + x for b, x in zip(bar.base, bar.x, strict=True)]
    assert ends[:-2] == pytest.approx(list(bar.base[1:-1]))
    assert ends[-2] == pytest.approx(ends[-1])
    assert ends[-1] == pytest.approx(recording.profile.caller_us)
    saved = rows.loc[rows["Median (µs)"] < 0, "Part"]
    hatched = [n for n, p in zip(bar.y, bar.marker.pattern.shape, strict=True) if p]
    assert hatched == list(saved)


def test_a_large_networks_figures_show_the_longest_and_say_so(recording: Recording):
    rows = timing_rows(recording.tuned)
    figure = timing_figure(rows, recording.label, most=2)
    chosen = rows[rows["Role"] == "chosen"].nlargest(2, "Median (µs)")
    assert set(figure.layout.yaxis.categoryarray) == set(chosen["Layer"])
    assert f"the 2 longest of {rows['Layer'].nunique()} layers" in figure.layout.title.text
    whole = rows.loc[rows["Role"] == "chosen", "Median (µs)"].sum()
    assert f"{whole:,.1f} µs" in figure.layout.title.text


def test_of_very_many_tactics_the_slowest_are_left_to_the_table(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("widgets.figures.timing.MOST_TACTICS", 2)
    choice = recording.choice(LAYER)
    figure = tactic_figure(tactic_rows(choice), LAYER, recording.label)
    timed = sum(c.timing is not None for c in choice.candidates)
    assert sum(len(t.y) for t in figure.data) in (2, 3), "the chosen one is kept"
    assert f"{timed - 2} slower ones are in the table" in figure.layout.title.text
