"""Drop: a place in the notebook that takes a file of the person's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from widgets.patience import patient

_HERE = Path(__file__).parent
LARGEST = (1 << 31) - 1
"""Bytes of a protobuf message: no larger model is one file."""


class Drop(anywidget.AnyWidget):
    """Takes one file at a time, by drag and drop, or from the person's own file chooser.

    on_file hears its name and bytes once all of it is there.
    """

    _esm = patient(_HERE / "drop.js")
    _css = _HERE / "drop.css"
    prompt = traitlets.Unicode().tag(sync=True)
    suffix = traitlets.Unicode().tag(sync=True)
    largest = traitlets.Int(LARGEST).tag(sync=True)

    def __init__(self, prompt: str, *, suffix: str, on_file: Callable[[str, bytes], None]) -> None:
        self._on_file = on_file
        self._bytes = bytearray()
        super().__init__(prompt=prompt, suffix=suffix, layout={"width": "100%"})
        self.on_msg(self._hear)

    def give(self, name: str, data: bytes) -> None:
        """What a drop does."""
        self._on_file(Path(name).name, data)

    def _hear(self, _: object, content: Any, buffers: Any) -> None:
        if not isinstance(content, dict) or content.get("kind") != "piece":
            return
        offset, size = content["offset"], content["size"]
        if offset == 0:
            self._bytes = bytearray()
        if offset != len(self._bytes):
            self._fail(f"byte {offset:,} came where byte {len(self._bytes):,} was next")
            return
        self._bytes += buffers[0]
        if len(self._bytes) < size:
            if buffers[0].nbytes:
                self.send({"kind": "next"})
            else:
                self._fail(f"it ended after {offset:,} of {size:,} bytes")
            return
        whole, self._bytes = bytes(self._bytes), bytearray()
        self.send({"kind": "done"})
        self.give(str(content["name"]), whole)

    def _fail(self, reason: str) -> None:
        """Forget the file; its reason is shown where it was dropped."""
        self._bytes = bytearray()
        self.send({"kind": "failed", "reason": reason})
