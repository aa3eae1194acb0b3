"""Matrix products: MatMul, Gemm and Einsum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from workbench import dimensions
from workbench.body import REQUIRED, Array, Attributes, Cost, Inference, Operator, TensorType
from workbench.dimensions import Shape
from workbench.errors import InferenceError
from workbench.operators.products import gamma, is_exact, operand, product_bound


def _one_type(inference: Inference, count: int) -> None:
    types = [t for t in inference.inputs[:count] if t is not None]
    if len({t.dtype for t in types}) != 1:
        raise InferenceError(
            f"operands are {' and '.join(str(t.dtype) for t in types)}",
            remedy="cast them to one type",
        )
    if not (types[0].dtype.is_float or types[0].dtype.is_integer):
        raise InferenceError(f"operands are {types[0].dtype}; need numbers")


def _matching(a: Any, b: Any) -> None:
    if isinstance(a, int) and isinstance(b, int) and a != b:
        raise InferenceError(f"A has K={a}, B has K={b}", remedy="transpose B or re-export")


def _moved(inputs: Sequence[TensorType | None], outputs: Sequence[TensorType]) -> int:
    return sum(int(t.nbytes()) for t in (*inputs, *outputs) if t is not None)


# -- MatMul -------------------------------------------------------------------------------
def _matmul_types(inference: Inference) -> tuple[TensorType, ...]:
    _one_type(inference, 2)
    a, b = inference.input(0), inference.input(1)
    return (TensorType(a.dtype, matmul_shape(a.shape, b.shape)),)


def matmul_shape(a: Shape, b: Shape) -> Shape:
    """Shape of ``numpy.matmul``'s result; sizes may be symbolic. Raises InferenceError."""
    if not a or not b:
        raise InferenceError(f"shapes {a} and {b}: an operand is a scalar")
    _matching(a[-1], b[-2:][0])
    batch = dimensions.broadcast(a[:-2], b[:-2])
    return (*batch, *a[-2:-1], *(b[-1:] if len(b) > 1 else ()))


def matrix_product(a: Array, b: Array) -> Array:
    """numpy.matmul. Where b is one matrix it is read once, not once for each matrix of a."""
    if a.ndim > 2 and b.ndim == 2:
        rows = a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
        return np.matmul(rows, b).reshape(*a.shape[:-1], b.shape[1])
    return np.matmul(a, b)


def _matmul_bound(
    attributes: Attributes,
    inputs: Sequence[Any],
    bounds: Sequence[Any],
    outputs: Sequence[Any],
    unit: float,
) -> tuple[Any, ...]:
    a, b = inputs
    operands, errors = (a, b), (bounds[0], bounds[1])
    return (product_bound(matrix_product, operands, errors, terms=a.shape[-1], unit=unit),)


def _matmul_cost(
    attributes: Attributes, inputs: Sequence[TensorType | None], outputs: Sequence[TensorType]
) -> Cost:
    assert inputs[0] is not None
    terms = int(inputs[0].shape[-1])
    return Cost(2 * terms * int(dimensions.volume(outputs[0].shape)), _moved(inputs, outputs))


# -- Gemm ---------------------------------------------------------------------------------
def _gemm_types(inference: Inference) -> tuple[TensorType, ...]:
    _one_type(inference, 3)
    a, b = inference.input(0), inference.input(1)
    if len(a.shape) != 2 or len(b.shape) != 2:
        raise InferenceError(f"A is {a.shape}, B is {b.shape}; both must be matrices")
    rows, k = a.shape[::-1] if inference.attributes["transA"] else a.shape
    other, columns = b.shape[::-1] if inference.attributes["transB"] else b.shape
    _matching(k, other)
    c = operand(inference.inputs, 2)
    if c is not None:
        fits = dimensions.broadcast((rows, columns), c.shape)
        if len(c.shape) > 2 or any(
            isinstance(w, int) and w != h for w, h in zip(fits, (rows, columns), strict=True)
        ):
            raise InferenceError(f"C is {c.shape}; it does not broadcast to {(rows, columns)}")
    return (TensorType(a.dtype, (rows, columns)),)


