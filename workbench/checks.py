"""A candidate against its reference, within the bound.

The reference is the same stored inputs and the Body in float64 without inner rounding
(``Body.exact``). A result passes when every element lies within its own bound of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from workbench.body import TF32_EPS, Array, Body, as_exact
from workbench.datatypes import DataType
from workbench.errors import NetworkError
from workbench.sampling import sample_inputs, small_bindings, spread_of

__all__ = [
    "CheckResult",
    "Expected",
    "bit_equal",
    "check_outputs",
    "check_rewrite",
    "equivalent",
    "expect",
    "sample_inputs",
]

UNIT = 2.0**-24
"""Unit roundoff of a float32 accumulator."""
FP8_UNIT = 2.0**-13 / 32
"""The same for sums of FP8 products, a product. Hopper's matrix units align 32 products with the
sum so far and cut all to the 14 highest bits of the largest: 2**-13 of it is lost for 32 terms.
Source: DeepSeek-V3 Technical Report (arXiv 2412.19437), section 3.5.2; seen on an H200, where
cuBLASLt and cuDNN agree to the last bit, 6 times as far from the exact sum as float32 would be."""
OPEN_SHARE = 0.1
"""Largest share of an output's elements whose bound may be infinite (a division by nearly zero):
beyond it the check has seen too little to pass."""


@dataclass(frozen=True)
class CheckResult:
    """What a check found.

    worst: largest |out - exact| / bound over all elements (1 is the limit). where: output and
    index of that element. message: one line for people; empty when it passed.
    """

    passed: bool
    worst: float
    where: str
    message: str = ""

    def __bool__(self) -> bool:
        return self.passed


@dataclass(frozen=True, eq=False)
class Expected:
    """What a Body gives for certain inputs: computed once, compared with many candidates.

    values: output name -> (exact value, bound). types: output name -> DataType.
    steps: how far a requantized result of an INT8 layer may be from the rounded exact one.
    """

    values: Mapping[str, tuple[Array, Array]]
    types: Mapping[str, DataType]
    steps: float | None

    def check(self, outputs: Mapping[str, Array]) -> CheckResult:
        """Whether ``outputs`` (name -> array) lie within the bounds, in shape and type too."""
        results = [self._one(name, outputs.get(name)) for name in self.values]
        return max(results, key=lambda r: (not r.passed, r.worst))

    def error(self, outputs: Mapping[str, Array]) -> float | None:
        """Relative L2 distance to the exact values, the largest of all float outputs.

        None where no output is one of finite floats.
        """
        found: list[float] = []
        for name, (exact, _) in self.values.items():
            size = float(np.linalg.norm(exact.ravel())) if self.types[name].is_float else np.nan
            if np.isfinite(size) and size > 0:
                far = np.linalg.norm((outputs[name].astype(np.float64) - exact).ravel())
                found.append(float(far) / size)
        return max(found, default=None)

    @cached_property
    def _ordinary(self) -> frozenset[str]:
        """Outputs of finite floats that a right result stores as such: most, and soon compared."""
        return frozenset(
            n for n, (x, b) in self.values.items() if _is_ordinary(x, b, self.types[n])
        )

    def _one(self, name: str, out: Array | None) -> CheckResult:
        exact, bound = self.values[name]
        dtype = self.types[name]
        problem = _misfit(name, out, exact.shape, dtype)
        if out is None or problem:
            return CheckResult(False, np.inf, name, problem)
        if name in self._ordinary:
            ratio = np.array(out, np.float64)  # a copy, of a number too
            np.subtract(ratio, exact, out=ratio)
            np.abs(ratio, out=ratio)
            np.divide(ratio, bound, out=ratio)
            return _verdict(name, out, exact, bound, ratio)
        if dtype in (DataType.STRING, DataType.COMPLEX64, DataType.COMPLEX128):
            ratio = np.where(out == exact, 0.0, np.inf)
            return _verdict(name, out, exact, np.zeros(exact.shape), ratio)
        found = out.astype(np.float64)
        ratio = _ratio(_distance(found, exact, bound, dtype), exact, bound)
        ratio = np.where(_same(out, exact), 0.0, ratio)
        if self.steps is not None and dtype.is_integer and exact.dtype.kind == "f":
            ratio = np.maximum(ratio, np.abs(found - np.rint(exact)) / self.steps)
        return _verdict_unless_open(name, out, exact, bound, ratio)


def expect(
    body: Body,
    inputs: Mapping[str, Array],
    *,
    unit: float | None = None,
    steps: float = 1.0,
    tf32: bool = False,
) -> Expected:
    """What ``body`` must give for these inputs (dynamic and constant), and how exactly.

    unit: the accumulator's unit roundoff; by default float32's, for FP8 FP8_UNIT. steps: see
    ``Expected``; it binds layers that compute in integers, whose sums are exact. tf32: products
    may read their float32 factors as TF32.
    """
    if unit is None:
        unit = FP8_UNIT if body.compute_type is DataType.FP8 else UNIT
    bindings = body.bind({k: v.shape for k, v in inputs.items()})
    bound = body.substitute(bindings)
    dequantized = {n.inputs[0] for n in body.nodes if n.op == "DequantizeLinear"}
    integers = body.compute_type.is_integer and bool(dequantized)
    # What is rounded inside (attention's probabilities) moves a result by what it is multiplied
    # with: more than a step of its own, and never by more than the bound.
    inside = integers and any(
        n.op == "QuantizeLinear" and n.outputs[0] in dequantized for n in body.nodes
    )
    return Expected(
        body.exact(inputs, unit=unit, factor_eps=TF32_EPS if tf32 else 0.0, steps=inside),
        {o: bound.types[o].dtype for o in body.outputs},
        steps if integers and not inside else None,
    )


def check_outputs(
    body: Body,
    inputs: Mapping[str, Array],
    outputs: Mapping[str, Array],
    *,
    unit: float | None = None,
    steps: float = 1.0,
) -> CheckResult:
    """Whether ``outputs`` (name -> array) are a correct result of ``body`` for ``inputs``.

    A requantized integer may be one step off; every other integer and every bool is exact.
    """
    return expect(body, inputs, unit=unit, steps=steps).check(outputs)


def bit_equal(first: Mapping[str, Array], second: Mapping[str, Array]) -> bool:
    """Whether two results are the same to the last bit, NaN payloads included."""
    return first.keys() == second.keys() and all(
        a.dtype == second[k].dtype
        and a.shape == second[k].shape
        and np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(second[k]).tobytes()
        for k, a in first.items()
    )


# -- comparing ----------------------------------------------------------------------------
def _misfit(name: str, out: Array | None, shape: tuple[int, ...], dtype: DataType) -> str:
    if out is None:
        return f"output '{name}' is missing"
    if out.shape != shape:
        return f"output '{name}' has shape {out.shape}, expected {shape}"
    if out.dtype != dtype.numpy:
        return f"output '{name}' has type {out.dtype}, expected {dtype.numpy}"
    return ""


def _same(out: Array, exact: Array) -> Array:
    """Equal elements, compared in their own types: int64 does not fit in float64."""
    if out.dtype.kind in "iub" and exact.dtype.kind in "iub":
        return out == exact
    wide = out.astype(np.float64)
    return (wide == exact) | (np.isnan(wide) & np.isnan(exact))


def _distance(found: Array, exact: Array, bound: Array, dtype: DataType) -> Array:
    """|found - exact|; 0 where both lie beyond what the type can store."""
    with np.errstate(invalid="ignore"):
        distance = np.abs(found - exact)
        if not dtype.is_float:
            # Different int64 may be one float64.
            return distance if exact.dtype.kind == "f" else np.maximum(distance, 1.0)
        high = dtype.info.high
        over = (np.abs(exact) + bound >= high) & (np.abs(found) >= high)
        return np.where(over & (np.sign(found) == np.sign(exact)), 0.0, distance)


def _ratio(distance: Array, exact: Array, bound: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(distance == 0, 0.0, distance / bound)
    # What is infinite or NaN must be just that; so must a NaN among finite values.
    ratio = np.where(np.isnan(ratio) | ~np.isfinite(exact), np.inf, ratio)
    return np.where(_open(exact, bound), 0.0, ratio)


def _is_ordinary(exact: Array, bound: Array, dtype: DataType) -> bool:
    """Whether it is floats, all finite and far from what the type can't store, none exact."""
    if not dtype.is_float or not exact.size or not (bound > 0).all():
        return False
    return bool((np.abs(exact) + bound < dtype.info.high).all())


