"""A large layer on a GPU runs whole; its last item is compared with the reference."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tactics"))
from attention_bodies import ATTENTIONS
from product_bodies import Convolution, Linear
from tactic_bodies import BODIES, INT8, Draft, problem_of

from workbench.config import BuilderConfig
from workbench.devices import CpuDevice
from workbench.formats import HWC, LINEAR
from workbench.selection import candidates, layer_problem
from workbench.selection.candidates import Workshop
from workbench.selection.layer_problem import LayerProblem
from workbench.selection.one_item import is_itemwise, operands_with_last, run_last
from workbench.selection.trial import Trial
from workbench.tactics.numpy_source import NUMPY
from workbench.tactics.protocol import Call, Tactic
from workbench.timing import TimingCache

KNOWN = {
    **{n: make for n, make in {**BODIES, **ATTENTIONS}.items()},
    "residual": lambda batch: Convolution(batch, 4, 7, 8, 3, 1, 1, INT8, residual=True).body(),
    "rows": lambda batch: Linear(batch, 16, 8, activation="Gelu").body(),
}
BATCH = 5


def values_of(body):
    problem, dynamic, values = problem_of(body)
    return problem, dynamic, {n: v for n, v in values.items() if n not in dynamic}


@pytest.mark.parametrize("name", KNOWN)
def test_where_items_are_called_apart_the_last_ones_result_is_the_results_last_item(
    name, monkeypatch
):
    monkeypatch.setattr(layer_problem, "CHECK_LIMIT_ELEMENTS", -1)
    body = KNOWN[name](BATCH)
    _, dynamic, constants = values_of(body)
    one = LayerProblem(name, body, (body,), constants, body.compute_type).single
    if one is None or not is_itemwise(body):
        return
    whole = body.evaluate({**dynamic, **constants})
    alone = one.evaluate({**{n: a[-1:] for n, a in dynamic.items()}, **constants})
    for k, v in whole.items():
        found, wanted = (np.asarray(x, np.float64) for x in (v[-1:], alone[k]))
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_the_layers_of_large_models_have_items():
    assert is_itemwise(KNOWN["residual"](3)) and is_itemwise(KNOWN["rows"](3))
    assert is_itemwise(ATTENTIONS["attention_merged"](3))


@pytest.mark.parametrize("op", ["Softmax", "Concat", "ReduceMean", "Transpose", "Gemm"])
def test_what_mixes_items_is_not_taken_apart(op):
    d = Draft()
    x = d.input(4, 4)
    y = {
        "Softmax": lambda: d.anchored("Softmax", x, axis=0),
        "Concat": lambda: d.anchored("Concat", x, x, axis=0),
        "ReduceMean": lambda: d.anchored("ReduceMean", x, d.literal([0], "int64"), keepdims=1),
        "Transpose": lambda: d("Transpose", x, perm=(1, 0)),
        "Gemm": lambda: d.anchored("Gemm", x, d.weight(4, 3), transA=1),
    }[op]()
    assert not is_itemwise(d.body(y))


def test_the_last_item_of_a_channels_last_tensor_is_found_and_the_rest_is_never_read():
    body = Convolution(BATCH, 4, 6, 8, 3, 1, 1).body()
    problem, dynamic, constants = values_of(body)
    offered = next(t for t in NUMPY.candidates(problem) if isinstance(t, Tactic))
    call = NUMPY.prepare(offered, problem)
    assert isinstance(call, Call)
    for layout in (LINEAR, HWC):
        tactic = replace(offered, inputs=(layout,))
        (buffer,) = operands_with_last(tactic, problem, dynamic)
        shape = layout.physical_shape(body.dynamic_inputs[0].type.shape)
        stored = problem.device.download(buffer, body.dynamic_inputs[0].type.dtype, shape)
        (given,) = dynamic.values()
        np.testing.assert_array_equal(stored[-1:], layout.pack(given[-1:]))
    found = run_last(call, offered, problem, operands_with_last(offered, problem, dynamic))
    whole = body.evaluate({**dynamic, **constants})
    for name, value in whole.items():
        assert found[name].shape == (1, *value.shape[1:])
        np.testing.assert_allclose(
            found[name].astype(np.float32), value[-1:].astype(np.float32), rtol=1e-2, atol=1e-2
        )


class WrongAtTheEnd:
    """NUMPY's kernel, but that the last item of the result is halved."""

    name = "NUMPY"

    def __init__(self, factor):
        self.factor = factor

    def prepare(self, tactic, problem):
        call = NUMPY.prepare(tactic, problem)

        def bind(inputs, outputs, workspace, stream):
            launch = call.bind(inputs, outputs, workspace, stream)

            def run():
                launch()
                (t,) = problem.body.output_types
                made = outputs[0].view(t.dtype, t.shape)
                made[-1] = made[-1] * t.dtype.numpy.type(self.factor)

            return run

        return replace(call, bind=bind)


@pytest.mark.parametrize(("factor", "wrong"), [(1.0, False), (0.5, True)])
def test_a_kernel_that_is_wrong_in_the_last_item_is_quarantined(monkeypatch, factor, wrong):
    monkeypatch.setattr(layer_problem, "CHECK_LIMIT_ELEMENTS", 10)
    monkeypatch.setattr(
        candidates.Workshop, "checks_last_item", lambda self, layer: is_itemwise(layer.smallest)
    )
    body = Linear(6, 16, 8).body()
    _, _, constants = values_of(body)
    device = CpuDevice()
    config = BuilderConfig()
    config.builder_optimization_level = 1
    shop = Workshop(device, config, TimingCache(device.fingerprint))
    layer = LayerProblem("rows", body, (body,), constants, body.compute_type)
    assert layer.single is not None
    tactic = next(
        t for t in NUMPY.candidates(shop.problem(body, constants)) if isinstance(t, Tactic)
    )
    made = Trial(shop, layer).candidate(WrongAtTheEnd(factor), tactic)
    assert made.eligible is not wrong
    if wrong:
        assert made.refusal is not None and "the last item of" in made.refusal.reason
    else:
        assert made.worst is not None and made.worst <= 1 and made.timing is not None
