"""Where a cuBLASLt Call reads its operands, whatever they are called; needs no library, no GPU."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from host_gpu import HostGpu, renamed
from library_bodies import LIBRARY_BODIES
from tactic_bodies import BODIES, problem_of

from workbench.errors import DeviceError
from workbench.records import Refusal
from workbench.tactics.cublas_lt import descriptors, source
from workbench.tactics.cublas_lt.descriptors import (
    A_SCALE_POINTER,
    B_SCALE_POINTER,
    BIAS_POINTER,
    Descriptors,
)
from workbench.tactics.protocol import Problem


class Recorded:
    """Descriptors of a product, and a library that keeps what it is called with."""

    def __init__(self, product):
        self.product, self.library = product, self
        self.handle = self.operation = self.a = self.b = self.c = self.d = None
        self.attributes, self.arguments = {}, ()

    def set(self, attribute, value):
        self.attributes[attribute] = value.value

    def cublasLtMatmul(self, *arguments):  # noqa: N802 (the library's own name)
        self.arguments = arguments
        return 0


def recorded(body):
    """A product's Call, what its library is told, and its problem."""
    device = HostGpu()
    device.main_stream = SimpleNamespace(ptr=1)
    problem = Problem(body, problem_of(body)[0].constants, device)
    product = source.stored_product(problem)
    assert not isinstance(product, Refusal), product
    d = Recorded(product)
    return source._call(d, "words", 0, SimpleNamespace(name="any"), problem, device), d, problem


@pytest.mark.parametrize("names", [("words", "descriptors", "scale"), ("bias", "a", "b")])
def test_a_product_reads_its_own_operands_whatever_they_are_called(names):
    made = (BODIES | LIBRARY_BODIES)["resnet_1x1_residual"](2)
    body = renamed(made, dict(zip((i.name for i in made.inputs), names, strict=False)))
    call, d, problem = recorded(body)
    product, allocate = d.product, problem.device.allocate
    places = {i.name: allocate(1 << 20) for i in body.dynamic_inputs}
    output = allocate(1 << 20)
    call.bind(tuple(places.values()), (output,), None, None)()
    b, a, c = (d.arguments[k].value for k in (3, 5, 8))
    assert b == call.packed["b"].address
    assert a == places[product.a.name].address
    assert c == places[product.residual].address
    assert d.arguments[12] == "words" and d.arguments[10].value == output.address
    assert d.attributes[BIAS_POINTER] == call.packed["bias"].address


def test_scales_of_columns_lie_beside_ones_for_the_rows():
    call, d, problem = recorded(LIBRARY_BODIES["fp8_linear_halves"](2))
    assert d.attributes[A_SCALE_POINTER] == call.packed["columns"].address
    assert d.attributes[B_SCALE_POINTER] == call.packed["rows"].address
    given = problem.constants.values()
    scales = next(c for c in given if c.shape == (128,) and c.dtype == np.float32)
    assert np.array_equal(call.packed["columns"].sources[0], scales)
    assert call.packed["rows"].sources[0].tolist() == [1.0] * d.product.m


def test_a_missing_library_is_named_with_what_installs_it(monkeypatch):
    missing = Refusal("libcublasLt is not found", remedy="python -m pip install it")
    monkeypatch.setattr(descriptors, "load", lambda: missing)
    with pytest.raises(DeviceError) as e:
        Descriptors(None, HostGpu(), 68)
    assert str(e.value) == "CUBLAS_LT: libcublasLt is not found; python -m pip install it"
