"""Figures show the rows that they were given: the same numbers, nothing invented."""

from __future__ import annotations

import time

import comm
import numpy as np
import pytest
from digits import quick_session

from widgets.figures import (
    before_after_figure,
    calibration_figure,
    linked_boxes,
    memory_figure,
    network_figure,
    precision_figure,
    profile_figure,
    set_highlight,
    sizes_figure,
    tactic_figure,
    timing_figure,
)
from widgets.figures.graph import show_boxes
from widgets.figures.layered import RANK_HEIGHT
from widgets.figures.style import (
    FAMILIES,
    PALETTE,
    PRECISION_COLOURS,
    contrast,
    text_on,
    unique_labels,
)
from widgets.plotly_once import Figure
from workbench.builder import BuildState
from workbench.config import Calibrator
from workbench.datatypes import DataType
from workbench.records import Stage
from workbench.reports import (
    GraphView,
    histogram_rows,
    layer_rows,
    memory_rows,
    network_graph,
    profile_rows,
    tactic_rows,
    timing_rows,
)
from workbench.reports.graph import GraphNode

DEVICE = "CPU: test"


@pytest.fixture(scope="module")
def state() -> BuildState:
    return quick_session(DataType.INT8).run()


def boxes(figure):
    return [t for t in figure.data if t.type == "bar" and t.name != "highlighted"]


def test_a_graph_has_one_box_for_each_input_layer_and_output(state: BuildState):
    view = network_graph(state.network)
    figure = network_figure(view, "after Fuse")
    drawn = sorted(i for t in boxes(figure) for i in t.customdata)
    assert drawn == list(range(len(view.nodes)))


def test_hovering_a_box_tells_type_precision_and_model_nodes(state: BuildState):
    view = network_graph(state.network)
    figure = network_figure(view, "after Fuse")
    texts = {i: h for t in boxes(figure) for i, h in zip(t.customdata, t.hovertext, strict=True)}
    index = next(i for i, n in enumerate(view.nodes) if n.id == "node_Conv_81")
    assert "INT8[batch, 32, 8, 8]" in texts[index]
    assert "precision: INT8" in texts[index]
    assert "node_relu" in texts[index]


def test_colouring_by_precision_groups_boxes_by_precision(state: BuildState):
    view = network_graph(state.network)
    figure = network_figure(view, "after Fuse", colour_by="precision")
    assert {t.name for t in boxes(figure)} == {n.precision or "Input, output" for n in view.nodes}


def test_an_unknown_colouring_is_refused(state: BuildState):
    with pytest.raises(ValueError, match="colour_by"):
        network_figure(network_graph(state.network), "graph", colour_by="taste")


def test_a_fused_layer_is_linked_to_its_model_nodes_and_back(state: BuildState):
    before = network_graph(state.networks[Stage.PARSE])
    after = network_graph(state.network)
    fused = next(i for i, n in enumerate(after.nodes) if n.id == "node_Conv_81")
    left, right = linked_boxes((before, after), (1, fused))
    assert right == (fused,)
    assert {before.nodes[i].id for i in left} == set(after.nodes[fused].origin)
    for i in left:
        assert fused in linked_boxes((before, after), (0, i))[1]


def test_the_outline_moves_to_what_is_linked(state: BuildState):
    before = network_graph(state.networks[Stage.PARSE])
    after = network_graph(state.network)
    figure = before_after_figure(before, after, "Fuse")
    outlines = [t for t in figure.data if t.name == "highlighted"]
    assert [len(t.x) for t in outlines] == [0, 0]
    chosen = linked_boxes((before, after), (1, 2))
    set_highlight(figure, chosen)
    assert [len(t.x) for t in outlines] == [len(c) for c in chosen]


