"""Joins the files that ``compare.py`` wrote, a job each, into one, and writes it as a page.

    python benchmarks/gpu/table.py RESULT.json JOB.json... [--before EARLIER.json]

Writes RESULT.json and RESULT.md. A row that several files hold is taken from the last. Files of
other devices, drivers or versions than the first are refused. ``--before``: a result whose rows
stay where no job measured them again, each with its own date. ``--note``: what a reader must know
beside the figures; the notes of ``--before`` stay.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
Table = dict[str, Any]

TYPES = {
    "fp16": "FP16",
    "bf16": "BF16",
    "tf32": "TF32",
    "fp32": "FP32",
    "int8": "INT8",
    "fp8": "FP8",
}
QUANTIZED = ("int8", "fp8")
LEAST_RATIO = {
    ("resnet50", 1): 1.4,
    ("resnet50", 32): 1.5,
    ("resnet50", 128): 1.5,
    **{(m, b): 1.2 for m in ("mobilenetv2", "bert", "vit") for b in (1, 32)},
}
"""torch.compile's time by ours in FP16, at least."""
AIM_US = {
    ("resnet50", 1): 260,
    ("resnet50", 32): 900,
    ("resnet50", 128): 2900,
    ("mobilenetv2", 1): 150,
    ("mobilenetv2", 32): 550,
    ("bert", 1): 380,
    ("bert", 32): 1700,
    ("vit", 1): 400,
    ("vit", 32): 2300,
}
"""FP16."""
BEST_AIM_US = {("resnet50", 32): 650, ("resnet50", 128): 2000, ("bert", 32): 1300}
"""In the fastest type of all."""
LARGEST_ERROR_RATIO, LARGEST_GRAPH_ERROR = 1.1, 5e-2


def merged(
    tables: Sequence[Table], before: Table | None = None, notes: Sequence[str] = ()
) -> Table:
    """One table of all rows. Raises ValueError where devices, drivers or versions differ."""
    first = tables[0]
    for t in tables[1:]:
        for key in ("device", "driver", "versions", "protocol"):
            _same(key, t, first)
    if before is not None:
        _same("device", before, first)
    rows: dict[tuple[Any, ...], Row] = {}
    if before is not None:
        rows |= {_key(r): {"date": before["date"], **r} for r in before["rows"]}
    for t in tables:
        for r in t["rows"]:
            # What a job measures anew takes the place of what it could not, and of an old row.
            rows.pop((*_key(r)[:3], "all"), None)
            rows[_key(r)] = {"date": t["date"], **r}
    return {
        **{k: v for k, v in first.items() if k not in ("rows", "date")},
        "date": max(t["date"] for t in tables),
        "notes": [*(before or {}).get("notes", []), *notes],
        "rows": [rows[k] for k in sorted(rows, key=_order)],
    }


def _same(key: str, table: Table, first: Table) -> None:
    if table.get(key) != first.get(key):
        raise ValueError(f"{key}: {table.get(key)} beside {first.get(key)}")


def _key(row: Row) -> tuple[Any, ...]:
    return row["model"], row["batch"], row["type"], row["who"]


def _order(key: tuple[Any, ...]) -> tuple[Any, ...]:
    models = ("resnet50", "mobilenetv2", "bert", "vit")
    who = ("workbench", "eager", "compile", "onnxruntime")
    place = models.index(key[0]) if key[0] in models else len(models)
    last = who.index(key[3]) if key[3] in who else len(who)
    return list(TYPES).index(key[2]), place, key[1], last


def measured_on(table: Table) -> str:
    """When, on what and with which versions a table was measured."""
    versions = ", ".join(f"{n} {v}" for n, v in table["versions"].items())
    driver = table.get("driver", "unknown")
    return f"{table['date']}, {table['device']}, driver {driver}; {versions}"


def markdown(table: Table) -> str:
    """The page: the machine, a table a type, the fastest type of each model, what failed."""
    level = table["protocol"]["builder_optimization_level"]
    lines = [
        "# The GPU engine against PyTorch",
        "",
        f"Written by `benchmarks/gpu/compare.py` and `table.py`, whose first lines say how; "
        f"{measured_on(table)}; builder_optimization_level {level}.",
        "",
        "Medians of a whole run as one CUDA graph, ours and the peers in turns, in µs; in brackets "
        "the minimum. Ratio: the peer's median divided by ours. Compile: torch.compile in its mode "
        "max-autotune. Error: relative L2 distance to PyTorch in float32. **!**: short of what is "
        "demanded of the ratio (Must), of errors (1.1 times PyTorch's in eager mode; 5e-2 from the "
        "reference of the same quantized graph) or of the fastest type (Aim).",
        *(line for note in (*_older(table), *table.get("notes", ())) for line in ("", note)),
    ]
    groups = _groups(table["rows"])
    for kind, title in TYPES.items():
        own = {k: g for k, g in groups.items() if k[2] == kind and _measured(g)}
        if own:
            section = _quantized(own, groups) if kind in QUANTIZED else _floating(own)
            lines += ["", f"## {title}", "", *section]
    lines += _fastest(groups)
    failed = [r for r in table["rows"] if "failed" in r]
    if failed:
        lines += ["", "## Failed", ""]
        lines += [
            f"- {r['model']} b{r['batch']} {r['type']}, {r['who']}: {r['failed']}" for r in failed
        ]
    return "\n".join(lines) + "\n"


