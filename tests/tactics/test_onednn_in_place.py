"""ONEDNN: a residual sum in the memory of the tensor that is added, and who may have it so."""

from __future__ import annotations

import numpy as np
import pytest
from engines import build, config, images
from onednn_net import Net, check_all

from workbench.checks import check_outputs
from workbench.network import NetworkDefinition
from workbench.runtime.taps import tensor_names
from workbench.selection.overwriting import Overwriting
from workbench.tactics.launch import bind, upload
from workbench.tactics.onednn.source import ONEDNN, OneDnnSource
from workbench.tactics.protocol import Call

pytestmark = pytest.mark.skipif(
    ONEDNN.unavailable() is not None, reason="the wheel onednn-cpu-gomp is for Linux x86-64"
)


def residual(dtype=np.float32) -> tuple[Net, str]:
    """Relu(Conv(x) + r), in floats or in quantized integers."""
    net = Net()
    if dtype is np.int8:
        x, w = net.input((1, 16, 8, 8), np.int8), net.constant((16, 16, 3, 3), np.int8)
        x, w = net.dequantized(x, 0.05), net.dequantized(w, np.full(16, 0.01), axis=0)
        r = net.dequantized(net.input((1, 16, 8, 8), np.int8), 0.07)
    else:
        x, w = net.input((1, 16, 8, 8)), net.constant((16, 16, 3, 3), scale=0.2)
        r = net.input((1, 16, 8, 8))
    y = net.op("Conv", x, w, anchor=True, pads=(1, 1, 1, 1))
    y = net.op("Relu", net.op("Add", y, r))
    return net, net.quantized(y, 0.1) if dtype is np.int8 else y


@pytest.mark.parametrize("dtype", [np.float32, np.int8])
def test_a_residual_sum_is_right_in_place_and_with_memory_of_its_own(dtype) -> None:
    net, y = residual(dtype)
    over = [t for t in check_all(net, y) if t.overwrites is not None]
    assert over
    problem = net.problem(y)
    for tactic in over:
        assert "in place" in tactic.name
        assert tactic.overwrites == 1
        call = ONEDNN.prepare(tactic, problem)
        assert isinstance(call, Call)
        inputs = upload(tactic, problem, net.data)
        bound = bind(call, tactic, problem, None, inputs, (inputs[1],))
        bound.launch()
        verdict = check_outputs(problem.body, {**net.data, **net.constants}, bound.read())
        assert verdict, f"{tactic.title}: {verdict.message}"


def test_with_memory_of_its_own_the_added_tensor_stays() -> None:
    net, y = residual()
    problem = net.problem(y)
    tactic = next(t for t in check_all(net, y) if t.overwrites is not None)
    call = ONEDNN.prepare(tactic, problem)
    assert isinstance(call, Call)
    bound = bind(call, tactic, problem, None, upload(tactic, problem, net.data))
    before = bytes(bound.inputs[1].memory)
    bound.launch()
    assert bytes(bound.inputs[1].memory) == before


def test_what_is_added_twice_or_broadcast_is_not_overwritten() -> None:
    net = Net()
    x, w = net.input((1, 16, 8, 8)), net.constant((16, 16, 3, 3), scale=0.2)
    y = net.op("Conv", x, w, anchor=True, pads=(1, 1, 1, 1))
    y = net.op("Add", net.op("Add", y, x), net.input((1, 16, 1, 1)))
    assert all(t.overwrites is None for t in check_all(net, y))


def in_place_only(monkeypatch) -> None:
    """Where a layer can be run in place, nothing else is offered."""
    every = OneDnnSource.candidates

    def candidates(self, problem):
        found = every(self, problem)
        return [t for t in found if getattr(t, "overwrites", None) is not None] or found

    monkeypatch.setattr(OneDnnSource, "candidates", candidates)


