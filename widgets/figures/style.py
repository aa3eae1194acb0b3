"""How every figure looks: colours that colour-blind people can tell apart, fonts, titles.

Colours are those of M. Okabe and K. Ito, "Color Universal Design" (2008), and greys.
"""

from __future__ import annotations

from collections.abc import Iterable

import plotly.graph_objects as go

from workbench.operators import OPERATORS

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
INK, MUTED, GRID, OUTLINE = "#1f2933", "#52606d", "#e4e7eb", "#111827"
BLUE, SKY, GREEN, YELLOW = "#0072B2", "#56B4E9", "#009E73", "#F0E442"
ORANGE, RED, PINK, GREY = "#E69F00", "#D55E00", "#CC79A7", "#5b6573"
LIGHT_GREY = "#c3cad3"

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
    """``<device> · measured 2025-01-31``; without dates the device alone."""
    known = sorted({d for d in dates if d})
    if not known:
        return device
    days = known[0] if len(known) == 1 else f"{known[0]} to {known[-1]}"
    return f"{device} · measured {days}"


def finish(
    figure: go.Figure, title: str, subtitle: str = "", *, height: int, legend: bool = True
) -> go.Figure:
    """Title, fonts, margins and grid, the same in every figure."""
    figure.update_layout(
        template="none",
        title={
            "text": f"<b>{title}</b>",
            "subtitle": {"text": subtitle, "font": {"size": 12, "color": MUTED}},
            "x": 0,
            "xanchor": "left",
            "xref": "paper",
            "y": 0.985 if height < 400 else 0.99,
            "yanchor": "top",
            "font": {"size": 15},
            "automargin": False,
        },
        font={"family": FONT, "size": 12, "color": INK},
        height=height,
        autosize=True,
        margin={"l": 12, "r": 16, "t": 64, "b": 12},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        showlegend=legend,
        hoverlabel={"align": "left", "font": {"family": FONT, "size": 12}},
        hovermode="closest",
        modebar={"orientation": "h", "bgcolor": "rgba(0,0,0,0)"},
        legend={"orientation": "h", "x": 0, "y": -0.02, "yanchor": "top", "font": {"size": 12}},
    )
    figure.update_xaxes(automargin=True, gridcolor=GRID, zerolinecolor=GRID, ticks="")
    figure.update_yaxes(automargin=True, gridcolor=GRID, zerolinecolor=GRID, ticks="")
    return figure


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