def _older(table: Table) -> list[str]:
    """Which rows were not measured at the page's date."""
    found: dict[str, list[str]] = {}
    for r in table["rows"]:
        date = r.get("date", table["date"])
        if date != table["date"] and r["who"] == "workbench":
            found.setdefault(date, []).append(f"{r['model']} b{r['batch']} {TYPES[r['type']]}")
    return [f"Measured on {date}: {', '.join(names)}." for date, names in sorted(found.items())]


Groups = dict[tuple[str, int, str], dict[str, Row]]


def _groups(rows: Iterable[Row]) -> Groups:
    found: Groups = {}
    for r in rows:
        found.setdefault((r["model"], r["batch"], r["type"]), {})[r["who"]] = r
    return found


def _measured(group: Mapping[str, Row]) -> bool:
    return any("median_us" in r for r in group.values())


def _floating(groups: Groups) -> list[str]:
    third = any("onnxruntime" in g for g in groups.values())  # it is installed where it is wanted
    lines = [
        "| Model | Batch | Ours | Aim | Compile | Ratio | Must | Eager | Ratio | "
        + ("ONNX Runtime | Ratio | " if third else "")
        + "Error: ours | PyTorch's | Build, s | Warm, s | Load, ms |",
        "|---|" + "--:|" * (15 if third else 13),
    ]
    for (model, batch, kind), g in groups.items():
        everyone = ("workbench", "eager", "compile", "onnxruntime")
        ours, eager, compiled, other = (g.get(w, {}) for w in everyone)
        half = kind == "fp16"
        least = LEAST_RATIO.get((model, batch)) if half else None
        ratio = _ratio(compiled, ours)
        short = least is not None and ratio is not None and ratio < least
        cells = [
            *(model, str(batch), _time(ours), _plain(AIM_US.get((model, batch)) if half else None)),
            *(_time(compiled), _number(ratio, ".2f", bad=short), _plain(least)),
            *(_time(eager), _number(_ratio(eager, ours), ".2f")),
            *((_time(other), _number(_ratio(other, ours), ".2f")) if third else ()),
            *(_error(ours, eager), _number(eager.get("error"), ".2e")),
            *_seconds(ours),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _quantized(groups: Groups, every: Groups) -> list[str]:
    lines = [
        "PyTorch has no such types for these models: the ratio is to its FP16. Sensitivity: how "
        "far the same graph's NumPy reference moves when each result of arithmetic is moved by up "
        "to its type's unit roundoff: roundings cascade, so that no other kernels can be expected "
        "much nearer to it.",
        "",
        "| Model | Batch | Ours | Ours in FP16 | Compile in FP16 | Ratio | Error of the same graph "
        "| Sensitivity | Error to float32 | Build, s | Warm, s | Load, ms |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for (model, batch, _), g in groups.items():
        ours, half = g.get("workbench", {}), every.get((model, batch, "fp16"), {})
        same = ours.get("error_of_same_graph")
        wrong = same is not None and same > LARGEST_GRAPH_ERROR
        compiled = half.get("compile", {})
        cells = [
            *(model, str(batch), _time(ours), _time(half.get("workbench", {})), _time(compiled)),
            _number(_ratio(compiled, ours), ".2f"),
            *(_number(same, ".2e", bad=wrong), _number(ours.get("sensitivity_of_graph"), ".2e")),
            _number(ours.get("error"), ".2e"),
            *_seconds(ours),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _fastest(groups: Groups) -> list[str]:
    lines: list[str] = []
    for (model, batch), aim in BEST_AIM_US.items():
        times = {
            kind: g["workbench"]["median_us"]
            for (m, b, kind), g in groups.items()
            if (m, b) == (model, batch) and "median_us" in g.get("workbench", {})
        }
        if times:
            kind = min(times, key=lambda k: times[k])
            text = _number(times[kind], ",.1f", bad=times[kind] > aim)
            among = ", ".join(TYPES[k] for k in TYPES if k in times)
            lines.append(f"| {model} | {batch} | {TYPES[kind]} | {among} | {text} | {aim:,} |")
    head = ["", "## The fastest type", "", "| Model | Batch | Type | Measured | Ours | Aim |"]
    return [*head, "|---|--:|---|---|--:|--:|", *lines] if lines else []


def _ratio(peer: Row, ours: Row) -> float | None:
    if "median_us" not in ours or "median_us" not in peer:
        return None
    return peer["median_us"] / ours["median_us"]


def _error(ours: Row, peer: Row) -> str:
    own, other = ours.get("error"), peer.get("error")
    beyond = own is not None and other is not None and own > LARGEST_ERROR_RATIO * other
    return _number(own, ".2e", bad=beyond)


def _time(row: Row) -> str:
    return f"{row['median_us']:,.1f} ({row['min_us']:,.1f})" if "median_us" in row else "-"


def _seconds(row: Row) -> tuple[str, str, str]:
    cells = (row.get(k) for k in ("build_s", "warm_build_s", "load_ms"))
    first, second, third = cells
    return _number(first, ".1f"), _number(second, ".1f"), _number(third, ".0f")


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:,}"


def _number(value: float | None, style: str, *, bad: bool = False) -> str:
    return "-" if value is None else format(value, style) + (" **!**" if bad else "")


def main() -> None:
    """Merge and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("result", type=Path)
    parser.add_argument("jobs", nargs="+", type=Path)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--note", action="append", default=[])
    options = parser.parse_args()
    tables = [json.loads(p.read_text()) for p in options.jobs]
    before = json.loads(options.before.read_text()) if options.before else None
    table = merged(tables, before, options.note)
    options.result.write_text(json.dumps(table, indent=1) + "\n")
    options.result.with_suffix(".md").write_text(markdown(table))


if __name__ == "__main__":
    main()
