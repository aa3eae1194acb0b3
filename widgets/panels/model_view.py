"""ModelView: a model inspection as a person reads it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import ipywidgets as ipw

from widgets.panels.refusals import Subgraphs, refusal_parts
from widgets.parts import button, row, text_of, tiles
from widgets.table import Table
from workbench.errors import WorkbenchError
from workbench.lab import ModelInspection, WeightStatistics, total_bytes
from workbench.reports import interface_rows, operator_rows, weight_rows

AT_ONCE = 64 << 20
"""Bytes of weights whose values are looked at without being asked."""
MARKS = {"kernel": "good", "refused": "bad"}
LEGEND = {
    "kernel": "every layer has a kernel, of the sources named",
    "reference": "NumPy's reference computes it, correctly and slowly",
    "sizes only": "reads no data: known as soon as the sizes are",
    "sizes known later": "only the data decides its sizes; its kernel is prepared then",
    "host": "the interpreter on the host, value by value",
    "no layer": "its nodes became weights",
    "supported": "imported at this opset; open a supported subgraph to see what runs it",
    "refused": "see Refusals",
}
"""What a value of the column Support means."""


class ModelView(ipw.VBox):
    """Interface, operators, weights; of a refused model its refusals and subgraphs first.

    open_part: hears the index of a subgraph to open. run: runs work that may take long, with a
    message; the statistics of large weights are such work.
    """

    def __init__(
        self,
        model: ModelInspection,
        *,
        open_part: Callable[[int], None],
        run: Callable[[Callable[[], None], Callable[[], None], str], None],
    ) -> None:
        self.model = model
        self._run = run
        self.statistics: dict[str, WeightStatistics | None] = {}
        self.interface = Table(interface_rows(model), label="inputs and outputs", height=190)
        self.interface.add_class("wb-plain")
        self.operators = Table(
            operator_rows(model), label="operators", facets=("Support",), height=330
        )
        self.operators.marks = MARKS
        self.weights = Table(weight_rows(model), label="weights", facets=("Type",), height=330)
        self.subgraphs = Subgraphs(model, open_part) if model.parts and model.errors else None
        self.weights_box = ipw.VBox(layout={"overflow": "visible"})
        self.weights_box.children = tuple(self._weights())
        self.tabs = ipw.Tab(layout={"width": "auto"})
        shown = self._tabs()
        self.tabs.children = tuple(ipw.VBox(list(parts)) for _, parts in shown)
        self.tabs.titles = tuple(name for name, _ in shown)
        self.tabs.selected_index = 0
        self.tabs.observe(self._opened, "selected_index")
        super().__init__(
            [_head(model), _facts(model), *_notes(model), self.interface, self.tabs],
            layout={"width": "100%", "overflow": "visible"},
        )
        self.add_class("wb-model")

    def _tabs(self) -> list[tuple[str, Sequence[ipw.Widget]]]:
        model = self.model
        shown: list[tuple[str, Sequence[ipw.Widget]]] = []
        if model.errors:
            shown.append((f"Refusals ({len(model.errors)})", refusal_parts(model)))
        if self.subgraphs is not None:
            shown.append((f"Subgraphs ({len(model.parts)})", [self.subgraphs]))
        shown.append((f"Operators ({len(model.operators)})", [self.operators, _legend(model)]))
        if model.weights:
            shown.append((f"Weights ({len(model.weights)})", [self.weights_box]))
        return shown

    # -- weights --------------------------------------------------------------------------
    def look_at_values(self) -> None:
        """Read every weight's values: smallest, largest, NaNs, infinities."""
        found: dict[str, WeightStatistics | None] = {}
        unread: list[str] = []

        def work() -> None:
            for w in self.model.weights:
                try:
                    found[w.name] = w.statistics()
                except WorkbenchError as error:
                    unread.append(f"{w.name}: {error.problem}")

        def done() -> None:
            self.statistics = found
            self.weights.rows = weight_rows(self.model, found)
            self.weights_box.children = tuple(self._weights(unread))

        if total_bytes(self.model.weights) <= AT_ONCE:
            work()
            done()
        else:
            self._run(work, done, f"looking at the weights of {self.model.name}")

    def _opened(self, change: dict[str, int]) -> None:
        name = self.tabs.titles[change["new"]] if change["new"] is not None else ""
        small = total_bytes(self.model.weights) <= AT_ONCE
        if name.startswith("Weights") and not self.statistics and small:
            self.look_at_values()

    def _weights(self, unread: Sequence[str] = ()) -> list[ipw.Widget]:
        nbytes = total_bytes(self.model.weights)
        parts: list[ipw.Widget] = []
        if not self.statistics and nbytes > AT_ONCE:
            look = button(
                f"Look at all values ({_size(nbytes)})",
                self.look_at_values,
                tooltip="smallest, largest, NaNs and infinities; all of it is read once",
            )
            parts.append(row(look))
        odd = [n for n, s in self.statistics.items() if s and (s.nans or s.infinities)]
        if odd:
            more = f" and {len(odd) - 5} more" if len(odd) > 5 else ""
            parts.append(_warning(f"Not every value is a number: {', '.join(odd[:5])}{more}."))
        parts += [_warning(f"Cannot be read: {text}") for text in unread[:5]]
        return [*parts, self.weights]


