"""How every figure looks: colours that colour-blind people can tell apart, fonts, titles.

Colours are those of M. Okabe and K. Ito, "Color Universal Design" (2008), and greys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from workbench.operators import OPERATORS

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
INK, MUTED, GRID, OUTLINE = "#1f2933", "#52606d", "#e4e7eb", "#111827"
BLUE, SKY, GREEN, YELLOW = "#0072B2", "#56B4E9", "#009E73", "#F0E442"
ORANGE, RED, PINK, GREY = "#E69F00", "#D55E00", "#CC79A7", "#5b6573"
LIGHT_GREY = "#c3cad3"

WIDEST = 128
"""Characters of a subtitle's line: what a notebook 1,100 pixels wide has room for."""
PALETTE = (BLUE, ORANGE, GREEN, PINK, SKY, RED, YELLOW, GREY)
AXIS: Mapping[str, Any] = MappingProxyType(
    {"automargin": True, "gridcolor": GRID, "zerolinecolor": GRID, "ticks": ""}
)
LEGEND: Mapping[str, Any] = MappingProxyType(
    {
        "orientation": "h",
        "x": 0,
        "xref": "container",
        "y": 0,
        "yref": "container",
        "yanchor": "bottom",
        "font": {"size": 12},
        "itemsizing": "constant",
    }
)

FAMILIES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("Input, output", GREY, ()),
    ("Convolution", BLUE, ("convolution",)),
    ("Matrix product", RED, ("matrix",)),
    ("Pointwise", GREEN, ("pointwise",)),
    ("Normalization", PINK, ("normalization",)),
    ("Pooling, reduction", SKY, ("pooling", "reduction")),
    ("Quantize, cast", ORANGE, ("quantization",)),
    ("Movement, shape", YELLOW, ("movement", "shape", "constant")),
    ("Other", LIGHT_GREY, ()),
)
"""Title, colour and operator families of each kind of box, in the legend's order."""
PRECISION_COLOURS: dict[str, str] = {
    "FP32": BLUE,
    "BF16": GREEN,
    "FP16": PINK,
    "INT8": ORANGE,
    "FP8": RED,
}
"""By the label of a DataType; any other is LIGHT_GREY."""

_PART_COLOURS = (BLUE, PINK, SKY, YELLOW, GREEN)

_FAMILY_OF = {family: title for title, _, families in FAMILIES for family in families}
_OPERATORS = OPERATORS.values() if isinstance(OPERATORS, dict) else OPERATORS
_FAMILY_OF_OPERATOR = {o.name: _FAMILY_OF.get(o.family, "Other") for o in _OPERATORS}
_SPECIAL = {
    "Input": "Input, output",
    "Output": "Input, output",
    "Cast": "Quantize, cast",
    "Pointwise": "Pointwise",
}
_FAMILY_COLOURS = {title: colour for title, colour, _ in FAMILIES}


def family_of(kind: str) -> str:
    """The legend's title for a box of this operator, or ``Input``, ``Output``, ``Pointwise``."""
    return _SPECIAL.get(kind) or _FAMILY_OF_OPERATOR.get(kind, "Other")


def family_colour(title: str) -> str:
    """Colour of a family's boxes."""
    return _FAMILY_COLOURS[title]


def precision_colour(label: str) -> str:
    """Colour of a precision label; ``INT8 (emulated)`` is that of ``INT8``."""
    return PRECISION_COLOURS.get(label.split(" ")[0], LIGHT_GREY)


def support_colour(label: str) -> str:
    """Colour of a part of a refused model: ``refused``, ``subgraph 0``, ``subgraph 2``..."""
    if label == "refused":
        return RED
    return _PART_COLOURS[int(label.removeprefix("subgraph ")) % len(_PART_COLOURS)]


