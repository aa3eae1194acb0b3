"""Reading and writing the user's files: errors name the path, and nothing is lost."""

from __future__ import annotations

import contextlib
import os
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from workbench.errors import FileError

Array = np.ndarray[Any, Any]


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a killed process leaves the old one or the new one.

    Raises FileError, and leaves the old one, where it cannot be written.
    """
    write_in_parts(path, (data,))


def write_in_parts(path: Path, parts: Iterable[bytes]) -> None:
    """As ``write_atomically``, of what is too large to hold at once."""
    if path.is_dir():
        raise FileError("it is a folder", place=str(path), remedy="give the name of a file")
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    try:
        # "x": never over another's file; the mode is what the caller's umask makes of it.
        with temporary.open("xb") as f:
            for part in parts:
                f.write(part)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except BaseException as e:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(e, OSError):
            missing = isinstance(e, FileNotFoundError)
            remedy = f"make the folder {path.parent} first" if missing else ""
            raise FileError(
                f"cannot be written: {_words(e)}", place=str(path), remedy=remedy
            ) from e
        raise


def cache_folder(name: str) -> Path:
    """Where this user's caches live, by the rules of the operating system; one folder a name.

    Windows: %LOCALAPPDATA%; macOS: ~/Library/Caches; else $XDG_CACHE_HOME or ~/.cache: the
    system's own settings.
    """
    own = Path("inference-workbench") / name
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA")
        return (Path(base) if base else Path.home() / "AppData" / "Local") / own
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / own
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / own


def check_target(path: Path) -> None:
    """Raise FileError now if a file could not be written there in the end."""
    if path.is_dir():
        raise FileError("it is a folder", place=str(path), remedy="give the name of a file")
    if not path.parent.is_dir():
        raise FileError(
            "its folder is missing", place=str(path), remedy=f"make {path.parent} first"
        )


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are missing. Raises FileError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise FileError(f"no folder can be made there: {_words(e)}", place=str(path)) from None


def read_file(path: Path) -> bytes:
    """A file's bytes. Raises FileError."""
    try:
        return path.read_bytes()
    except OSError as e:
        raise FileError(f"cannot be read: {_words(e)}", place=str(path)) from None


def read_npz(path: Path) -> dict[str, Array]:
    """The arrays of an npz file, by name. Raises FileError where it is something else."""
    try:
        with path.open("rb") as f:
            if not zipfile.is_zipfile(f):
                raise ValueError("it is no npz file of named arrays")
            f.seek(0)
            with np.load(f, allow_pickle=False) as stored:
                return dict(stored)
    except OSError as e:
        raise FileError(f"cannot be read: {_words(e)}", place=str(path)) from None
    except (ValueError, EOFError, zipfile.BadZipFile) as e:
        raise FileError(
            f"cannot be read: {e}", place=str(path), remedy="write it with numpy.savez"
        ) from None


def _words(error: OSError) -> str:
    return error.strerror or str(error)
