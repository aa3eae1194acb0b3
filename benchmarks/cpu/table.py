"""The comparison as Markdown: per type, ours and each peer's time divided by ours."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

PEERS = {"onnxruntime": "ORT", "openvino": "OpenVINO"}
Row = Mapping[str, Any]


def joined(before: Sequence[Row], rows: Sequence[Row]) -> list[Row]:
    """The earlier rows, each replaced where its job was measured again, and the new ones."""

    def by_job(rows: Sequence[Row]) -> dict[tuple[Any, ...], list[Row]]:
        found: dict[tuple[Any, ...], list[Row]] = {}
        for r in rows:
            found.setdefault((r["type"], r["model"], r["threads"]), []).append(r)
        return found

    return [r for job in {**by_job(before), **by_job(rows)}.values() for r in job]


def markdown(table: Mapping[str, Any]) -> str:
    """A page: the machine, one table a type, geometric means over the large models."""
    versions = ", ".join(f"{n} {v}" for n, v in table["versions"].items())
    lines = [
        "# The CPU engine against ONNX Runtime and OpenVINO",
        "",
        f"Written by `benchmarks/cpu/compare.py`, whose first lines say how; {table['date']}, "
        f"{table['cpu']}, {table['cpus']} CPUs ({', '.join(table['features'])}); {versions}; load "
        f"average at the start {table['load_average_at_start'][0]}.",
        "",
        "Ratio: the peer's time divided by ours, above 1 where ours is faster; of medians, and in "
        "brackets of minima. Error: relative L2 distance to the float32 model run in float64, its "
        f"root mean square over {_inputs(table['rows'])}. "
        "Memory: peak of resident memory while running, with Python and the engine's libraries.",
    ]
    older: dict[str, dict[str, None]] = {}
    for r in table["rows"]:
        if r.get("date", table["date"]) != table["date"]:
            older.setdefault(r["date"], {})[f"{r['model']} {r['type']}"] = None
    for date, names in sorted(older.items()):
        lines += ["", f"Measured on {date}: {', '.join(names)}."]
    if not table["bf16_native"]:
        lines += ["", "This CPU has no BF16 arithmetic: those rows are not measured."]
    for kind in ("f32", "bf16", "int8"):
        rows = [r for r in table["rows"] if r["type"] == kind]
        if rows:
            lines += ["", f"## {kind}", "", *_section(rows)]
    return "\n".join(lines) + "\n"


def _inputs(rows: Iterable[Row]) -> str:
    """Over how many inputs the errors are, by the models' names."""
    models: dict[int, dict[str, None]] = {}
    for r in rows:
        models.setdefault(r.get("inputs", 1), {})[r["model"]] = None
    if len(models) == 1:
        return f"{next(iter(models))} input{'s' * (models.keys() != {1})}"
    most = max(models, key=lambda count: len(models[count]))
    others = (f"{', '.join(names)}: {count}" for count, names in models.items() if count != most)
    return f"{most} inputs ({'; '.join(others)})"


def _section(rows: list[Row]) -> list[str]:
    groups: dict[tuple[str, int], dict[str, Row]] = {}
    for r in rows:
        groups.setdefault((r["model"], r["threads"]), {})[r["engine"]] = r
    lines = [
        "| Model | Threads | Ours, µs | vs ORT | vs OpenVINO | Error: ours | ORT | OpenVINO "
        "| MiB: ours | ORT | OpenVINO |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for (model, threads), found in groups.items():
        ours = found.get("workbench", {})
        cells = [model, str(threads), _number(ours, "median_us", ",.0f")]
        cells += [_ratio(ours, found.get(p, {})) for p in PEERS]
        everyone = ("workbench", *PEERS)
        cells += [_number(found.get(e, {}), "error", ".2e") for e in everyone]
        cells += [_number(found.get(e, {}), "peak", ",.0f", 1 << 20) for e in everyone]
        lines.append(f"| {' | '.join(cells)} |")
    for threads in sorted({t for _, t in groups}):
        large = [f for (_, t), f in groups.items() if t == threads and _is_large(f)]
        if large:
            means = [_summary(large, p) for p in PEERS]
            lines.append(f"| geometric mean (worst) of the large | {threads} | | {means[0]} | "
                         f"{means[1]} | | | | | | |")  # fmt: skip
    failed = [r for r in rows if "failed" in r]
    lines += [""] * bool(failed)
    lines += [
        f"- {r['model']}, {r['threads']} threads, {r['engine']}: {r['failed']}" for r in failed
    ]
    return lines


def _is_large(found: Mapping[str, Row]) -> bool:
    return any(r["large"] for r in found.values())


def _number(row: Row, key: str, style: str, unit: int = 1) -> str:
    return format(row[key] / unit, style) if key in row else "-"


def _ratio(ours: Row, peer: Row) -> str:
    if "median_us" not in ours or "median_us" not in peer:
        return "-"
    median, least = (peer[k] / ours[k] for k in ("median_us", "min_us"))
    return f"{median:.2f} ({least:.2f})"


def _summary(groups: Iterable[Mapping[str, Row]], peer: str) -> str:
    ratios = [
        g[peer]["median_us"] / g["workbench"]["median_us"]
        for g in groups
        if "median_us" in g.get(peer, {}) and "median_us" in g.get("workbench", {})
    ]
    if not ratios:
        return "-"
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    return f"{mean:.2f} ({min(ratios):.2f})"
