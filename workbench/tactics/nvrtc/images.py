"""Operators that read between pixels: Resize, GridSample, AffineGrid, RoiAlign, DeformConv."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from workbench.body import Node
from workbench.datatypes import DataType
from workbench.operators.resizing import AxisPlan, plan_axes, taps_of
from workbench.operators.windows import window_of
from workbench.tactics.nvrtc.elements import Elements, Index, Movement, operand
from workbench.tactics.nvrtc.movements import known, place_within
from workbench.tactics.nvrtc.scalars import lowest, number, working
from workbench.tactics.scalar_text import Untranslatable

HELPERS = r"""
template <typename T> INLINE T cubic_(T x) {
  const T a = T(-0.75), s = x < 0 ? -x : x;
  if (s <= 1) return ((a + 2) * s - (a + 3)) * s * s + 1;
  return s < 2 ? ((a * s - 5 * a) * s + 8 * a) * s - 4 * a : T(0); }
template <typename T> INLINE T linear_(T x) {
  return x <= -1 || x >= 1 ? T(0) : 1 - (x < 0 ? -x : x); }
template <typename T> INLINE T mirrored(T x, T low, T high) {
  const T span = high - low;
  if (span <= 0) return low;
  T folded = (T)fmod((double)(x - low), (double)(2 * span));
  if (folded < 0) folded += 2 * span;
  return low + (folded > span ? 2 * span - folded : folded); }
template <typename T> INLINE int pixel(T x, int size) {
  if (x != x) return 0;
  return x < 0 ? 0 : x > (T)(size - 1) ? size - 1 : (int)x; }
"""
"""cubic_: Keys' kernel of a = -0.75. pixel: a whole place kept inside; NaN reads the first one."""


def _rounded(e: Elements, dtype: DataType, text: str) -> str:
    """A real number as an element: integers to the nearest, clipped to their range."""
    kind = working(dtype)
    if dtype.is_float:
        return e.variable(kind, f"({kind})({text})")
    low, high = (number(v, DataType.DOUBLE) for v in (dtype.info.low, dtype.info.high))
    return e.variable(kind, f"({kind})fmin(fmax(rint({text}), {low}), {high})")


# -- Resize -------------------------------------------------------------------------------
def _resize(e: Elements, node: Node, name: str, index: Index) -> str:
    """Indices and weights of every axis are tables, made as the reference makes them."""
    a, dtype = node.attributes, e.body.types[name].dtype
    given = _resize_operands(e, node)
    cropped = a["coordinate_transformation_mode"] == "tf_crop_and_resize"
    if cropped and e.literal(node.inputs[1]) is None:
        return _cropped(e, node, name, index, plan_axes(a, given))
    kind = working(dtype) if dtype.is_float else "double"
    weighted = DataType.DOUBLE if kind == "double" else DataType.FLOAT
    plans = plan_axes(a, given)
    taps = [taps_of(a, p) for p in plans]
    outside = [
        f"{e.table(t.outside.tolist(), DataType.BOOL)}[{index[p.axis]}]"
        for p, t in zip(plans, taps, strict=True)
        if t.outside.any()
    ]
    nearest = a["mode"] == "nearest"
    result = e.variable(working(dtype) if nearest else kind, "0")
    with e.loops([t.indices.shape[1] for t in taps]) as inner:
        own, weights = list(index), list[str]()
        for p, t, k in zip(plans, taps, inner, strict=True):
            spot = f"({index[p.axis]}) * {t.indices.shape[1]} + {k}"
            table = e.table(t.indices.reshape(-1).tolist(), DataType.INT32)
            own[p.axis] = e.variable("const idx", f"(idx){table}[{spot}]")
            if not nearest:
                weights.append(f"{e.table(t.weights.reshape(-1).tolist(), weighted)}[{spot}]")
        value = e.at(node.inputs[0], tuple(own))
        product = " * ".join([f"({kind}){value}", *weights])
        e.lines.append(f"{result} = {value};" if nearest else f"{result} += {product};")
    if outside:
        fill = number(a["extrapolation_value"], weighted)
        e.lines.append(f"if ({' || '.join(outside)}) {result} = {fill};")
    return result if nearest else _rounded(e, dtype, result)