def _open(exact: Array, bound: Array) -> Array:
    """Elements of which an infinite bound says nothing."""
    return ~np.isfinite(bound) & np.isfinite(exact)


def _verdict_unless_open(
    name: str, out: Array, exact: Array, bound: Array, ratio: Array
) -> CheckResult:
    """The verdict, which is a failure where too little can be compared."""
    unchecked = float(np.mean(_open(exact, bound))) if exact.size else 0.0
    if unchecked > OPEN_SHARE:
        text = f"output '{name}': {unchecked:.0%} of its elements have no finite bound"
        return CheckResult(False, np.inf, name, text)
    return _verdict(name, out, exact, bound, ratio)


def _verdict(name: str, out: Array, exact: Array, bound: Array, ratio: Array) -> CheckResult:
    if not ratio.size:
        return CheckResult(True, 0.0, name)
    index = tuple(int(i) for i in np.unravel_index(int(ratio.argmax()), ratio.shape))
    worst = float(ratio[index])
    worst = np.inf if np.isnan(worst) else worst
    where = f"{name}{list(index)}" if index else name
    if worst <= 1:
        return CheckResult(True, worst, where)
    text = (
        f"{where} is {out[index]}, expected {exact[index]:.9g} ± {float(bound[index]):.3g}: "
        f"{worst:.3g} times the bound"
    )
    return CheckResult(False, worst, where, text)