def blocks() -> NetworkDefinition:
    """``stem``, and ``sum`` = Relu(``second``(``first``(stem)) + stem): input ``image``."""
    random = np.random.default_rng(0)
    net = NetworkDefinition("blocks")
    x = net.add_input("image", "FP32", ("batch", 3, 8, 8))

    def made(op, name, inputs, **attributes):
        layer = net.add_layer(op, inputs, attributes, name=name, origin=(name,))
        net.rename_tensor(layer.outputs[0], name)
        return layer.outputs[0]

    def conv(name, source, channels):
        array = (random.standard_normal((16, channels, 3, 3)) / 12).astype(np.float32)
        return made("Conv", name, [source, net.constant(array, f"{name}.w")], pads=(1, 1, 1, 1))

    stem = conv("stem", x, 3)
    second = conv("second", conv("first", stem, 16), 16)
    total = made("Add", "sum", [second, stem])
    net.mark_output(made("GlobalAveragePool", "logits", [made("Relu", "relu", [total])]))
    net.model_nodes = tuple(n for layer in net.layers for n in layer.origin)
    return net


def layer_of(net, name):
    return next(x for x in net.layers if x.name == name)


def test_a_plan_gives_the_sum_the_memory_of_the_tensor_that_nobody_reads_later(
    monkeypatch,
) -> None:
    in_place_only(monkeypatch)
    state = build(config(0), blocks())
    assert state.plan is not None
    step = next(s for s in state.plan.steps if s.tactic.overwrites is not None)
    tensors = {t.name: t for t in state.plan.tensors}
    given = step.inputs[step.tactic.overwrites or 0]
    assert given.startswith("stem")
    assert tensors[step.outputs[0]].root == given
    assert step.outputs[0] not in state.plan.profiles[0].offsets
    batch = {"image": images()}
    expected = blocks().run(batch, keep=True)
    context = state.engine().create_execution_context()
    for _ in range(2):
        np.testing.assert_allclose(context.run(batch)["logits"], expected["logits"], atol=1e-5)
    names = [n for n in tensor_names(context.engine) if n in expected]
    assert {"second", "sum", "relu"} <= set(names)
    for name, tap in context.tap(batch, names).taps.items():
        np.testing.assert_allclose(tap.value, expected[name], atol=1e-5, err_msg=name)


def test_a_tensor_that_is_read_later_is_not_overwritten() -> None:
    net = blocks()
    add = layer_of(net, "sum")
    assert Overwriting(net).why_not(add, 1) == ""
    net.mark_output(net.add_layer("Neg", [add.inputs[1]], name="later").outputs[0])
    assert Overwriting(net).why_not(add, 1) == "'later' reads 'stem' later"


def test_what_is_not_the_engines_alone_is_not_overwritten() -> None:
    net = blocks()
    net.mark_output(layer_of(net, "stem").outputs[0])
    assert "not the engine's" in Overwriting(net).why_not(layer_of(net, "sum"), 1)
    net = blocks()
    assert "not the engine's" in Overwriting(net).why_not(layer_of(net, "stem"), 0)
    last = layer_of(net, "logits")
    flat = net.add_layer("Flatten", [layer_of(net, "relu").outputs[0]], name="view")
    net.mark_output(flat.outputs[0])
    assert last.inputs[0] is flat.inputs[0]
    assert "'view' may share" in Overwriting(net).why_not(layer_of(net, "relu"), 0)


def test_a_choice_that_may_not_overwrite_says_why() -> None:
    net = blocks()
    net.mark_output(layer_of(net, "stem").outputs[0])
    state = build(config(3), net)
    assert state.tuned is not None
    choice = next(c for c in state.tuned.layers if "sum" in c.origin)
    refused = [c.refusal for c in choice.candidates if c.tactic and c.tactic.overwrites is not None]
    codes = [r.code for r in refused if r is not None]
    assert "in_place" in codes
    assert len(codes) == len(refused)
    assert set(codes) <= {"in_place", "not_compiled"}


def test_in_place_only_the_processors_best_kernels_are_offered() -> None:
    net, y = residual()
    over = [t for t in check_all(net, y) if t.overwrites is not None]
    names = {str(t.parameter("implementation")) for t in over}
    assert not any("gemm" in n for n in names)
    if any("avx512" in n for n in names):
        assert not any(n.endswith(":avx2") for n in names)
