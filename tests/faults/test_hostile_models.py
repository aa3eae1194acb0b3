"""A hostile model costs one clear error: in time, in memory, and without reading other files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hostile_files import EXTERNAL
from hostile_graphs import LIES, STRUCTURE
from hostile_parts import Case
from hostile_runs import RUNS
from hostile_sizes import BOMBS, HARMLESS, constant_of_shape

from workbench.errors import ParserError
from workbench.onnx_parser import parse_model

SECONDS, BYTES = 5, 2 << 30
SOURCES = ("ONEDNN", "NUMBA", "NUMPY")

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="memory and opened files are watched through Linux"
)


class Runner:
    """The process in whose forks the cases run."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def run(self, case: Case, source: str = "-") -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{case.name}\t{source}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="module")
def runner() -> Generator[Runner]:
    command = [sys.executable, str(Path(__file__).with_name("hostile_runner.py"))]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        yield Runner(process)
        assert process.stdin is not None
        process.stdin.close()


def check(case: Case, found: dict[str, Any]) -> None:
    assert case.error in found["error"].split("/"), found
    for name in case.names:
        assert name in found["text"], found
    assert "; " in found["text"], f"no remedy: {found}"
    within_limits(found)


def within_limits(found: dict[str, Any]) -> None:
    assert found["seconds"] < SECONDS, found
    assert found["grown"] < BYTES, found
    assert found["outside"] == [], found


def named(case: Case) -> str:
    return case.name.replace(" ", "_")


@pytest.mark.parametrize("case", [*EXTERNAL, *STRUCTURE, *LIES, *BOMBS], ids=named)
def test_a_hostile_model_is_not_imported(case: Case, runner: Runner) -> None:
    check(case, runner.run(case))


@pytest.mark.parametrize("case", RUNS, ids=named)
def test_a_hostile_model_ends_in_a_named_error_whichever_source_runs_it(
    case: Case, runner: Runner
) -> None:
    slow = "oop" in case.name  # the host runs loops, whichever source is asked first
    for source in SOURCES[:1] if slow else SOURCES:
        check(case, runner.run(case, source))


@pytest.mark.parametrize("case", HARMLESS, ids=named)
def test_a_model_that_only_looks_hostile_is_imported_in_time(case: Case, runner: Runner) -> None:
    found = runner.run(case)
    assert found["error"] == "", found
    within_limits(found)


@pytest.mark.parametrize("place", ["/dev/zero", ".", "fifo"])
def test_what_is_no_regular_file_is_not_read_as_a_model(place: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ParserError, match="is no regular file; give the path of an"):
        parse_model(tmp_path / place)


def test_a_model_file_beyond_what_protobuf_reads_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "m.onnx").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ParserError, match=r"1099511627776 bytes.*external data"):
        parse_model(tmp_path / "m.onnx")


def test_the_limit_of_a_computed_tensor_is_the_callers_to_set() -> None:
    model = constant_of_shape(1 << 16)(Path()).SerializeToString()
    assert parse_model(model).num_layers == 2
    with pytest.raises(ParserError, match=r"bomb.*FLOAT\[65536\].*256 KiB.*max_tensor_bytes"):
        parse_model(model, max_tensor_bytes=1 << 16)