def _resize_operands(e: Elements, node: Node) -> list[Any]:
    """What the reference plans the axes from; a region that only a run knows is all zeros."""
    x = e.body.types[node.inputs[0]]
    given: list[Any] = [np.broadcast_to(np.float32(0), x.shape), None, None, None]
    for k in (1, 2, 3):
        name = operand(node, k)
        if name and k == 1 and e.literal(name) is None:
            given[k] = np.zeros(e.body.types[name].shape)
        elif name:
            given[k] = np.asarray(known(e, node, k))
    return [v if v is not None and v.size else None for v in given]


_NEAREST = {
    "round_prefer_floor": "ceil({x} - 0.5)",
    "round_prefer_ceil": "floor({x} + 0.5)",
    "floor": "floor({x})",
    "ceil": "ceil({x})",
}


def _cropped(e: Elements, node: Node, name: str, index: Index, plans: Sequence[AxisPlan]) -> str:
    """Resize to a region that only a run knows: places and weights are computed, in double."""
    a, dtype = node.attributes, e.body.types[name].dtype
    if a["exclude_outside"] or a["antialias"] or a["cubic_coeff_a"] != -0.75:
        raise Untranslatable("Resize of a region from data, with weights of its own")
    e.helper(HELPERS)
    count = e.body.types[node.inputs[1]].shape[0] // 2
    axes = a["axes"] or range(len(index))
    places = list[str]()
    for p in plans:
        k = [int(v) % len(index) for v in axes].index(p.axis)
        start, end = (f"(double){e.at(node.inputs[1], (str(v),))}" for v in (k, k + count))
        last, resized = p.length - 1, p.scale * p.length
        inside = f"{start} * {last} + ({end} - {start}) * {last} / 2.0"
        if resized != 1:
            step = f"({end} - {start}) * {last} / {resized - 1!r}"
            inside = f"({index[p.axis]}) * ({step}) + {start} * {last}"
        places.append(e.variable("double", inside))
    mode = a["mode"]
    reach = {"nearest": 0, "linear": 1, "cubic": 2}[mode]
    result = e.variable("double" if reach else working(dtype), "0")
    with e.loops([max(2 * reach, 1)] * len(plans)) as taps:
        own, weights = list(index), list[str]()
        for p, place, tap in zip(plans, places, taps, strict=True):
            spot = _NEAREST[a["nearest_mode"]].format(x=place)
            spot = f"floor({place}) + {tap} - {reach - 1}" if reach else spot
            spot = e.variable("double", spot)
            if reach:
                weights.append(f"{'cubic_' if reach == 2 else 'linear_'}<double>({spot} - {place})")
            own[p.axis] = e.variable("const idx", f"pixel<double>({spot}, {p.length})")
        value = e.at(node.inputs[0], tuple(own))
        product = " * ".join([f"(double){value}", *weights])
        e.lines.append(f"{result} += {product};" if reach else f"{result} = {value};")
    outside = " || ".join(
        f"{x} < 0 || {x} > {p.length - 1}" for x, p in zip(places, plans, strict=True)
    )
    fill = number(a["extrapolation_value"], DataType.DOUBLE)
    e.lines.append(f"if ({outside}) {result} = {fill};")
    return _rounded(e, dtype, result) if reach else result


