"""``workbench lab``: JupyterLab on lesson 1."""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from workbench.bundle import bundled
from workbench.cli.text import say
from workbench.errors import ConfigError
from workbench.files import make_folder, read_file, write_atomically

NAME = "lab"
HELP = "open JupyterLab on the first lesson"
FIRST = "01_first_engine.ipynb"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``workbench lab``."""
    parser.add_argument(
        "--folder", default="workbench-lessons", help="where your copies of the lessons are kept"
    )
    parser.add_argument("--no-browser", action="store_true", help="print the address only")
    parser.add_argument("rest", nargs="*", help="more arguments for jupyter lab, after --")


def main(options: argparse.Namespace) -> int:
    """The lessons' copies, then JupyterLab; its exit status."""
    if importlib.util.find_spec("jupyterlab") is None:
        raise ConfigError("JupyterLab is not installed", remedy="python -m pip install jupyterlab")
    if os.geteuid() == 0 and "--allow-root" not in options.rest:
        raise ConfigError(
            "JupyterLab refuses to run as root",
            remedy="run it as another user, or: workbench lab -- --allow-root",
        )
    folder = Path(options.folder)
    copied = copy_lessons(folder)
    say(f"Lessons: {folder.resolve()} ({copied} new; yours are never overwritten)")
    command = [sys.executable, "-m", "jupyter", "lab", str(folder / FIRST)]
    if options.no_browser:
        command.append("--no-browser")
    return subprocess.call([*command, *options.rest])


def copy_lessons(folder: Path) -> int:
    """Copy the lessons that are not there yet; returns how many."""
    make_folder(folder)
    copied = 0
    for lesson in sorted(bundled("notebooks").glob("*.ipynb")):
        target = folder / lesson.name
        if not target.exists():
            write_atomically(target, read_file(lesson))
            copied += 1
    return copied