def text_on(colour: str) -> str:
    """Black or white, whichever is easier to read on a colour; the contrast is at least 4.5."""
    return max(("#ffffff", "#111111"), key=lambda ink: contrast(ink, colour))


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two ``#rrggbb`` colours, 1 to 21. Source: WCAG 2.2, section 1.4.3."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def provenance(device: str, dates: Iterable[str] = ()) -> str:
    """``<device> · measured 2025-01-31``; without dates, or where it has them, the device alone."""
    known = sorted({d for d in dates if d})
    if not known or all(d in device for d in known):
        return device
    days = known[0] if len(known) == 1 else f"{known[0]} to {known[-1]}"
    return f"{device} · measured {days}"


def said_of(rows: pd.DataFrame, inputs: str, device: str) -> str:
    """What ran, a remark on its times, and where: the end of a subtitle."""
    facts = (inputs, str(rows.attrs.get("remark", "")), device)
    return "".join(f" · {fact}" for fact in facts if fact)


def chart(
    traces: Sequence[Mapping[str, Any]],
    title: str,
    subtitle: str = "",
    *,
    height: int,
    layout: Mapping[str, Any] = MappingProxyType({}),
) -> go.Figure:
    """A figure with the title, fonts, margins and grid that every figure has.

    traces and ``layout`` are plain values: built once, a figure costs a few milliseconds, where
    Plotly's ``update_layout`` costs tens. ``layout`` wins over what is the same everywhere.
    """
    heading = f"<b>{title}</b>"
    lines = _lines(subtitle)
    if subtitle:
        heading += f'<br><span style="font-size:12px">{"<br>".join(lines)}</span>'
    more = 16 * (len(lines) - 1)
    margin = {"l": 12, "r": 20, "t": 64, "b": 12, **layout.get("margin", {})}
    axes = {k: {**AXIS, **v} for k, v in layout.items() if k.startswith(("xaxis", "yaxis"))}
    return go.Figure(
        data=[dict(t) for t in traces],
        layout={
            "template": {"layout": {"colorway": list(PALETTE)}},
            "title": {
                "text": heading,
                "x": 0,
                "xref": "container",
                "xanchor": "left",
                "y": 1,
                "yref": "container",
                "yanchor": "top",
                "pad": {"l": 12, "t": 20},
                "font": {"size": 15},
            },
            "font": {"family": FONT, "size": 12, "color": INK},
            "height": height + more,
            "autosize": True,
            "paper_bgcolor": "#ffffff",  # the ink is dark, and a notebook's page may be, too
            "plot_bgcolor": "rgba(0,0,0,0)",
            "hoverlabel": {"align": "left", "font": {"family": FONT, "size": 12}},
            "hovermode": "closest",
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "#7b8794", "activecolor": "#3e4c59"},
            **layout,
            "margin": {**margin, "t": margin["t"] + more},
            "xaxis": axes.get("xaxis", AXIS),
            "yaxis": axes.get("yaxis", AXIS),
            **axes,
            "legend": {**LEGEND, **layout.get("legend", {})},
        },
    )


def downwards(names: Sequence[str]) -> dict[str, Any]:
    """A vertical axis of named bars, the first on top."""
    return {
        "categoryorder": "array",
        "categoryarray": list(names),
        "autorange": "reversed",
        "showgrid": False,
    }


def _lines(subtitle: str) -> list[str]:
    """The subtitle broken at its separators: Plotly does not wrap."""
    lines = [""]
    for part in subtitle.split(" · "):
        if lines[-1] and len(lines[-1]) + len(part) > WIDEST:
            lines.append(part)
        else:
            lines[-1] += f" · {part}" if lines[-1] else part
    return lines


def shorten(text: str, width: int) -> str:
    """``text`` cut in its middle to ``width`` characters: names differ at their ends."""
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return f"{text[:head]}…{text[-(width - 1 - head) :]}"


def unique_labels(names: Iterable[str], width: int) -> list[str]:
    """Each name shortened; equal results are numbered, so that no two bars merge."""
    seen: dict[str, int] = {}
    labels: list[str] = []
    for name in names:
        label = shorten(name, width)
        seen[label] = seen.get(label, 0) + 1
        labels.append(label if seen[label] == 1 else f"{label} #{seen[label]}")
    return labels