def test_timing_bars_are_the_medians_and_their_sum_is_in_the_title(state: BuildState):
    rows = timing_rows(state.tuned)
    figure = timing_figure(rows, DEVICE)
    for trace in figure.data:
        part = rows[rows["Role"] == trace.name]
        assert list(trace.x) == part["Median (µs)"].tolist()
        assert list(trace.error_x.array) == part["Spread (µs)"].tolist()
    total = sum(c.median_us for c in state.tuned.layers)
    assert f"{total:,.1f} µs" in figure.layout.title.text


def test_a_bar_that_leaves_the_axis_says_its_value(state: BuildState):
    rows = timing_rows(state.tuned)
    rows.loc[rows["Role"] == "runner-up", "Median (µs)"] = 987654.0
    figure = timing_figure(rows, DEVICE)
    assert figure.layout.xaxis.range[1] < 987654
    assert any("987,654" in a.text for a in figure.layout.annotations)


def test_figures_name_unit_device_and_day(state: BuildState):
    rows = timing_rows(state.tuned)
    title = timing_figure(rows, DEVICE).layout.title.text
    assert "µs" in title
    assert DEVICE in title
    assert rows["Date"].iloc[0] in title


def test_tactic_bars_are_every_timed_tactic(state: BuildState):
    choice = state.tuned.layers[1]
    rows = tactic_rows(choice)
    figure = tactic_figure(rows, choice.layer, DEVICE)
    drawn = sorted(x for t in figure.data for x in t.x)
    assert drawn == sorted(c.timing.median_us for c in choice.candidates if c.timing)


def test_precision_bars_count_every_layer_once_a_row(state: BuildState):
    figure = precision_figure(layer_rows(state.tuned), DEVICE)
    for k in range(3):
        assert sum(t.x[k] for t in figure.data) == len(state.tuned.layers)


def test_memory_boxes_lie_where_the_plan_puts_the_tensors(state: BuildState):
    memory = state.memory[0]
    figure = memory_figure(
        memory_rows(memory),
        DEVICE,
        arena_bytes=memory.arena_bytes,
        total_bytes=memory.total_bytes,
    )
    drawn = {
        c[0]: (b * 1024, h * 1024)
        for t in figure.data
        for c, b, h in zip(t.customdata, t.base, t.y, strict=True)
    }
    assert drawn == {
        t.name: (memory.offsets[t.name], pytest.approx(t.nbytes)) for t in memory.lifetimes
    }


def test_a_histogram_shows_every_value_and_splits_at_the_threshold(state: BuildState):
    found = max(state.calibration.ranges.values(), key=lambda r: r.clipped_share)
    figure = calibration_figure(
        histogram_rows(found),
        tensor=found.tensor,
        threshold=found.threshold,
        scale=found.scale,
        clipped_share=found.clipped_share,
        source=DEVICE,
    )
    assert sum(sum(t.y) for t in figure.data) == found.histogram.total
    kept, clipped = figure.data
    assert max(kept.x) <= found.threshold < min(clipped.x, default=np.inf)
    assert figure.layout.shapes[0].x0 == found.threshold
    assert figure.layout.yaxis.type == "log"


def test_where_nothing_is_clipped_no_bar_says_so(state: BuildState):
    found = state.calibration.with_calibrator(Calibrator.MINMAX).ranges["relu"]
    facts = {"scale": found.scale, "clipped_share": found.clipped_share, "source": DEVICE}
    figure = calibration_figure(
        histogram_rows(found), tensor="relu", threshold=found.threshold, **facts
    )
    kept, clipped = figure.data
    assert (sum(kept.y), len(clipped.y)) == (found.histogram.total, 0)


def test_profile_bars_and_residual_sum_to_the_end_to_end_time(state: BuildState):
    context = state.engine().create_execution_context()
    profile = context.profile({"image": np.zeros((8, 1, 8, 8), np.float32)}, iterations=3)
    figure = profile_figure(profile_rows(profile), DEVICE)
    lengths = {(b, x) for t in figure.data for b, x in zip(t.base, t.x, strict=True)}
    assert sum(x for _, x in lengths) == pytest.approx(profile.end_to_end_us)
    residual = next(t for t in figure.data if t.name == "residual")
    assert residual.base[0] + residual.x[0] == pytest.approx(profile.end_to_end_us)