# -- GridSample ---------------------------------------------------------------------------
def _grid_sample(e: Elements, node: Node, name: str, index: Index) -> str:
    x, dtype = e.body.types[node.inputs[0]].shape, e.body.types[name].dtype
    a, rank = node.attributes, len(x) - 2
    grid = e.body.types[node.inputs[1]].dtype
    kind = "double" if DataType.DOUBLE in (grid, dtype) or not dtype.is_float else "float"
    e.helper(HELPERS)
    nearest, cubic = a["mode"] == "nearest", a["mode"] == "cubic"
    borders = [(0.0, n - 1.0) if a["align_corners"] else (-0.5, n - 0.5) for n in x[2:]]
    places: list[str] = []
    for i, (size, border) in enumerate(zip(x[2:], borders, strict=True)):
        given = e.at(node.inputs[1], (index[0], *index[2:], str(rank - 1 - i)))
        n = f"(({kind}){given} + 1)"
        text = f"{n} / 2 * {size - 1}" if a["align_corners"] else f"({n} * {size} - 1) / 2"
        places.append(_folded(e, a, kind, e.variable(kind, text), size, border))
    result = e.variable(working(dtype) if nearest else kind, "0")
    reach = 0 if nearest else 2 if cubic else 1
    with e.loops([max(2 * reach, 1)] * rank) as taps:
        spots, weights, inside = list[str](), list[str](), list[str]()
        for place, tap, size, border in zip(places, taps, x[2:], borders, strict=True):
            spot = place
            if reach:
                spot = e.variable(kind, f"floor({place}) + ({tap}) - {reach - 1}")
                kernel = "cubic_" if cubic else "linear_"
                weights.append(f"{kernel}<{kind}>({spot} - {place})")
            spots.append(_pixel(e, a["padding_mode"], kind, spot, size, border))
            inside.append(f"{spot} >= 0 && {spot} < {size}")
        with e.branch(" && ".join(inside) if a["padding_mode"] == "zeros" else "true"):
            value = e.at(node.inputs[0], (*index[:2], *spots))
            step = "=" if nearest else "+="
            factors = [value if nearest else f"({kind}){value}", *weights]
            e.lines.append(f"{result} {step} {' * '.join(factors)};")
    return result if nearest else _rounded(e, dtype, result)


def _folded(
    e: Elements, a: Any, kind: str, place: str, size: int, border: tuple[float, float]
) -> str:
    """A coordinate brought inside, as padding asks; whole where the nearest pixel is read."""
    low, high = (f"({kind}){b!r}" for b in border)
    nearest = a["mode"] == "nearest"
    spot = e.variable(kind, f"rint({place})" if nearest else place)
    outside = f"{spot} < {low} || {spot} > {high}"
    if a["padding_mode"] == "border" and a["mode"] != "cubic":
        clipped = f"min_nan(max_nan({spot}, ({kind})0), ({kind}){size - 1})"
        e.lines.append(f"if ({outside}) {spot} = {clipped};")
    elif a["padding_mode"] == "reflection":
        e.lines.append(f"if ({outside}) {spot} = mirrored<{kind}>({spot}, {low}, {high});")
    if nearest:
        e.lines.append(f"{spot} = trunc({spot});")
    return spot


def _pixel(
    e: Elements, padding: str, kind: str, spot: str, size: int, border: tuple[float, float]
) -> str:
    if padding == "reflection":
        low, high = (f"({kind}){b!r}" for b in border)
        folded = f"trunc(mirrored<{kind}>({spot}, {low}, {high}))"
        spot = e.variable(kind, f"{spot} < {low} || {spot} > {high} ? {folded} : {spot}")
    return e.variable("const idx", f"pixel<{kind}>({spot}, {size})")


def _affine_grid(e: Elements, node: Node, name: str, index: Index) -> str:
    kind, sizes = working(e.body.types[name].dtype), e.body.types[name].shape[1:-1]
    terms: list[str] = []
    for k, (i, n) in enumerate(zip(reversed(index[1:-1]), reversed(sizes), strict=True)):
        if node.attributes["align_corners"]:
            point = f"-1 + 2.0 * ({i}) / {n - 1}" if n > 1 else "0.0"
        else:
            point = f"(2.0 * ({i}) + 1) / {n} - 1"
        theta = e.at(node.inputs[0], (index[0], index[-1], str(k)))
        terms.append(f"{theta} * ({kind})({point})")
    terms.append(e.at(node.inputs[0], (index[0], index[-1], str(len(sizes)))))
    return e.variable(kind, " + ".join(terms))