# -- rewrites -----------------------------------------------------------------------------
def equivalent(
    before: Body,
    after: Body,
    inputs: Mapping[str, Array],
    after_inputs: Mapping[str, Array] | None = None,
    *,
    unit: float = 2.0**-24,
) -> CheckResult:
    """Whether two Bodies agree, output by output in order, within the sum of their bounds.

    after_inputs: values by ``after``'s input names, where they differ from ``inputs``.
    """
    if len(before.outputs) != len(after.outputs):
        text = f"{len(before.outputs)} outputs before, {len(after.outputs)} after"
        return CheckResult(False, np.inf, "", text)
    given = {name: as_exact(array) for name, array in inputs.items()}
    fed = given
    if after_inputs is not None:
        fed = {n: given[n] if inputs.get(n) is a else a for n, a in after_inputs.items()}
    old, new = before.exact(given, unit=unit), after.exact(fed, unit=unit)
    results: list[CheckResult] = []
    for a, b in zip(before.outputs, after.outputs, strict=True):
        (x, e_x), (y, e_y) = old[a], new[b]
        if x.shape != y.shape or before.types[a].dtype is not after.types[b].dtype:
            text = f"output '{a}' was {before.types[a]}, is {after.types[b]}"
            results.append(CheckResult(False, np.inf, a, text))
            continue
        bound = np.asarray(e_x + e_y)
        ratio = np.where(_same(y, x), 0.0, _ratio(_gap(x, y), x, bound))
        results.append(_verdict_unless_open(a, y, x, bound, ratio))
    return max(results, key=lambda r: (not r.passed, r.worst))


def _gap(x: Array, y: Array) -> Array:
    if x.dtype.kind == "b":
        return (x != y).astype(np.float64)
    with np.errstate(invalid="ignore"):
        return np.abs(x.astype(np.float64) - y.astype(np.float64))


def check_rewrite(
    before: Body,
    after: Body,
    *,
    constants: Mapping[str, Array] | None = None,
    after_constants: Mapping[str, Array] | None = None,
    names: Callable[[str], str] = lambda name: name,
    seeds: Sequence[int] = (0, 1),
    unit: float = 2.0**-24,
) -> CheckResult:
    """Whether a rewrite kept the meaning, on sampled inputs at small free sizes.

    seeds: of the samples; all but the first are spread so far that they cross the limits written
    into the Bodies. constants, after_constants: values of the constant inputs of each Body.
    names: maps the name of an input of ``after`` to that of ``before`` that it is fed from.
    """
    sizes = small_bindings(before)
    small, changed = before.substitute(sizes), after.substitute(sizes)
    results: list[CheckResult] = []
    spread = spread_of(before, after)
    for index, seed in enumerate(seeds):
        wide = spread if index else 1.0
        given = sample_inputs(small, seed=seed, spread=wide, constants=constants)
        fed: dict[str, Array] = dict(after_constants or {})
        for i in changed.inputs:
            if i.name in fed:
                continue
            if names(i.name) not in given:
                raise NetworkError(
                    f"input '{i.name}' of the rewritten Body has no value",
                    remedy="pass it in after_constants, or map its name",
                )
            fed[i.name] = given[names(i.name)]
        results.append(equivalent(small, changed, given, fed, unit=unit))
    return max(results, key=lambda r: (not r.passed, r.worst))