def _gemm_operands(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, Array]:
    a, b = inputs[0], inputs[1]
    return a.T if attributes["transA"] else a, b.T if attributes["transB"] else b


def _scaled(array: Array, factor: float) -> Array:
    return array if factor == 1 else (array * factor).astype(array.dtype, copy=False)


def _gemm(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    y = _scaled(np.matmul(*_gemm_operands(attributes, inputs)), attributes["alpha"])
    c = operand(inputs, 2)
    return (y if c is None else y + _scaled(c, attributes["beta"]),)


def _gemm_bound(
    attributes: Attributes,
    inputs: Sequence[Any],
    bounds: Sequence[Any],
    outputs: Sequence[Any],
    unit: float,
) -> tuple[Any, ...]:
    a, b = _gemm_operands(attributes, inputs)
    if a.dtype.kind != "f":
        return (0.0,)
    e_a, e_b = _gemm_operands(
        attributes, [np.broadcast_to(e, v.shape) for e, v in zip(bounds, inputs[:2], strict=False)]
    )
    # Two more terms: the products with alpha and beta, and the sum.
    terms = a.shape[1] + 2
    exact = is_exact(bounds[1])
    errors = (e_a, 0.0 if exact else e_b)
    bound = product_bound(np.matmul, (a, b), errors, terms=terms, unit=unit)
    bound = abs(attributes["alpha"]) * bound
    c = operand(inputs, 2)
    if c is None:
        return (bound,)
    e_c = operand(bounds, 2)
    return (bound + abs(attributes["beta"]) * (4 * gamma(terms, unit) * (np.abs(c) + e_c) + e_c),)


def _gemm_cost(
    attributes: Attributes, inputs: Sequence[TensorType | None], outputs: Sequence[TensorType]
) -> Cost:
    assert inputs[0] is not None
    terms = int(inputs[0].shape[0 if attributes["transA"] else 1])
    size = int(dimensions.volume(outputs[0].shape))
    bias = size if operand(inputs, 2) is not None else 0
    return Cost(2 * terms * size + bias, _moved(inputs, outputs))


# -- Einsum -------------------------------------------------------------------------------
def einsum_terms(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """Index letters of each operand and of the result; an ellipsis becomes upper-case letters.

    Source: ONNX Einsum-12: without ``->`` the result has the ellipsis, then the letters that
    occur once, sorted. Raises InferenceError.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    operands = left.split(",")
    if len(operands) != len(ranks):
        raise InferenceError(f"equation {equation!r} has {len(operands)} terms, given {len(ranks)}")
    wide = [r - len(t.replace("...", "")) for t, r in zip(operands, ranks, strict=True)]
    if any(w if "..." not in t else w < 0 for t, w in zip(operands, wide, strict=True)):
        raise InferenceError(f"equation {equation!r} does not fit operands of rank {list(ranks)}")
    letters = left.replace(",", "").replace("...", "")
    if letters and not letters.isalpha():
        raise InferenceError(f"equation {equation!r} has characters that are no letters")
    most = max(wide)
    if most > 10 or any(c.isupper() for c in equation):
        raise InferenceError(f"equation {equation!r} uses upper-case letters")
    rest = "ABCDEFGHIJ"[:most]
    if not arrow:
        letters = [c for c in left if c.isalpha()]
        right = "..." + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    named = [t.replace("...", rest[most - w :]) for t, w in zip(operands, wide, strict=True)]
    result = right.replace("...", rest)
    if not set(result) <= set("".join(named)) or len(set(result)) != len(result):
        raise InferenceError(f"equation {equation!r} has a result that its operands do not give")
    return named, result


def _einsum_sizes(named: Sequence[str], shapes: Sequence[Shape]) -> dict[str, Any]:
    sizes: dict[str, Any] = {}
    for letters, shape in zip(named, shapes, strict=True):
        for letter, size in zip(letters, shape, strict=True):
            old = sizes.get(letter, 1)
            if letter.isupper():
                sizes[letter] = dimensions.broadcast((old,), (size,))[0]
                continue
            if letter in sizes and isinstance(old, int) and isinstance(size, int) and old != size:
                raise InferenceError(f"index '{letter}' has size {old} and {size}")
            if letter not in sizes or isinstance(size, int):
                sizes[letter] = size
    return sizes


def _einsum_types(inference: Inference) -> tuple[TensorType, ...]:
    _one_type(inference, len(inference.inputs))
    shapes = [inference.input(i).shape for i in range(len(inference.inputs))]
    named, result = einsum_terms(inference.attributes["equation"], [len(s) for s in shapes])
    sizes = _einsum_sizes(named, shapes)
    return (TensorType(inference.input(0).dtype, tuple(sizes[c] for c in result)),)


def _einsum(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    named, result = einsum_terms(attributes["equation"], [x.ndim for x in inputs])
    operands = list(inputs)
    # NumPy broadcasts size 1 only under an ellipsis, which has become letters here.
    sizes = _einsum_sizes(named, [x.shape for x in inputs])
    for i, letters in enumerate(named):
        shape = tuple(
            sizes[c] if c.isupper() else n for c, n in zip(letters, operands[i].shape, strict=True)
        )
        operands[i] = np.broadcast_to(operands[i], shape)
    return (np.einsum(f"{','.join(named)}->{result}", *operands, optimize=True),)


def _einsum_bound(
    attributes: Attributes,
    inputs: Sequence[Any],
    bounds: Sequence[Any],
    outputs: Sequence[Any],
    unit: float,
) -> tuple[Any, ...]:
    if inputs[0].dtype.kind != "f":
        return (0.0,)
    # |∏(x+e)| - ∏|x| bounds the propagated error of a product of any number of factors.
    plain = [np.abs(x) for x in inputs]
    wide = [np.abs(x) + e for x, e in zip(inputs, bounds, strict=True)]
    total = _einsum(attributes, wide)[0]
    terms = _einsum_length(attributes, [x.shape for x in inputs]) + len(inputs)
    rounding = 4 * gamma(terms, unit) * total
    if all(is_exact(e) for e in bounds):
        return (rounding,)
    # The float64 difference itself rounds; 2**-50 of the total covers it.
    return (rounding + (total - _einsum(attributes, plain)[0]) + terms * 2.0**-50 * total,)


def _einsum_length(attributes: Attributes, shapes: Sequence[Shape]) -> int:
    named, result = einsum_terms(attributes["equation"], [len(s) for s in shapes])
    sizes = _einsum_sizes(named, shapes)
    return math.prod(int(n) for c, n in sizes.items() if c not in result)


def _einsum_cost(
    attributes: Attributes, inputs: Sequence[TensorType | None], outputs: Sequence[TensorType]
) -> Cost:
    shapes = [t.shape for t in inputs if t is not None]
    length = _einsum_length(attributes, shapes)
    factors = max(2, len(shapes))
    flops = factors * length * int(dimensions.volume(outputs[0].shape))
    return Cost(flops, _moved(inputs, outputs))


MATRIX: tuple[Operator, ...] = (
    Operator(
        name="MatMul",
        infer=_matmul_types,
        reference=lambda attributes, inputs: (matrix_product(inputs[0], inputs[1]),),
        bound=_matmul_bound,
        layer_type="MATRIX_MULTIPLY",
        family="matrix",
        cost=_matmul_cost,
    ),
    Operator(
        name="Gemm",
        infer=_gemm_types,
        reference=_gemm,
        bound=_gemm_bound,
        layer_type="MATRIX_MULTIPLY",
        family="matrix",
        attributes=MappingProxyType({"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}),
        cost=_gemm_cost,
    ),
    Operator(
        name="Einsum",
        infer=_einsum_types,
        reference=_einsum,
        bound=_einsum_bound,
        layer_type="EINSUM",
        family="matrix",
        attributes=MappingProxyType({"equation": REQUIRED}),
        cost=_einsum_cost,
    ),
)