# -- regions ------------------------------------------------------------------------------
def _roi_align(e: Elements, node: Node, name: str, index: Index) -> str:
    """Places in double, as the reference has them."""
    x, a = e.body.types[node.inputs[0]].shape, node.attributes
    kind = working(e.body.types[name].dtype)
    bins = a["output_height"], a["output_width"]
    batch = place_within(e, e.at(node.inputs[2], index[:1]), x[0])
    half = 0.5 if a["coordinate_transformation_mode"] == "half_pixel" else 0.0
    starts, steps, counts = list[str](), list[str](), list[str]()
    for k in (1, 0):  # height, width
        ends = [e.at(node.inputs[1], (index[0], str(c))) for c in (k, k + 2)]
        start, end = (
            e.variable("double", f"(double){v} * {float(a['spatial_scale'])!r} - {half}")
            for v in ends
        )
        length = e.variable("double", f"{end} - {start}" if half else f"fmax({end} - {start}, 1.0)")
        n = bins[1 - k]
        count = f"(int)fmax(ceil({length} / {n}), 0.0)"
        counts.append(e.variable("const int", str(a["sampling_ratio"] or count)))
        steps.append(e.variable("const double", f"{length} / {n}"))
        starts.append(start)
    average = a["mode"] == "avg"
    total = e.variable(kind, "0" if average else lowest(kind))
    with e.loops(counts) as taps:
        pairs = [
            _neighbours(e, f"{start} + ({i}) * {step} + ({tap} + 0.5) * {step} / {count}", size)
            for start, step, tap, count, i, size in zip(
                starts, steps, taps, counts, index[2:], x[2:], strict=True
            )
        ]
        inside = f"({pairs[0][0]} >= 0 && {pairs[1][0]} >= 0)"
        for down in (0, 1):
            for across in (0, 1):
                spots = [f"max({p[s]}, 0)" for p, s in zip(pairs, (down, across), strict=True)]
                weight = " * ".join(
                    p[2] if s else f"(1 - {p[2]})"
                    for p, s in zip(pairs, (down, across), strict=True)
                )
                value = e.at(node.inputs[0], (batch, index[1], *spots))
                term = f"{value} * ({kind})({weight} * {inside})"
                step = f"{total} + {term}" if average else f"max_nan({total}, {term})"
                e.lines.append(f"{total} = {step};")
    none = f"{' * '.join(counts)} == 0"
    result = f"{total} / ({kind})({' * '.join(counts)})" if average else total
    return e.variable(kind, f"{none} ? ({kind})0 : {result}")


def _neighbours(e: Elements, text: str, size: int) -> tuple[str, str, str]:
    """Lower and upper pixel of a sample, and the upper one's weight; lower -1: beyond the image."""
    place = e.variable("double", text)
    outside = e.variable("const bool", f"{place} < -1 || {place} > {size}")
    e.lines.append(f"{place} = fmax({place}, 0.0);")
    low = e.variable("int", f"(int)fmin(floor({place}), {size - 1}.0)")
    high = e.variable("const int", f"{low} >= {size - 1} ? {size - 1} : {low} + 1")
    above = e.variable("const double", f"{low} >= {size - 1} ? 0.0 : {place} - {low}")
    e.lines.append(f"if ({outside}) {low} = -1;")
    return low, high, above


def _max_roi_pool(e: Elements, node: Node, name: str, index: Index) -> str:
    x, kind = e.body.types[node.inputs[0]].shape, working(e.body.types[name].dtype)
    scale = float(node.attributes["spatial_scale"])

    def edge(column: int) -> str:
        return f"(double){e.at(node.inputs[1], (index[0], str(column)))} * {scale!r} + 0.5"

    given = e.at(node.inputs[1], (index[0], "0"))
    batch = place_within(e, f"(i64)rint((double){given})", x[0])
    spans: list[tuple[str, str]] = []
    for k, (i, count) in enumerate(zip(index[2:], node.attributes["pooled_shape"], strict=True)):
        first = e.variable("const int", f"(int)floor({edge(2 - k)})")
        last = e.variable("const int", f"(int)floor({edge(4 - k)})")
        step = e.variable("const double", f"(double)max({last} - {first} + 1, 1) / {count}")
        ends = (f"(int)floor(({i}) * {step})", f"(int)ceil((({i}) + 1) * {step})")
        low, high = (f"min(max({end} + {first}, 0), {x[2 + k]})" for end in ends)
        spans.append((e.variable("const int", low), e.variable("const int", high)))
    best, seen = e.variable(kind, lowest(kind)), e.variable("bool", "false")
    with e.loops([f"({high} - {low})" for low, high in spans]) as taps:
        spots = [f"({t} + {low})" for t, (low, _) in zip(taps, spans, strict=True)]
        value = e.at(node.inputs[0], (batch, index[1], *spots))
        e.lines.append(f"{best} = max_nan({best}, {value}); {seen} = true;")
    return e.variable(kind, f"{seen} ? {best} : ({kind})0")


