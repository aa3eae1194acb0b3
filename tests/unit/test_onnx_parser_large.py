"""Models whose weights lie beside them are imported by mapping them, however large they are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from workbench.errors import ParserError
from workbench.network import NetworkDefinition
from workbench.onnx_parser import OnnxParser, parse_model

MEASURED = """
import json, sys, time
from pathlib import Path

from workbench import fusions, passes
from workbench.onnx_parser import parse_model

def status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(x.split()[1]) << 10 for x in lines if x.startswith(field))

def measured(work):
    Path("/proc/self/clear_refs").write_text("5")
    own, peak, begin = status("RssAnon"), status("VmRSS"), time.perf_counter()
    result = work()
    seconds = time.perf_counter() - begin
    return result, {
        "seconds": seconds, "kept": status("RssAnon") - own, "peak": status("VmHWM") - peak
    }

found = {}
network, found["parse"] = measured(lambda: parse_model(sys.argv[1]))
_, found["verify"] = measured(network.verify)
_, found["fold"] = measured(lambda: passes.fold(network))
_, found["fuse"] = measured(lambda: fusions.fuse(network))
found["layers"] = network.num_layers
weights = [t.weight.array for t in network.tensors.values() if t.weight is not None]
found["bytes"] = sum(w.nbytes for w in weights)
print(json.dumps(found))
"""
MB = 1 << 20


def large_model(folder: Path, *, count: int, width: int) -> Path:
    """``count`` products with [width, width] weights in one sparse file, and activations."""
    weights: list[TensorProto] = []
    nodes: list[Any] = []
    value, size = "x", 4 * width * width
    for k in range(count):
        w = TensorProto(name=f"w{k}", data_type=TensorProto.FLOAT, dims=[width, width])
        w.data_location = TensorProto.EXTERNAL
        for key, text in (("location", "m.data"), ("offset", k * size), ("length", size)):
            w.external_data.add(key=key, value=str(text))
        weights.append(w)
        nodes.append(helper.make_node("MatMul", [value, w.name], [f"m{k}"], name=f"matmul{k}"))
        nodes.append(helper.make_node("Relu", [f"m{k}"], [f"r{k}"], name=f"relu{k}"))
        value = f"r{k}"
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", width])
    y = helper.make_empty_tensor_value_info(value)
    graph = helper.make_graph(nodes, "large", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    with (folder / "m.data").open("wb") as file:
        file.truncate(count * size)
    return folder / "m.onnx"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is watched through Linux")
def test_two_gigabytes_of_weights_are_imported_and_fused_without_a_copy(tmp_path: Path) -> None:
    path = large_model(tmp_path, count=32, width=4096)
    command = [sys.executable, "-c", MEASURED, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["bytes"] == 2 << 30
    assert found["layers"] == 32
    for stage in ("parse", "verify", "fold"):
        assert found[stage]["peak"] < 64 * MB, found
    # A check computes with samples as large as one weight, and what it is rounded to.
    assert found["fuse"]["peak"] < 512 * MB, found
    for stage in ("parse", "verify", "fold", "fuse"):
        assert found[stage]["kept"] < 32 * MB, found


def mapping_of(array: Any) -> Any:
    """The mapped file that an array is a view of."""
    view = array
    while isinstance(view, np.ndarray) and not isinstance(view, np.memmap):
        view = view.base
    return view


def test_weights_of_one_file_are_views_of_one_mapping(tmp_path: Path) -> None:
    network = parse_model(large_model(tmp_path, count=3, width=64))
    maps = [mapping_of(network.tensor(f"w{k}").value) for k in range(3)]
    assert isinstance(maps[0], np.memmap)
    assert maps[0] is maps[1] is maps[2]
    cloned = network.clone().tensor("w1").value
    assert cloned is network.tensor("w1").value


def test_bytes_with_a_path_find_the_data_beside_it(tmp_path: Path) -> None:
    path = large_model(tmp_path, count=1, width=8)
    data = path.read_bytes()
    network = NetworkDefinition()
    assert OnnxParser(network).parse(data, path)
    assert network.tensor("w0").shape == (8, 8)
    with pytest.raises(ParserError, match=r"'w0' lies in the file 'm\.data', and bytes have no"):
        parse_model(data)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.nan, "weight 'w0' holds 1 NaN among its 64 values"),
        (np.inf, "weight 'w0' holds 1 infinities among its 64 values"),
        (-np.inf, "weight 'w0' holds 1 infinities among its 64 values"),
    ],
)
def test_a_weight_that_holds_no_numbers_is_a_warning_that_names_it(
    tmp_path: Path, value: float, words: str
) -> None:
    path = large_model(tmp_path, count=2, width=8)
    values = np.zeros((2, 8, 8), np.float32)
    values[0, 3, 4] = value
    (tmp_path / "m.data").write_bytes(values.tobytes())
    parser = OnnxParser(NetworkDefinition())
    assert parser.parse_from_file(path)
    (warning,) = parser.warnings
    assert words in warning.desc
    assert warning.rule == "not_finite"
    network = parse_model(path)
    assert network.clone().warnings == (str(warning),)


def test_a_mask_of_minus_infinities_is_no_warning() -> None:
    mask = np.triu(np.full((4, 4), -np.inf, np.float32), 1)
    node = helper.make_node("Add", ["x", "mask"], ["y"], name="add")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 4])
    stored = [helper.make_tensor("mask", TensorProto.FLOAT, [4, 4], mask.tobytes(), raw=True)]
    graph = helper.make_graph([node], "g", [x], [helper.make_empty_tensor_value_info("y")], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    assert parse_model(model.SerializeToString()).warnings == ()
