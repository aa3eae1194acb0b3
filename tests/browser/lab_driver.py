"""JupyterLab in headless Chromium, driven reliably.

    with lab(folder) as address, chromium() as page:
        open_notebook(page, address, "lesson.ipynb")
        run_all(page)

Chromium is the system's (Debian package ``chromium``). The server has settings, workspaces and
runtime files of its own, so that nothing of the person's is read or changed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, expect, sync_playwright

TOKEN = "lab"
CHROMIUM = "/usr/bin/chromium"
PATIENCE_MS = 60_000
"""How long a click or an expectation waits: a busy machine is no failure."""
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-sync",
    "--force-color-profile=srgb",
)
ERRORS = (
    '.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.stderr"], '
    '.jp-RenderedText[data-mime-type="application/vnd.jupyter.error"]'
)


@contextlib.contextmanager
def lab(folder: Path, *, python_path: Path | None = None, theme: str = "Light") -> Iterator[str]:
    """A JupyterLab server on ``folder``; gives its address.

    python_path: put first on the kernels' PYTHONPATH, so that they import a checkout.
    """
    home = Path(tempfile.mkdtemp(prefix="lab-home-"))
    _write_settings(home, theme)
    port = _free_port()
    environment = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
    }
    if python_path is not None:
        kept = [p for p in environment.get("PYTHONPATH", "").split(os.pathsep) if p]
        environment["PYTHONPATH"] = os.pathsep.join([str(python_path), *kept])
    log = home / "lab.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            _command(folder, port),
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        address = f"http://127.0.0.1:{port}"
        try:
            _wait_until_up(process, address, log)
            yield address
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)  # its own process group only
            process.wait(20)
            shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def chromium(*, width: int = 1500, height: int = 1100, dark: bool = False) -> Iterator[Page]:
    """A page of headless Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, headless=True, args=list(FLAGS)
        )
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
        )
        context.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        try:
            yield context.new_page()
        finally:
            browser.close()


def complaints_of(page: Page) -> list[str]:
    """What the page's console calls an error and its scripts raise, from now on."""
    found: list[str] = []
    page.on("console", lambda m: found.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: found.append(str(error)))
    return found


def open_notebook(page: Page, address: str, path: str) -> None:
    """Open a notebook alone on the page and wait until its kernel can run cells."""
    # /doc/tree is single-document mode; ?reset drops any saved layout; the token sets the cookie.
    page.goto(f"{address}/doc/tree/{path}?token={TOKEN}&reset", wait_until="domcontentloaded")
    page.locator("#jupyterlab-splash").wait_for(state="detached")
    page.locator(".jp-NotebookPanel .jp-Cell").first.wait_for()
    wait_for_kernel(page)


def wait_for_kernel(page: Page, *, timeout_s: float = 60) -> None:
    """Wait until the kernel is attached, connected and idle."""
    # Not the toolbar's circle: it says idle before a kernel is attached, and Run All is then lost.
    page.wait_for_function(
        """() => {
          const widget = window.jupyterapp?.shell?.currentWidget;
          const kernel = widget?.sessionContext?.session?.kernel;
          return widget?.context?.isReady && kernel && kernel.connectionStatus === 'connected'
            && kernel.status === 'idle';
        }""",
        timeout=timeout_s * 1000,
    )


def run_all(page: Page) -> bool:
    """Run every cell; returns when all have run or one raised: whether all ran."""
    return bool(_command_in_lab(page, "notebook:run-all-cells"))


def run_cell(page: Page, index: int) -> bool:
    """Run one cell, by its place; whether it ran without an error."""
    page.evaluate(
        """(index) => {
          const notebook = window.jupyterapp.shell.currentWidget.content;
          notebook.activeCellIndex = index;
          notebook.deselectAll();
        }""",
        index,
    )
    return bool(_command_in_lab(page, "notebook:run-cell"))


def save(page: Page) -> None:
    """Save the notebook."""
    _command_in_lab(page, "docmanager:save")


def cell_errors(page: Page) -> list[str]:
    """What cells wrote to stderr, and the errors they raised."""
    return page.locator(ERRORS).all_inner_texts()


def scroll_to(page: Page, selector: str) -> None:
    """Bring an element to the top of the notebook's window."""
    page.locator(selector).first.evaluate("e => e.scrollIntoView({block: 'start'})")
    page.wait_for_timeout(200)


def click_mark(page: Page, mark: Locator) -> None:
    """Click a bar or point of a Plotly figure.

    Plotly's drag layer lies over its marks and gets the pointer's events, so that a Locator's own
    click waits in vain.
    """
    mark.scroll_into_view_if_needed()
    box = mark.bounding_box()
    assert box is not None, "the mark is not drawn"
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.wait_for_timeout(150)  # a click counts on what is hovered
    page.mouse.click(x, y)


def write_notebook(path: Path, cells: list[str]) -> None:
    """A new notebook of code cells."""
    notebook: dict[str, Any] = {
        "cells": [
            {
                "cell_type": "code",
                "id": f"cell-{i}",
                "metadata": {},
                "execution_count": None,
                "outputs": [],
                "source": source,
            }
            for i, source in enumerate(cells)
        ],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    path.write_text(json.dumps(notebook, indent=1))


def _command_in_lab(page: Page, name: str) -> Any:
    return page.evaluate(
        """async (name) => {
          const app = window.jupyterapp;
          await app.shell.currentWidget.sessionContext.ready;
          return await app.commands.execute(name);
        }""",
        name,
    )


def _command(folder: Path, port: int) -> list[str]:
    return [
        *(sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root"),
        *("--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0"),
        f"--IdentityProvider.token={TOKEN}",
        f"--ServerApp.root_dir={folder.resolve()}",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--LabApp.expose_app_in_browser=True",
    ]


def _write_settings(home: Path, theme: str) -> None:
    folder = home / "settings" / "@jupyterlab" / "apputils-extension"
    folder.mkdir(parents=True)
    # Without this a toast about news covers the page.
    news = {"fetchNews": "false", "checkForUpdates": False}
    (folder / "notification.jupyterlab-settings").write_text(json.dumps(news))
    (folder / "themes.jupyterlab-settings").write_text(json.dumps({"theme": f"JupyterLab {theme}"}))


def _wait_until_up(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    for _ in range(240):
        if process.poll() is not None:
            raise RuntimeError(f"JupyterLab ended: {log.read_text()[-2000:]}")
        try:
            urllib.request.urlopen(f"{address}/api/status?token={TOKEN}", timeout=1).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.25)
    raise RuntimeError(f"JupyterLab did not answer within 60 s: {log.read_text()[-2000:]}")


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