def _head(model: ModelInspection) -> ipw.HTML:
    """Its name, where it comes from, what it says of itself."""
    facts = [model.source] if model.source not in (model.name, "bytes") else []
    facts += [_size(model.nbytes)] if model.nbytes else []
    facts += [f"opset {v}" if d == "ai.onnx" else f"{d} {v}" for d, v in model.opsets.items()]
    facts += [f"{k} {v}" for k, v in model.facts.items() if v and k != "graph"]
    return ipw.HTML(
        f'<div class="wb-head"><b>{text_of(model.name)}</b>'
        f"<span>{text_of(' · '.join(facts))}</span></div>"
    )


def _facts(model: ModelInspection) -> ipw.HTML:
    network = model.network
    pairs = [_tile(len(network.model_nodes) if network else len(model.nodes), "ONNX node")]
    if network is not None:
        pairs.append(_tile(network.num_layers, "layer"))
    else:
        pairs.append(_tile(len(model.refused_nodes), "refused node"))
        pairs.append(_tile(len(model.errors), "reason"))
    count, stored = _tile(len(model.weights), "weight")
    size = f" · {_size(total_bytes(model.weights))}" if model.weights else ""
    pairs.append((count + size, stored))
    if network is not None and network.symbols:
        some = len(network.symbols) - 1
        pairs.append((", ".join(network.symbols[:4]), "dynamic size" + "s" * bool(some)))
    if network is not None:
        kernels = sum(u.support in ("kernel", "sizes only", "no layer") for u in model.operators)
        pairs.append((f"{kernels} of {len(model.operators)}", "operators with kernels here"))
    return tiles(pairs)


def _tile(count: int, what: str) -> tuple[str, str]:
    return f"{count or 'none'}", what if count == 1 else f"{what}s"


def _legend(model: ModelInspection) -> ipw.HTML:
    """What the kinds of support that occur mean."""
    there = {u.support for u in model.operators}
    words = "; ".join(f"<b>{k}</b>: {text_of(v)}" for k, v in LEGEND.items() if k in there)
    asked = ""
    if model.supported:
        at = ", ".join(f"{s} = {n}" for s, n in model.sizes.items())
        asked = (
            f". Asked of {text_of(model.device)}{' at ' * bool(at)}{text_of(at)}, of the layers as "
            "parsed: Fold may still remove one, and Fuse join it to others."
        )
    return ipw.HTML(f'<div class="wb-note">{words}{asked}</div>')


def _notes(model: ModelInspection) -> list[ipw.Widget]:
    if not model.notes:
        return []
    lines = "".join(f"<li>{text_of(n)}</li>" for n in model.notes)
    return [ipw.HTML(f'<ul class="wb-notes">{lines}</ul>')]


def _warning(text: str) -> ipw.HTML:
    return ipw.HTML(f'<div class="wb-warning" role="status">{text_of(text)}</div>')


def _size(nbytes: int) -> str:
    """Bytes in a unit that people read."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= size:
            return f"{nbytes / size:,.1f} {unit}"
    return f"{nbytes} B"