def test_the_size_band_spans_min_to_max_with_opt_marked():
    figure = sizes_figure([[{"batch": 1}, {"batch": 8}, {"batch": 32}]], DEVICE)
    band, low, mid, high = figure.data
    assert (band.base[0], band.base[0] + band.x[0]) == (1, 32)
    assert [t.x[0] for t in (low, mid, high)] == [1, 8, 32]


def test_a_figure_lies_on_white_so_that_its_ink_is_read_on_a_dark_page(state: BuildState):
    assert state.tuned is not None
    times = timing_figure(timing_rows(state.tuned), DEVICE)
    for figure in (network_figure(network_graph(state.network), "a"), times):
        paper, ink = figure.layout.paper_bgcolor, figure.layout.font.color
        assert contrast(ink, paper) > 7


def test_text_on_every_colour_has_contrast_of_at_least_4_5():
    colours = {*PALETTE, *PRECISION_COLOURS.values(), *(c for _, c, _ in FAMILIES)}
    assert min(contrast(text_on(c), c) for c in colours) >= 4.5


def test_names_that_shorten_to_the_same_text_stay_apart():
    labels = unique_labels([f"a_very_long_name_{i}_that_goes_on" for i in range(3)] * 2, 10)
    assert len(set(labels)) == 6


def test_a_graph_of_2000_layers_is_drawn_within_half_a_second():
    kinds = ("Conv", "Relu", "Add", "MaxPool")
    nodes = [
        GraphNode(f"n{i}", kinds[i % 4], kinds[i % 4], (f"n{i}",), "FP32", "") for i in range(2000)
    ]
    edges = [(i - 1, i, "") for i in range(1, 2000)] + [(i - 4, i, "") for i in range(4, 2000, 8)]
    view = GraphView(tuple(nodes), tuple(edges))
    network_figure(view, "first")  # imports
    best = float("inf")
    for _ in range(3):  # the machine may be busy
        start = time.perf_counter()
        network_figure(view, "2000 layers")
        best = min(best, time.perf_counter() - start)
    assert best < 0.5


def chain(length: int) -> GraphView:
    """Layers in a row."""
    nodes = [GraphNode(f"n{i}", "Relu", "Relu", (f"n{i}",), "", "") for i in range(length)]
    return GraphView(tuple(nodes), tuple((i, i + 1, "FP32") for i in range(length - 1)))


def test_a_long_graph_shows_the_outlined_box_and_moves_to_another() -> None:
    figure = network_figure(chain(100), "long", highlight=[60])
    places = [y for _, y in figure.layout.meta["sides"][0]["boxes"]]
    low, high = figure.layout.yaxis.range
    assert low < places[60] < high
    assert not low < places[5] < high
    show_boxes(figure, [[5]])
    low, high = figure.layout.yaxis.range
    assert low < places[5] < high


def test_a_long_graph_shows_its_top_and_its_end_fills_the_window() -> None:
    top = network_figure(chain(100), "long")
    end = network_figure(chain(100), "long", highlight=[99])
    places = [y for _, y in top.layout.meta["sides"][0]["boxes"]]
    assert top.layout.yaxis.range[1] > places[0]
    assert places[99] - 2 * RANK_HEIGHT < end.layout.yaxis.range[0] < places[99]


def test_a_figure_goes_to_the_page_with_its_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that draws it before they arrive would show it empty."""
    sent: list[dict] = []
    create = comm.create_comm

    def noting(**given):
        sent.append(given["data"]["state"])
        return create(**given)

    monkeypatch.setattr(comm, "create_comm", noting)
    made = Figure(network_figure(chain(3), "short"))
    opened = [s for s in sent if "_widget_data" in s]
    assert [len(s["_widget_data"]) for s in opened] == [len(made.data)]
    assert opened[0]["_widget_layout"]["height"] == made.layout.height
    assert opened[0]["_config"]["displaylogo"] is False
