"""DataFiles: the files beside a model that hold its tensors, memory-mapped.

Only regular files inside the model's folder are opened. The rules are those of onnx's own checker
(docs/Security.md of onnx 1.21): no path out of the folder, no link at the end of the path when the
file is opened, and no second hard link, because that may be any file of this file system.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NoReturn

import numpy as np

from workbench.body import Array
from workbench.onnx_parser.problems import ErrorCode, refuse

SHOWN = 200
"""Characters of a text of the model's that a message quotes."""


@dataclass(frozen=True)
class Extent:
    """Where a tensor's bytes lie. location: as the model spells the path."""

    path: Path
    location: str
    offset: int
    length: int


class DataFiles:
    """The data files of one model. folder: where they may lie; None: nowhere (bytes only)."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._files: dict[Path, Array] = {}

    def extent(self, entries: dict[str, str], name: str) -> Extent:
        """Where tensor ``name`` lies; nothing is opened. Raises ParserError naming the tensor.

        entries: the tensor's ``external_data``.
        """
        location = entries.get("location", "")
        path = self._located(location, name)
        with _reading(path, location, name):
            size = _checked(path.lstat(), location, name)
        offset = _count(entries, "offset", 0, name)
        length = _count(entries, "length", max(0, size - offset), name)
        if offset + length > size:
            refuse(
                ErrorCode.INVALID_VALUE,
                f"tensor '{name}' lies at bytes {offset} to {offset + length} of "
                f"'{shown(location)}', which has {size} bytes",
                rule="external_data",
                remedy="copy the complete data file beside the model",
            )
        return Extent(path, location, offset, length)

    def read(self, extent: Extent, name: str) -> Array:
        """The bytes: a read-only view of the mapped file. Raises ParserError."""
        if extent.path not in self._files:
            self._files[extent.path] = _mapped(extent.path, extent.location, name)
        return self._files[extent.path][extent.offset : extent.offset + extent.length]

    def _located(self, location: str, name: str) -> Path:
        if self._folder is None:
            refuse(
                ErrorCode.INVALID_GRAPH,
                f"tensor '{name}' lies in the file '{shown(location)}', and bytes have no folder",
                rule="external_data",
                remedy="parse the model from its file, or store the weights inside it",
            )
        posix, windows = PurePosixPath(location), PureWindowsPath(location)
        if (
            not location
            or "\0" in location
            or posix.is_absolute()
            or windows.anchor
            or ".." in posix.parts
            or ".." in windows.parts
        ):
            _misplaced(
                f"tensor '{name}' has the external location '{shown(location)}', "
                "which is not a relative path inside the model's folder"
            )
        folder = self._folder.resolve()
        try:
            path = (folder / location).resolve()
        except (OSError, RuntimeError) as e:
            # A name that is too long; a link to itself is a RuntimeError in Python 3.11 and 3.12.
            _misplaced(
                f"tensor '{name}' lies in '{shown(location)}', which leads nowhere: {_of(e)}"
            )
        if not path.is_relative_to(folder):
            _misplaced(
                f"tensor '{name}': '{shown(location)}' is a link out of the model's folder, "
                f"to {path}"
            )
        return path


def _checked(found: os.stat_result, location: str, name: str) -> int:
    """The size of a regular file without a second hard link. Raises ParserError."""
    lies = f"tensor '{name}' lies in '{shown(location)}'"
    if not stat.S_ISREG(found.st_mode):
        _misplaced(f"{lies}, which is no regular file")
    if found.st_nlink > 1:
        _misplaced(
            f"{lies}, which has {found.st_nlink} hard links: it may be a file from outside the "
            "model's folder",
            "put a copy of the data file, and no link, beside the model",
        )
    return found.st_size


def _mapped(path: Path, location: str, name: str) -> Array:
    """The file as bytes that stay on disk until they are used."""
    # Without waiting for the other end of a pipe, and through no link put there meanwhile.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with (
        _reading(path, location, name),
        os.fdopen(os.open(path, flags | getattr(os, "O_BINARY", 0)), "rb") as file,
    ):
        size = _checked(os.fstat(file.fileno()), location, name)
        return np.asarray(np.memmap(file, np.uint8, "r")) if size else np.zeros(0, np.uint8)


@contextmanager
def _reading(path: Path, location: str, name: str) -> Generator[None]:
    """Errors of the file system as ParserErrors that name the tensor."""
    lies = f"tensor '{name}' lies in '{shown(location)}'"
    try:
        yield
    except FileNotFoundError:
        refuse(
            ErrorCode.INVALID_VALUE,
            f"{lies}, and {path.parent} has no such file",
            rule="external_data",
            remedy="copy the data file beside the model",
        )
    except OSError as e:
        refuse(
            ErrorCode.INVALID_VALUE,
            f"{lies}, which cannot be read: {_of(e)}",
            rule="external_data",
            remedy="make the data file readable, or copy it beside the model again",
        )


def _misplaced(
    desc: str,
    remedy: str = "move the data file into the model's folder and name it by its file name",
) -> NoReturn:
    refuse(ErrorCode.INVALID_VALUE, desc, rule="external_data", remedy=remedy)


def _of(error: Exception) -> str:
    return shown(getattr(error, "strerror", None) or str(error))


def shown(text: str) -> str:
    """A text of the model's, as a message quotes it."""
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text)} characters)"


def _count(entries: dict[str, str], key: str, default: int, name: str) -> int:
    text = entries.get(key)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        refuse(
            ErrorCode.INVALID_VALUE,
            f"tensor '{name}' has the external {key} '{shown(text)}', "
            "which is not a count of bytes",
            rule="external_data",
            remedy="re-export the model",
        )
    return int(text)