# -- DeformConv ---------------------------------------------------------------------------
def _deform(e: Elements, node: Node, name: str, index: Index) -> str:
    x, w = (e.body.types[v].shape for v in node.inputs[:2])
    a, kind = node.attributes, working(e.body.types[name].dtype)
    g = window_of(a, x[2:], w[2:])
    per_group, per_offset = w[0] // a["group"], x[1] // a["offset_group"]
    taps_of_kernel = w[2] * w[3]
    total = e.variable(kind, "0")
    e.helper(HELPERS)
    with e.loops([w[1], *w[2:]]) as (c, *taps):
        channel = e.variable("const idx", f"({index[1]}) / {per_group} * {w[1]} + {c}")
        group, spot = f"{channel} / {per_offset}", f"{taps[0]} * {w[3]} + {taps[1]}"
        places: list[str] = []
        for k, (tap, i) in enumerate(zip(taps, index[2:], strict=True)):
            spot_of_kernel = f"({i}) * {g.strides[k]} - {g.begin[k]} + {tap} * {g.dilations[k]}"
            shift = _shift(e, node, index, group, spot, taps_of_kernel, k)
            places.append(e.variable(kind, f"{shift} + ({kind})({spot_of_kernel})"))
        seen = _bilinear(e, node, kind, (index[0], channel), places, x[2:])
        mask = operand(node, 4)
        if mask:
            at = (index[0], f"({group}) * {taps_of_kernel} + {spot}", *index[2:])
            seen = f"{seen} * {e.at(mask, at)}"
        weight = e.at(node.inputs[1], (index[1], c, *taps))
        e.lines.append(f"{total} += {weight} * {seen};")
    bias = operand(node, 3)
    return e.variable(kind, f"{total} + {e.at(bias, (index[1],))}" if bias else total)


def _shift(
    e: Elements, node: Node, index: Index, group: str, spot: str, taps: int, axis: int
) -> str:
    channel = f"(({group}) * {taps} + {spot}) * 2 + {axis}"
    return e.at(node.inputs[2], (index[0], channel, *index[2:]))


def _bilinear(
    e: Elements, node: Node, kind: str, plane: Index, places: Sequence[str], sizes: Sequence[int]
) -> str:
    """Between four pixels; zeros beyond the image."""
    total = e.variable(kind, "0")
    with e.loops([2, 2]) as taps:
        spots = [e.variable(kind, f"floor({p}) + {t}") for p, t in zip(places, taps, strict=True)]
        inside = " && ".join(f"{s} >= 0 && {s} < {n}" for s, n in zip(spots, sizes, strict=True))
        with e.branch(inside):
            value = e.at(node.inputs[0], (*plane, *(f"(idx){s}" for s in spots)))
            weights = [f"linear_<{kind}>({s} - {p})" for s, p in zip(spots, places, strict=True)]
            e.lines.append(f"{total} += {value} * {' * '.join(weights)};")
    return total


IMAGES: dict[str, Movement] = {
    "Resize": _resize,
    "GridSample": _grid_sample,
    "AffineGrid": _affine_grid,
    "RoiAlign": _roi_align,
    "MaxRoiPool": _max_roi_pool,
    "DeformConv": _deform,
}
"""By operator."""
