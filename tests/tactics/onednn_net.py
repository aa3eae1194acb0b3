"""Bodies written down for ONEDNN, and the check that every tactic for one goes through."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from workbench.body import Body, BodyInput, Literal, Node, TensorType
from workbench.checks import bit_equal, check_outputs
from workbench.datatypes import DataType
from workbench.devices import CpuDevice
from workbench.operators import operator_named
from workbench.records import Refusal
from workbench.tactics.launch import run_once
from workbench.tactics.onednn.source import ONEDNN
from workbench.tactics.protocol import Call, Problem, tactic_from_json, tactic_to_json

BF16 = ml_dtypes.bfloat16


class Net:
    """Writes a Body down: inputs, constants, nodes."""

    def __init__(self, seed=0):
        self.rng = np.random.default_rng(seed)
        self.inputs, self.nodes = [], []
        self.data, self.constants = {}, {}
        self.anchor = None

    def _name(self):
        return f"t{len(self.inputs) + len(self.nodes)}"

    def _made(self, shape, dtype, scale):
        dtype = np.dtype(dtype)
        if dtype.kind in "iu":
            info = np.iinfo(dtype)
            return self.rng.integers(info.min, info.max + 1, shape).astype(dtype)
        return (self.rng.standard_normal(shape) * scale).astype(dtype)

    def input(self, shape, dtype=np.float32, scale=1.0):
        name = self._name()
        self.data[name] = self._made(shape, dtype, scale)
        self.inputs.append(BodyInput(name, TensorType(DataType.of(self.data[name]), shape)))
        return name

    def constant(self, value, dtype=np.float32, scale=1.0):
        """A constant of this shape (tuple) or value (array)."""
        name = self._name()
        array = self._made(value, dtype, scale) if isinstance(value, tuple) else value
        self.constants[name] = array
        kind = TensorType(DataType.of(array), array.shape)
        self.inputs.append(BodyInput(name, kind, constant=True))
        return name

    def literal(self, value, dtype=np.float32):
        name = self._name()
        literal = Literal.of(np.asarray(value, dtype))
        self.nodes.append(Node(operator_named("Constant"), (), (name,), {"value": literal}))
        return name

    def op(self, op, *inputs, anchor=False, **attributes):
        row = operator_named(op)
        name = self._name()
        if anchor:
            self.anchor = len(self.nodes)
        self.nodes.append(Node(row, inputs, (name,), row.complete(attributes)))
        return name

    def dequantized(self, stored, scale, zero=0, **attributes):
        dtype = {**self.data, **self.constants}[stored].dtype
        s = self.constant(np.asarray(scale, np.float32))
        z = self.constant(np.full(np.shape(scale), zero, dtype))
        return self.op("DequantizeLinear", stored, s, z, **attributes)

    def quantized(self, value, scale, dtype=np.int8, zero=0):
        s = self.constant(np.float32(scale).reshape(()))
        z = self.constant(np.asarray(zero, dtype))
        return self.op("QuantizeLinear", value, s, z)

    def problem(self, output, threads=2):
        body = Body(tuple(self.inputs), tuple(self.nodes), (output,), self.anchor)
        return Problem(body, self.constants, CpuDevice(), threads)


def offered(problem):
    found = ONEDNN.candidates(problem)
    refused = [r for r in found if isinstance(r, Refusal)]
    assert all("saturate" in r.reason for r in refused), [str(r) for r in refused]
    tactics = [t for t in found if not isinstance(t, Refusal)]
    assert tactics
    return tactics


def check_all(net, output):
    """Every offered tactic against the float64 reference; twice, bit for bit."""
    problem = net.problem(output)
    given = {**net.data, **net.constants}
    tactics = offered(problem)
    for tactic in tactics:
        call = ONEDNN.prepare(tactic_from_json(tactic_to_json(tactic)), problem)
        assert isinstance(call, Call), f"{tactic.title}: {call}"
        found = run_once(call, tactic, problem, net.data)
        verdict = check_outputs(problem.body, given, found)
        assert verdict, f"{tactic.title}: {verdict.message}"
        again = run_once(call, tactic, problem, net.data)
        assert bit_equal(found, again), tactic.title
        assert tactic.precision is problem.body.compute_type
        assert "ref" not in call.kernel
    return tactics
