"""The ``onnx.backend.base`` interface, for anyone's conformance suite.

A model goes the way of every build: parse, all passes and fusions, selection at
``builder_optimization_level`` 0 (nothing is timed), plan bytes, Runtime. What cannot be run is
declined in ``prepare`` with every reason, before any input is seen.
"""

from __future__ import annotations

import unittest
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from onnx.backend.base import Backend, BackendRep

from workbench.body import Array
from workbench.builder import BuildState, run_stages, start
from workbench.config import BuilderConfig, OptimizationProfile
from workbench.datatypes import DataType
from workbench.devices import Device, open_device
from workbench.dimensions import is_static
from workbench.errors import DeviceError, ExecutionError, NoTacticError, ParserError, WorkbenchError
from workbench.onnx_parser.element_types import TO_ONNX
from workbench.onnx_parser.problems import ParserErrorRecord
from workbench.onnx_parser.schemas import OPSET
from workbench.records import Stage
from workbench.runtime import Engine
from workbench.tactics import sources_for

_Key = tuple[Any, ...]
_DEVICES = {"CPU": "cpu", "CUDA": "gpu"}


class UnsupportedModel(WorkbenchError, unittest.SkipTest):
    """``prepare`` declines a model; test runners of ONNX count it as skipped."""


class WorkbenchRep(BackendRep):
    """A model ready to run: built in ``prepare`` where its inputs leave nothing open.

    Otherwise it is built on first use, for the shapes of the inputs and for the values of those
    that decide shapes (``deciding``; such an input is a constant of the engine). engines: by these.
    outputs: names in the engine, in the model's order.
    """

    def __init__(self, model: ModelProto, config: BuilderConfig, device: Device) -> None:
        self.name = model.graph.name or "model"
        self.outputs: tuple[str, ...] = ()
        stored = {t.name for t in model.graph.initializer}
        stored |= {t.values.name for t in model.graph.sparse_initializer}
        self.inputs = tuple(v.name for v in model.graph.input if v.name not in stored)
        self.deciding: frozenset[str] = frozenset()
        self.engines: dict[_Key, Engine] = {}
        self._model, self._config, self._device = model, config, device
        self._parsed: dict[_Key, BuildState] = {}

    def prepare(self) -> None:
        """Parse, and build where that needs no input. Raises ParserError and NoTacticError."""
        try:
            state = self._parse({})
        except ParserError as e:
            self.deciding = _needed(e, frozenset(self.inputs))
            if not self.deciding:
                raise
            return
        if all(is_static(t.shape) for t in state.network.inputs):
            self._built(state, {}, ())

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Outputs for the inputs, given in the model's order (or by name)."""
        if kwargs:
            raise TypeError(f"run takes no option {', '.join(kwargs)}")
        if isinstance(inputs, Mapping):
            inputs = [inputs[n] for n in self.inputs]
        if len(inputs) != len(self.inputs):
            raise ExecutionError(
                f"{len(inputs)} inputs are given, the model has {len(self.inputs)}",
                place=self.name,
                remedy=f"give {', '.join(self.inputs) or 'none'}, in this order",
            )
        fed = {n: np.asarray(v) for n, v in zip(self.inputs, inputs, strict=True)}
        engine = self.engine(fed)
        rest = {n: v for n, v in fed.items() if n not in self.deciding}
        outputs = engine.create_execution_context().run(rest)
        return tuple(outputs[n] for n in self.outputs)

    def engine(self, inputs: Mapping[str, Array]) -> Engine:
        """The engine for these inputs, built on first use."""
        while True:
            values = tuple((inputs[n].shape, inputs[n].tobytes()) for n in sorted(self.deciding))
            if values not in self._parsed:
                try:
                    self._parsed[values] = self._parse({n: inputs[n] for n in self.deciding})
                except ParserError as e:
                    more = _needed(e, frozenset(self.inputs) - self.deciding)
                    if not more:
                        raise
                    self.deciding |= more
                    continue
            return self._built(self._parsed[values], inputs, values)

    @property
    def executed(self) -> Counter[str]:
        """How many steps each tactic source runs, over every engine built so far."""
        engines = self.engines.values()
        return Counter(s.tactic.source for e in engines for s in e.plan.steps)

    def _parse(self, values: Mapping[str, Array]) -> BuildState:
        model = self._model
        if values:
            model = ModelProto.FromString(model.SerializeToString())
            kept = [v for v in model.graph.input if v.name not in values]
            del model.graph.input[:]
            model.graph.input.extend(kept)
            model.graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in values.items())
        data = model.SerializeToString()
        state = start(data, self._config, device=self._device, name=self.name)
        state = run_stages(state, until=Stage.PARSE)
        self.outputs = tuple(t.name for t in state.network.outputs)
        return state

    def _built(self, state: BuildState, inputs: Mapping[str, Array], values: _Key) -> Engine:
        profile = OptimizationProfile()
        for t in state.network.inputs:
            if not is_static(t.shape):
                shape = inputs[t.name].shape
                profile.set_shape(t.name, shape, shape, shape)
        key = (values, *sorted((n, low) for n, (low, _, _) in profile.shapes.items()))
        if key not in self.engines:
            config = state.config.clone()
            config.optimization_profiles = (profile,)
            self.engines[key] = run_stages(replace(state, config=config.frozen())).engine()
        return self.engines[key]


