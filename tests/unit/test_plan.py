from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import safetensors
from engines import build, images
from safetensors.numpy import load as safetensors_load

from workbench.datatypes import DataType
from workbench.errors import FileError, PlanError
from workbench.files import write_atomically
from workbench.plan import Plan
from workbench.plan_file import read_file, write_file
from workbench.runtime import Runtime


@pytest.fixture(scope="module")
def data() -> bytes:
    made = build().plan_bytes
    assert made is not None
    return made


def test_a_plan_read_and_written_again_has_the_same_bytes(data):
    assert Plan.from_bytes(data).to_bytes() == data


def test_any_safetensors_reader_opens_it_and_sections_start_at_multiples_of_64(data):
    tensors = safetensors_load(data)
    assert json.loads(tensors["records"].tobytes())["name"] == "small"
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__")
    assert (8 + size) % 64 == 0
    assert all(e["data_offsets"][0] % 64 == 0 for k, e in header.items() if "pad/" not in k)


def test_small_tensors_lie_first_and_what_is_packed_before_what_it_replaces():
    weights = {f"{k}.{n}": np.ones(s, np.int8) for k in "ab" for n, s in (("q", 1 << 16), ("s", 9))}
    packed = {"0/weights": np.ones(1 << 17, np.uint8), "0/row": np.ones(8, np.uint8)}
    data = write_file({"n": 1}, weights, packed=packed)
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__")
    order = sorted(header, key=lambda k: header[k]["data_offsets"])
    assert [k for k in order if "pad/" not in k] == [
        *("records", "weights/a.s", "weights/b.s", "packed/0/row"),
        *("packed/0/weights", "weights/a.q", "weights/b.q"),
    ]
    assert read_file(data)[1].keys() == weights.keys()


def test_every_type_of_number_can_be_a_weight():
    kinds = [k for k in DataType if k is not DataType.STRING]
    weights = {
        f"{kind.value} {shape}": np.ones(shape, np.int8).astype(kind.numpy)
        for kind in kinds
        for shape in ((2, 3), (), (0, 4))
    }
    data = write_file({}, weights)
    _, read, _, _ = read_file(data)
    for name, array in weights.items():
        assert read[name].dtype == array.dtype and read[name].shape == array.shape, name
        assert read[name].tobytes() == array.tobytes(), name
    assert write_file({}, read) == data
    assert len(safetensors.deserialize(data)) >= len(weights)


def test_strings_can_be_a_weight():
    texts = np.array([["a", "é"], ["", "b c"]], np.object_)
    data = write_file({}, {"w": texts, "none": texts[:0]})
    _, read, _, _ = read_file(data)
    assert read["w"].dtype == np.object_
    assert read["w"].tolist() == texts.tolist()
    assert read["none"].shape == (0, 2)
    assert not read["w"].flags.writeable
    assert write_file({}, read) == data


def test_a_plan_names_no_path_host_or_clock(data):
    text = data.decode("latin-1")
    assert os.uname().nodename not in text
    assert os.getcwd() not in text
    assert "20" + "26-" not in text


@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.2, 0.5, 0.9, 0.999])
def test_a_flipped_bit_anywhere_is_refused(data, share):
    broken = bytearray(data)
    broken[int(share * (len(data) - 1))] ^= 0x10
    with pytest.raises(PlanError):
        Plan.from_bytes(bytes(broken))


def test_every_byte_of_header_and_records_is_covered_even_when_weights_are_not_verified(data):
    size = int.from_bytes(data[:8], "little")
    records = json.loads(data[8 : 8 + size])["records"]["data_offsets"][1]
    for position in range(0, 8 + size + records, 997):
        broken = bytearray(data)
        broken[position] ^= 0x01
        with pytest.raises(PlanError):
            Plan.from_bytes(bytes(broken), verify="lazy")


@pytest.mark.parametrize("length", [0, 7, 8, 100, -1])
def test_a_truncated_plan_is_refused(data, length):
    with pytest.raises(PlanError, match="damaged"):
        Plan.from_bytes(data[:length])


def test_another_file_of_the_same_container_is_refused_by_its_format():
    from safetensors.numpy import save

    with pytest.raises(PlanError, match="format"):
        Plan.from_bytes(save({"x": np.zeros(3, np.float32)}, metadata={"format": "pt"}))


def test_a_plan_for_a_gpu_is_refused_on_a_cpu_with_the_way_to_open_it(data):
    plan = Plan.from_bytes(data)
    object.__setattr__(plan.device, "kind", "gpu")
    with pytest.raises(PlanError, match=r"the plan is for a gpu.*Runtime\('gpu'\)"):
        Runtime("cpu").deserialize(plan.to_bytes())


def test_a_missing_file_is_named():
    with pytest.raises(PlanError, match=r"nowhere\.plan"):
        Runtime().deserialize("nowhere.plan")


def test_writing_over_a_file_leaves_the_old_one_when_it_fails(tmp_path, monkeypatch):
    target = tmp_path / "x.plan"
    target.write_bytes(b"old")

    def fail(*_):
        raise OSError("no space")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(FileError, match="no space"):
        write_atomically(target, b"new")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


BARE = """
import sys
for name in ("onnx", "pandas", "plotly", "ipywidgets", "IPython", "cupy"):
    sys.modules[name] = None
from workbench.runtime.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_bare_process_without_onnx_pandas_and_plotly_gives_bit_equal_outputs(tmp_path):
    state, x = build(), images(5)
    plan, given, wanted = tmp_path / "s.plan", tmp_path / "in.npz", tmp_path / "out.npz"
    assert state.plan is not None
    assert state.plan.save(plan) == state.sha256
    np.savez(given, image=x)
    np.savez(wanted, **state.engine().create_execution_context().run({"image": x}))
    command = [sys.executable, "-c", BARE, str(plan), "--inputs", str(given), "--expect"]
    result = subprocess.run([*command, str(wanted)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "bit-equal" in result.stdout
    np.savez(wanted, logits=np.zeros((5, 10), np.float32))
    result = subprocess.run([*command, str(wanted)], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "differs" in result.stdout
