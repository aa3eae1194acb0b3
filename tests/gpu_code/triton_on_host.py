"""Runs Triton programs on the host in Triton's own interpreter (NumPy): no GPU, no torch."""

from __future__ import annotations

import inspect
import linecache
import os
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

# Triton decides at its import whether its own functions are interpreted. Compilers are processes of
# their own and must not inherit it.
os.environ["TRITON_INTERPRET"] = "1"
import triton
import triton.language as tl
from triton.runtime.interpreter import GridExecutor, TensorHandle

del os.environ["TRITON_INTERPRET"]

from workbench.body import Array
from workbench.tactics.protocol import Problem, Tactic
from workbench.tactics.triton.calls import constants_of
from workbench.tactics.triton.kernel import POINTERS, Kernel, Program

SLACK = 4096


def _elementwise(function: Any) -> Any:
    def apply(*args: Any) -> Any:
        x = next(a for a in args if isinstance(a, tl.tensor))
        values = [a.handle.data if isinstance(a, tl.tensor) else a for a in args]
        with np.errstate(all="ignore"):
            made = np.asarray(function(*values)).astype(x.handle.data.dtype)
        return tl.tensor(TensorHandle(made, x.handle.dtype), x.type)

    return apply


LIBDEVICE = SimpleNamespace(
    **{
        name: _elementwise(function)
        for name, function in {
            "rint": np.rint,
            "tanh": np.tanh,
            "floor": np.floor,
            "ceil": np.ceil,
            "expm1": np.expm1,
            "log1p": np.log1p,
            "pow": np.power,
            "sin": np.sin,
            "cos": np.cos,
        }.items()
    }
)


class _OnHost(GridExecutor):
    """Arguments are host pointers already."""

    def _init_args_hst(self, args_dev: Any, kwargs: Any) -> Any:
        return args_dev, kwargs

    def _restore_args_dev(self, args_dev: Any, args_hst: Any, kwargs: Any, kwargs_hst: Any) -> None:
        return


def _function(text: str) -> Any:
    name = f"<host {abs(hash(text)):x}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    namespace: dict[str, Any] = {"__name__": "host_kernel"}
    with triton.knobs.runtime.scope():
        triton.knobs.runtime.interpret = True
        exec(compile(text, name, "exec"), namespace)
    namespace["libdevice"] = LIBDEVICE
    return namespace["kernel"]


def launch(kernel: Kernel, memory: Mapping[Any, Array]) -> None:
    """Run every program of a kernel over buffers by argument."""
    function = _function(kernel.text)
    pointers = []
    for a in kernel.arguments:
        type_ = tl.str_to_ty(POINTERS[a.dtype], None)
        address = np.array([memory[a].ctypes.data], np.uint64)
        pointers.append(tl.tensor(TensorHandle(address, type_), type_))
    names = list(inspect.signature(function.fn).parameters)
    _OnHost(function.rewrite(), names, kernel.grid)(*pointers)


def run_on_host(
    program: Program, tactic: Tactic, problem: Problem, inputs: Mapping[str, Array]
) -> dict[str, Array]:
    """Linear outputs by name, for linear dynamic inputs by name."""
    body = problem.body
    stored: dict[str, Array] = {}
    for i, layout in zip(body.dynamic_inputs, tactic.inputs, strict=True):
        stored[i.name] = np.ascontiguousarray(layout.pack(inputs[i.name]))
    for name, t, layout in zip(body.outputs, body.output_types, tactic.outputs, strict=True):
        size = int(layout.volume(t.shape)) * t.dtype.itemsize
        stored[name] = np.full(size, 0xFF, np.uint8).view(t.dtype.numpy)
    parts = {n: np.full(size, 0xFF, np.uint8) for n, size in program.workspace.items()}
    memory: dict[Any, Array] = {
        a: np.ascontiguousarray(v) for a, v in constants_of(program, problem).items()
    }
    for kernel in program.kernels:
        for a in kernel.arguments:
            if a.kind == "workspace":
                memory[a] = parts[a.name]
            elif a not in memory:
                memory[a] = stored[a.name]
        launch(kernel, memory)
    return {
        name: layout.unpack(stored[name], t.shape)
        for name, t, layout in zip(body.outputs, body.output_types, tactic.outputs, strict=True)
    }
