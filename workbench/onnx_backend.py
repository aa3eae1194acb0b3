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
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper
from onnx.backend.base import Backend, BackendRep

from workbench.body import Array, HostType, Value
from workbench.builder import run_stages, start
from workbench.config import BuilderConfig, BuilderFlag, OptimizationProfile
from workbench.datatypes import DataType
from workbench.devices import Device, open_device
from workbench.dimensions import is_static
from workbench.errors import DeviceError, ExecutionError, NoTacticError, ParserError, WorkbenchError
from workbench.onnx_parser.element_types import TO_ONNX
from workbench.onnx_parser.schemas import OPSET
from workbench.records import Stage
from workbench.runtime import Engine
from workbench.tactics import sources_for

_Key = tuple[Any, ...]
_DEVICES = {"CPU": "cpu", "CUDA": "gpu"}


class UnsupportedModel(WorkbenchError, unittest.SkipTest):
    """``prepare`` declines a model; test runners of ONNX count it as skipped."""


class WorkbenchRep(BackendRep):
    """A model ready to run: built in ``prepare`` where its inputs' shapes leave nothing open.

    Otherwise it is built on first use, for the shapes of the inputs. engines: by these.
    inputs, outputs: names in the engine, in the model's order.
    """

    def __init__(self, model: ModelProto, config: BuilderConfig, device: Device) -> None:
        self.name = model.graph.name or "model"
        self.engines: dict[_Key, Engine] = {}
        state = start(model.SerializeToString(), config, device=device, name=self.name)
        self._state = run_stages(state, until=Stage.PARSE)
        network = self._state.network
        self.inputs = tuple(t.name for t in network.inputs)
        self.outputs = tuple(t.name for t in network.outputs)

    def prepare(self) -> None:
        """Build where that needs no input. Raises NoTacticError, and UnsupportedModel for chance.

        A suite compares numbers, and no two implementations draw the same ones.
        """
        for layer in self._state.network.layers:
            drawn = [n.op for n in layer.body.nodes if n.operator.family == "random"]
            if drawn:
                raise UnsupportedModel(
                    f"{drawn[0]} draws random numbers: there are none to compare them with",
                    place=layer.name,
                    remedy="to run it, build it with workbench.Builder",
                )
        if not self._state.network.symbols:
            self.engine({})

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
        fed = {n: _value(v) for n, v in zip(self.inputs, inputs, strict=True)}
        outputs = self.engine(fed).create_execution_context().run(fed)
        return tuple(outputs[n] for n in self.outputs)

    def engine(self, inputs: Mapping[str, Value]) -> Engine:
        """The engine for these inputs' shapes, built on first use."""
        profile = OptimizationProfile()
        for t in self._state.network.inputs:
            if not isinstance(t.type, HostType) and not is_static(t.shape):
                shape = inputs[t.name].shape
                profile.set_shape(t.name, shape, shape, shape)
        key = tuple(sorted((n, low) for n, (low, _, _) in profile.shapes.items()))
        if key not in self.engines:
            config = self._state.config.clone()
            config.optimization_profiles = (profile,)
            state = replace(self._state, config=config.frozen())
            self.engines[key] = run_stages(state).engine()
        return self.engines[key]

    @property
    def on_host(self) -> frozenset[str]:
        """Operators that the interpreter runs on the host, over every engine built so far."""
        steps = (s for e in self.engines.values() for s in e.plan.steps if s.on_host)
        return frozenset(name for s in steps for name in s.body.operator_names)

    @property
    def executed(self) -> Counter[str]:
        """How many steps each tactic source runs, over every engine built so far."""
        engines = self.engines.values()
        return Counter(s.tactic.source for e in engines for s in e.plan.steps)


def _value(given: Any) -> Value:
    """A sequence as a list of arrays, nothing as None, all else as an array."""
    if isinstance(given, list | tuple):
        return [_value(v) for v in given]
    return given if given is None else np.asarray(given)


class WorkbenchBackend(Backend):
    """The workbench as an ONNX backend.

    preferred: the tactic source that is asked first, before the others in their own order.
    sources: where given, only these are asked, in this order.
    host_layers: whether the host may run layers of a GPU's engine. tf32: whether its products may
    read FLOAT as TF32.
    """

    preferred: str | None = None
    sources: tuple[str, ...] | None = None
    host_layers: bool = False
    tf32: bool = True

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
        config.allow_host_layers = cls.host_layers
        if not cls.tf32:
            config.clear_flag(BuilderFlag.TF32)
        names = cls.sources or tuple(s.name for s in sources_for(opened.kind))
        config.set_tactic_sources(sorted(names, key=lambda n: n != cls.preferred))
        try:
            rep = WorkbenchRep(model, config.frozen(), opened)
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


def _value_info(name: str, array: Array) -> ValueInfoProto:
    kind = TO_ONNX.get(DataType.of(array), TensorProto.UNDEFINED)
    return helper.make_tensor_value_info(name, kind, array.shape)
