"""Run the lessons and save them: ``python tests/lessons/save_lessons.py [NOTEBOOK...]``.

Each is run in an empty folder, as a person's copy is. Plotly figures get a PNG beside them (needs
kaleido and Chromium), and what differs from machine to machine without being an output is left
out: widget state, times of execution, versions. Nothing is saved if a cell raises, writes to
stderr or names this machine.
"""

from __future__ import annotations

import base64
import getpass
import json
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

import kaleido
import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
PLOTLY = "application/vnd.plotly.v1+json"
LARGEST_JSON = 200_000
"""Bytes; a larger figure is saved as its PNG alone."""
LARGEST_NOTEBOOK = 1_500_000
KEPT = ("kernelspec", "language_info", "requires")
WIDTH, SCALE = 900, 1.25


def save(path: Path) -> None:
    """Run one notebook and write it back. Raises SystemExit, saying what is wrong with it."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=600,
            kernel_name="python3",
            record_timing=False,
            store_widget_state=False,
            resources={"metadata": {"path": folder}},
        )
        client.execute()
    notebook.metadata = {k: v for k, v in notebook.metadata.items() if k in KEPT}
    notebook.metadata["kernelspec"] = {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            _tidy(output, f"{path.name}, cell {cell.id}")
    text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    if len(text.encode()) > LARGEST_NOTEBOOK:
        raise SystemExit(f"{path.name}: {len(text.encode())} bytes, more than {LARGEST_NOTEBOOK}")
    nbformat.validate(notebook)
    path.write_text(text)
    print(f"{path}: {len(notebook.cells)} cells, {len(text.encode()) / 1e3:.0f} kB")


def _tidy(output: dict[str, Any], place: str) -> None:
    """Add a figure's picture; refuse what must not be published."""
    if output.get("name") == "stderr":
        raise SystemExit(f"{place} writes to stderr: {output['text']}")
    data = output.get("data", {})
    if PLOTLY in data:
        data.pop("text/html", None)
        data["image/png"] = _png(data[PLOTLY])
        if len(json.dumps(data[PLOTLY])) > LARGEST_JSON:
            del data[PLOTLY]
    text = json.dumps(output)
    names = (socket.gethostname(), str(ROOT), str(Path.home()), tempfile.gettempdir())
    found = [n for n in names if len(n) > 5 and n in text]
    if found or f"/{getpass.getuser()}/" in text:
        raise SystemExit(f"{place} names this machine: {', '.join(found) or 'the user'}")


def _png(figure: dict[str, Any]) -> str:
    """A figure as base64, on white: a dark page must not show through it."""
    layout = {**figure["layout"], "paper_bgcolor": "white", "plot_bgcolor": "white"}
    size = {"width": WIDTH, "height": layout.get("height", 450), "scale": SCALE}
    drawn = {"data": figure["data"], "layout": layout}
    png = kaleido.calc_fig_sync(drawn, opts={"format": "png", **size})
    return base64.b64encode(png).decode() + "\n"


def main(names: list[str]) -> None:
    paths = [Path(n) for n in names] or sorted(ROOT.glob("notebooks/*.ipynb"))
    kaleido.start_sync_server(silence_warnings=True)
    try:
        for path in paths:
            save(path)
    finally:
        kaleido.stop_sync_server(silence_warnings=True)


if __name__ == "__main__":
    main(sys.argv[1:])
