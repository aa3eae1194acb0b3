"""Compiler processes that print, die or do not start fail one kernel; no Triton, no GPU needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from workbench.tactics.compile_processes import CompileError
from workbench.tactics.triton import compiler, worker
from workbench.tactics.triton.compiler import Compilers, unpack_code
from workbench.tactics.triton.kernel import Kernel

SECONDS = 60
ANSWERS = """
import base64, json, os, sys
for line in sys.stdin:
    text = json.loads(line)["text"]
    if text == "dies":
        os._exit(3)
    if text == "dies once" and not os.path.exists({flag!r}):
        open({flag!r}, "w").close()
        os._exit(3)
    if text == "half a line":
        print('{{"meta"', end="", flush=True)
        os._exit(0)
    if text == "prints":
        print("ptxas info: spilled")
    if text == "wrong":
        answer = {{"error": "NameError: nowhere"}}
    elif text == "no base64":
        answer = {{"meta": {{}}, "code": "a"}}
    else:
        code = base64.b64encode(text.encode()).decode()
        answer = {{"meta": {{"shared": 0}}, "code": code}}
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def compilers(tmp_path, monkeypatch):
    program = tmp_path / "worker.py"
    program.write_text(ANSWERS.format(flag=str(tmp_path / "died")))
    monkeypatch.setattr(compiler, "WORKER", program)
    made = Compilers(1)
    yield made
    made.close()


def asked(compilers, text):
    return compilers.submit(Kernel(text, (), (1, 1, 1)), "sm_90")


@pytest.mark.parametrize("text", ["dies", "half a line", "prints", "no base64"])
def test_a_process_that_fails_is_told_of_and_the_next_kernel_gets_another(compilers, text):
    lost = asked(compilers, text)
    kept = asked(compilers, "sound")
    assert isinstance(lost.exception(SECONDS), CompileError)
    assert unpack_code(kept.result(SECONDS)) == ({"shared": 0}, b"sound")


def test_the_reason_names_the_status_with_which_the_process_ended(compilers):
    assert "ended with 3" in str(asked(compilers, "dies").exception(SECONDS))


def test_a_kernel_whose_process_died_is_compiled_again_when_asked_again(compilers):
    first = asked(compilers, "dies once")
    assert first.exception(SECONDS) is not None
    assert unpack_code(asked(compilers, "dies once").result(SECONDS))[1] == b"dies once"


def test_what_the_compiler_says_of_a_kernel_is_kept(compilers):
    first = asked(compilers, "wrong")
    assert "nowhere" in str(first.exception(SECONDS))
    assert asked(compilers, "wrong") is first


def test_a_process_that_does_not_start_fails_its_kernel_and_not_the_build(compilers, monkeypatch):
    with monkeypatch.context() as m:
        m.setattr(sys, "executable", "/nowhere/python")
        assert "nowhere" in str(asked(compilers, "early").exception(SECONDS))
    assert unpack_code(asked(compilers, "early").result(SECONDS))[1] == b"early"


def test_what_a_worker_prints_by_any_way_is_not_taken_for_an_answer(tmp_path):
    folder = tmp_path / "triton"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "import os, types\n"
        "print('hello from the import')\n"
        "os.write(1, b'ptxas info\\n')\n"
        "os.system('echo from a child')\n"
        "knobs = types.SimpleNamespace(cache=types.SimpleNamespace(),\n"
        "    compilation=types.SimpleNamespace())\n"
    )
    request = {
        "text": "",
        "signature": [],
        "aligned": 16,
        "warps": 4,
        "stages": 3,
        "capability": 90,
    }
    done = subprocess.run(
        [sys.executable, str(compiler.WORKER)],
        input=json.dumps(request) + "\n",
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        check=True,
        timeout=SECONDS,
    )
    (line,) = done.stdout.splitlines()
    assert "error" in json.loads(line)
    assert "from a child" in done.stderr


def test_importing_the_tactics_asks_nothing_of_the_machine():
    program = (
        "import os\n"
        "def asked(*_):\n    raise AssertionError('processors are counted at import')\n"
        "if hasattr(os, 'sched_getaffinity'):\n    del os.sched_getaffinity\n"
        "os.cpu_count = asked\n"
        "import workbench.tactics.triton.source, workbench.tactics.nvrtc.source\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=SECONDS)


@pytest.mark.parametrize(
    ("product", "fences"),
    [("wgmma.mma_async.sync", 2), ("tcgen05.mma.cta_group::1", 2), ("mma.sync.aligned", 0)],
)
def test_copies_that_arrived_are_fenced_off_from_asynchronous_products_alone(product, fences):
    text = f"\tcp.async.wait_group \t2;\n\tbar.sync 0;\n\t{product} a;\n\tcp.async.wait_group 0;\n"
    made = worker.fenced(text)
    assert made.count("fence.proxy.async.shared::cta;") == fences
    assert made.replace("\n\tfence.proxy.async.shared::cta;", "") == text
    if fences:
        assert made.index("fence.proxy") < made.index("bar.sync")
