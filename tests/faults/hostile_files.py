"""Models whose weights lie where they must not, or not as they say."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hostile_parts import (
    Case,
    external,
    model,
    node,
)


def outside(
    location: str = "w.bin",
    prepare: Callable[[Path], None] = lambda folder: None,
    *,
    shape: Sequence[int] = (2, 3),
    **entries: Any,
) -> Callable[[Path], Path]:
    """A model in ``folder/model`` whose weight ``w`` lies at ``location``; a secret beside it."""

    def make(folder: Path) -> Path:
        (folder / "secret.bin").write_bytes(bytes(24))
        inside = folder / "model"
        inside.mkdir()
        prepare(inside)
        where = location.replace("FOLDER", str(folder))
        w = external("w", shape, location=where, **entries)
        made = model([node("Add", "x w", "y")], [w])
        (inside / "m.onnx").write_bytes(made.SerializeToString())
        return inside / "m.onnx"

    return make


def data_of(size: int) -> Callable[[Path], None]:
    return lambda folder: (folder / "w.bin").write_bytes(bytes(size)) and None


def hole(folder: Path) -> None:
    """Four gigabytes that take no disk."""
    with (folder / "w.bin").open("wb") as file:
        file.truncate(1 << 32)


def attribute_outside(folder: Path) -> Path:
    """The tensor of a Constant node lies outside, too."""
    (folder / "secret.bin").write_bytes(bytes(24))
    (folder / "model").mkdir()
    constant = node("Constant", "", "w", value=external("w", (2, 3), location="../secret.bin"))
    path = folder / "model" / "m.onnx"
    path.write_bytes(model([constant, node("Add", "x w", "y")]).SerializeToString())
    return path


EXTERNAL = (
    Case("parent folder", outside("../secret.bin"), "ParserError", ("'w'", "../secret.bin")),
    Case(
        "parent folder in the middle",
        outside("data/../../secret.bin", lambda f: (f / "data").mkdir()),
        "ParserError",
        ("'w'", "data/../../secret.bin"),
    ),
    Case("absolute path", outside("FOLDER/secret.bin"), "ParserError", ("'w'", "secret.bin")),
    Case("Windows path", outside("C:\\secret.bin"), "ParserError", ("'w'", "secret.bin")),
    Case("Windows parent", outside("..\\secret.bin"), "ParserError", ("'w'", "secret.bin")),
    Case("password file", outside("/etc/passwd"), "ParserError", ("'w'", "/etc/passwd")),
    Case("no location", outside(""), "ParserError", ("'w'", "location ''")),
    Case("zero byte in the path", outside("w.bin\0x"), "ParserError", ("'w'", "location")),
    Case("endless path", outside("a" * 5000), "ParserError", ("'w'",)),
    Case("folder as data", outside("."), "ParserError", ("'w'",)),
    Case("a Constant node's data outside", attribute_outside, "ParserError", ("'w'",)),
    Case(
        "symbolic link out",
        outside(prepare=lambda f: (f / "w.bin").symlink_to(f.parent / "secret.bin")),
        "ParserError",
        ("'w'", "link out of the model's folder"),
    ),
    Case(
        "folder linked out",
        outside("up/secret.bin", lambda f: (f / "up").symlink_to(f.parent)),
        "ParserError",
        ("'w'", "link out of the model's folder"),
    ),
    Case(
        "link to itself",
        outside(prepare=lambda f: (f / "w.bin").symlink_to(f / "w.bin")),
        "ParserError",
        ("'w'", "w.bin"),
    ),
    Case(
        "hard link out",
        outside(prepare=lambda f: os.link(f.parent / "secret.bin", f / "w.bin")),
        "ParserError",
        ("'w'", "2 hard links"),
    ),
    Case(
        "named pipe",
        outside(prepare=lambda f: os.mkfifo(f / "w.bin")),
        "ParserError",
        ("'w'", "w.bin"),
    ),
    Case(
        "link to a device",
        outside(prepare=lambda f: (f / "w.bin").symlink_to("/dev/zero")),
        "ParserError",
        ("'w'", "/dev/zero"),
    ),
    Case("process memory", outside("/proc/self/mem"), "ParserError", ("'w'", "/proc/self/mem")),
    Case("negative offset", outside(prepare=data_of(24), offset=-4), "ParserError", ("'w'", "-4")),
    Case("negative length", outside(prepare=data_of(24), length=-4), "ParserError", ("'w'", "-4")),
    Case(
        "offset past the end",
        outside(prepare=data_of(24), offset=2**62),
        "ParserError",
        ("'w'", str(2**62), "24 bytes"),
    ),
    Case(
        "length past the end",
        outside(prepare=data_of(24), length=2**62),
        "ParserError",
        ("'w'", "24 bytes"),
    ),
    Case(
        "offset of 5000 digits",
        outside(prepare=data_of(24), offset="9" * 5000),
        "ParserError",
        ("'w'", "offset"),
    ),
    Case(
        "length that is not the shape's",
        outside(prepare=data_of(100), length=100),
        "ParserError",
        ("'w'", "100 bytes", "24 bytes"),
    ),
    Case(
        "sparse file longer than the shape",
        outside(prepare=hole),
        "ParserError",
        ("'w'", f"{1 << 32} bytes", "24 bytes"),
    ),
    Case(
        "shape larger than its sparse file",
        outside(prepare=hole, shape=(1 << 20, 1 << 20)),
        "ParserError",
        ("'w'", f"{1 << 42} bytes"),
    ),
)