class WorkbenchBackend(Backend):
    """The workbench as an ONNX backend.

    preferred: the tactic source that is asked first, before the others in their own order.
    sources: where given, only these are asked, in this order.
    """

    preferred: str | None = None
    sources: tuple[str, ...] | None = None

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether a device such as ``CPU`` or ``CUDA:0`` is here."""
        try:
            _open(device)
        except DeviceError:
            return False
        return True

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> WorkbenchRep:
        """Build the model. Raises UnsupportedModel with every reason for which it cannot run."""
        if kwargs:
            raise TypeError(f"prepare takes no option {', '.join(kwargs)}")
        opened = _open(device)
        config = BuilderConfig()
        config.builder_optimization_level = 0
        names = cls.sources or tuple(s.name for s in sources_for(opened.kind))
        config.set_tactic_sources(sorted(names, key=lambda n: n != cls.preferred))
        rep = WorkbenchRep(model, config.frozen(), opened)
        try:
            rep.prepare()
        except (ParserError, NoTacticError) as e:
            raise UnsupportedModel(e.problem, place=e.place, remedy=e.remedy) from None
        return rep

    @classmethod
    def run_node(
        cls,
        node: NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[Any, tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """Outputs of one node. opset_version: of its domain, the newest where it is left out."""
        opset = int(kwargs.pop("opset_version", OPSET))
        if kwargs:
            raise TypeError(f"run_node takes no option {', '.join(kwargs)}")
        names = [n for n in node.input if n]
        arrays = [np.asarray(v) for v in inputs]
        fed = [_value_info(n, v) for n, v in zip(names, arrays, strict=True)]
        made = [ValueInfoProto(name=n) for n in node.output if n]
        graph = helper.make_graph([node], node.op_type, fed, made)
        opsets = [helper.make_opsetid(node.domain, opset)]
        model = helper.make_model(graph, opset_imports=opsets)
        return cls.run_model(model, arrays, device)


class PreferOnednn(WorkbenchBackend):
    """oneDNN is asked first."""

    preferred = "ONEDNN"


class PreferNumba(WorkbenchBackend):
    """Numba is asked first."""

    preferred = "NUMBA"


class PreferNumpy(WorkbenchBackend):
    """NumPy is asked first."""

    preferred = "NUMPY"


prepare = WorkbenchBackend.prepare
run_model = WorkbenchBackend.run_model
run_node = WorkbenchBackend.run_node
supports_device = WorkbenchBackend.supports_device
is_compatible = WorkbenchBackend.is_compatible


# -- inner --------------------------------------------------------------------------------
def _open(device: str) -> Device:
    kind, _, index = device.partition(":")
    if kind not in _DEVICES:
        raise DeviceError(f"no device is called '{device}'", remedy="use 'CPU' or 'CUDA:<index>'")
    name = _DEVICES[kind]
    return open_device(f"{name}:{index}" if index and name == "gpu" else name)


def _needed(error: ParserError, inputs: frozenset[str]) -> frozenset[str]:
    """The inputs whose values would mend every reason of the error; none if one would stay."""
    reasons = [e for e in error.errors if isinstance(e, ParserErrorRecord)]
    if not all(inputs & set(e.needs) for e in reasons):
        return frozenset()
    return inputs & {n for e in reasons for n in e.needs}


def _value_info(name: str, array: Array) -> ValueInfoProto:
    kind = TO_ONNX.get(DataType.of(array), TensorProto.UNDEFINED)
    return helper.make_tensor_value_info(name, kind, array.shape)
