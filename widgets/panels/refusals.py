"""Refusals: every reason why a model is not imported, and the subgraphs that would be."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import ipywidgets as ipw

from widgets.figures import network_figure
from widgets.parts import button, dropdown, note, plot, row, text_of, title
from widgets.table import Table
from workbench.lab import ModelInspection
from workbench.onnx_parser import ParserErrorRecord
from workbench.reports import file_graph, part_rows, refusal_rows

MOST_CARDS = 8
MOST_BOXES = 600
"""Nodes of a graph that is drawn; a larger one is told by its table."""
UNTYPED = (
    "A subgraph opens as a model of its own where the types of its inputs are known. Export the "
    "model with the types of its inner values (value_info) to open the others."
)
MARKS = {"yes": "good", "no": "bad"}


def refusal_parts(model: ModelInspection) -> list[ipw.Widget]:
    """A card for each distinct reason, and a row for each node it lies in.

    A card has the fields of TensorRT's IParserError, the rule that failed, and the remedy.
    """
    groups: dict[tuple[object, ...], list[ParserErrorRecord]] = {}
    for e in model.errors:
        alike = (e.code, e.node_operator, e.desc, e.rule, e.local_function_stack)
        groups.setdefault(alike, []).append(e)
    parts: list[ipw.Widget] = [_card(alike) for alike in list(groups.values())[:MOST_CARDS]]
    if len(groups) > MOST_CARDS:
        parts.append(
            note(f"Reasons that are not shown here are in the table: {len(groups) - MOST_CARDS}.")
        )
    if len(model.errors) > 1:
        rows = refusal_rows(model)
        if len(groups) <= MOST_CARDS:
            rows = rows.drop(columns=["Remedy", "Found by"])  # the cards have them
        parts.append(title("Every reason, node by node"))
        parts.append(Table(rows, label="reasons", facets=("Operator", "Code", "Rule"), height=320))
    return parts


def _card(alike: Sequence[ParserErrorRecord]) -> ipw.HTML:
    """One reason: where, what is wrong, what would mend it, and which check of ours found it."""
    first = alike[0]
    names = ", ".join(f"'{e.node_name}' (node {e.node})" for e in alike[:4] if e.node >= 0)
    more = f" and {len(alike) - 4} more" if len(alike) > 4 else ""
    inside = f" in function {' > '.join(first.local_function_stack)}"
    where = f"{names}{more}{inside if first.local_function_stack else ''}"
    code = f"{first.code.name} ({first.code.value})"
    head = f"<b>{text_of(first.node_operator or 'the model')}</b> {text_of(where)}"
    facts = (
        ("problem", first.desc),
        ("remedy", first.remedy),
        ("rule", first.rule),
        ("found by", f"{first.func}() in {first.file}:{first.line}"),
    )
    lines = "".join(f"<b>{k}</b><span>{text_of(v)}</span>" for k, v in facts if v)
    return ipw.HTML(
        f'<div class="wb-refusal">{head} <code class="wb-code-name">{text_of(code)}</code>'
        f'<div class="wb-facts">{lines}</div></div>'
    )


class Subgraphs(ipw.VBox):
    """The supported subgraphs of a refused model. ``open_part`` hears the index of one."""

    def __init__(self, model: ModelInspection, open_part: Callable[[int], None]) -> None:
        self.model = model
        supported = [(k, p) for k, p in enumerate(model.parts) if p.supported]
        whole = [(k, p) for k, p in supported if not p.untyped]
        self.table = Table(part_rows(model), label="subgraphs", height=260)
        self.table.marks = MARKS
        parts: list[ipw.Widget] = [
            note(
                "Nodes of one supported subgraph can run together; between two of them lies a node "
                "that is refused. They could run one after another, in this order."
            )
        ]
        if len(whole) < len(supported):
            parts.append(note(UNTYPED))
        if whole:
            largest = max(whole, key=lambda kp: len(kp[1].nodes))[0]
            options = [
                (f"subgraph {k}: {len(p.nodes)} node{'s' * (len(p.nodes) > 1)}", k)
                for k, p in whole
            ]
            self.chooser = dropdown("Take", options, largest, lambda _: None, width="260px")
            self.take = button(
                "Open it as a model",
                lambda: open_part(self.chosen),
                tooltip="cut these nodes out: what they read becomes inputs, what is read of them "
                "becomes outputs",
                primary=True,
            )
            parts.append(row(self.chooser, self.take))
        parts.append(self.table)
        if len(model.nodes) <= MOST_BOXES:
            box, self.figure = plot(
                network_figure(
                    file_graph(model),
                    f"{model.name}: what is refused, and what is left",
                    "the model's own nodes; drag to move, scroll to zoom",
                    colour_by="support",
                ),
                scroll_zoom=True,
            )
            parts.append(box)
        super().__init__(parts, layout={"width": "100%", "overflow": "visible"})

    @property
    def chosen(self) -> int:
        """The index of the subgraph that the button opens."""
        assert self.chooser.value is not None
        return self.chooser.value
