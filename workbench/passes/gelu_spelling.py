"""GELU written out, by erf or by tanh, in any order of its factors, is one Gelu.

x·Φ(x) = x·½·(1 + erf(x/√2)), or x·½·(1 + tanh(√(2/π)·(x + 0.044715·x³))).
Source: Hendrycks and Gimpel, arXiv:1606.08415.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from workbench.network import Layer, NetworkDefinition, Tensor
from workbench.passes.monomials import (
    Constant,
    Monomial,
    is_scaled_later,
    misfits,
    monomial,
    number,
    sum_of,
)
from workbench.passes.rule_pass import RulePass
from workbench.records import Refusal
from workbench.rewrite import Match, Miss, Replaced, RewriteRule

HALF = 0.5
ERF_SCALE = math.sqrt(0.5)
TANH_SCALE = math.sqrt(2 / math.pi)
CUBIC = 0.044715


@dataclass(frozen=True)
class GeluSpelling(RulePass):
    """Folds the written-out Gaussian error linear unit into Gelu, exact or approximate."""

    name: str = "gelu_spelling"

    @property
    def rules(self) -> tuple[RewriteRule, ...]:
        """One rule, rooted at the last product."""
        return (GELU_SPELLING,)


@dataclass(frozen=True, eq=False)
class _Found:
    """A formula of GELU's form, whatever its constants."""

    x: Tensor
    approximate: str
    constants: tuple[Constant, ...]
    layers: tuple[Layer, ...]

    @property
    def fits(self) -> bool:
        """Whether the constants are GELU's."""
        return not misfits(self.constants, self.x)


@dataclass(frozen=True)
class GeluFormula:
    """Finds the product x·(1 + f(...))·½ where f is Erf or Tanh."""

    operators: frozenset[str] = frozenset({"Mul", "Div"})
    depth: int = 9
    size: int = 12

    def find(self, layer: Layer) -> Iterator[Match]:
        """The formula whose last product this is."""
        found = _formula(layer)
        if found is not None and (found.fits or not is_scaled_later(layer)):
            rest = sorted(found.layers, key=lambda x: x.place)
            yield Match(tuple(rest), layer, {"x": found.x})

    def nearest_miss(self, layer: Layer) -> Miss | None:
        """None: a formula with other constants is a match, which the rule refuses."""
        return None


def _formula(layer: Layer) -> _Found | None:
    """The formula that ends here; of several readings, the first whose constants fit."""
    found = list(_formulas(layer))
    return next((f for f in found if f.fits), found[0] if found else None)


def _formulas(layer: Layer) -> Iterator[_Found]:
    if layer.operator is None:
        return
    out = layer.outputs[0]
    whole = monomial(out)
    for gate in whole.powers:
        parts = sum_of(gate)
        if parts is None or whole.powers[gate] != 1:
            continue
        (a, b), add = parts
        for one, bent in ((a, b), (b, a)):
            made = bent.producer
            if number(one) is None or made is None or made.op not in ("Erf", "Tanh"):
                continue
            inner = made.inputs[0]
            assert inner is not None
            read = _erf if made.op == "Erf" else _tanh
            for x in _bases(inner):
                found = read(out, gate, x, inner)
                if found is not None:
                    layers = (*found.layers, add, made)
                    extra = ("the 1 beside it", number(one) or 0.0, 1.0)
                    constants = (*found.constants, extra)
                    yield _Found(x, found.approximate, constants, tuple(dict.fromkeys(layers)))


def _bases(inner: Tensor) -> list[Tensor]:
    """Tensors that may be x: everything on the way up from f's argument, nearest first."""
    found: dict[Tensor, None] = {inner: None}
    for t in list(monomial(inner).powers):
        found[t] = None
    for t in list(found):
        parts = sum_of(t)
        for s in parts[0] if parts else ():
            found[s] = None
            found |= dict.fromkeys(monomial(s).powers)
    layer = inner.producer
    while layer is not None and layer.op in ("Mul", "Div"):
        computed = [t for t in layer.inputs if t is not None and number(t) is None]
        found |= dict.fromkeys(computed)
        layer = computed[0].producer if len(computed) == 1 else None
    return [t for t in found if t.value is None]


def _outside(out: Tensor, gate: Tensor, x: Tensor) -> Monomial | None:
    whole = monomial(out, {gate, x})
    return whole if whole.powers == {gate: 1, x: 1} else None


def _erf(out: Tensor, gate: Tensor, x: Tensor, inner: Tensor) -> _Found | None:
    whole, argument = _outside(out, gate, x), monomial(inner, {x})
    if whole is None or not argument.is_power(x, 1):
        return None
    constants = (
        ("the factor before", whole.coefficient, HALF),
        ("the factor inside erf", argument.coefficient, ERF_SCALE),
    )
    return _Found(x, "none", constants, (*whole.layers, *argument.layers))


def _tanh(out: Tensor, gate: Tensor, x: Tensor, inner: Tensor) -> _Found | None:
    whole, argument = _outside(out, gate, x), monomial(inner, {x})
    if whole is None:
        return None
    for base in argument.powers:
        parts = sum_of(base)
        rest = {t: p for t, p in argument.powers.items() if t is not base}
        if parts is None or argument.powers[base] != 1 or rest not in ({}, {x: 1}):
            continue
        cubic = _cubic(parts[0], x, lower=1 if not rest else 0)
        if cubic is None:
            continue
        constants = (
            ("the factor before", whole.coefficient, HALF),
            ("the factor inside tanh", argument.coefficient, TANH_SCALE),
            ("the factor of the cube", cubic.coefficient, CUBIC),
        )
        layers = (*whole.layers, *argument.layers, *cubic.layers, parts[1])
        return _Found(x, "tanh", constants, layers)
    return None


def _cubic(parts: tuple[Tensor, Tensor], x: Tensor, *, lower: int) -> Monomial | None:
    """The higher term of x + k·x³, or of 1 + k·x² where x stands before it (``lower`` 0)."""
    for low, high in (parts, parts[::-1]):
        fits = low is x if lower else number(low) == 1
        term = monomial(high, {x})
        if fits and term.is_power(x, lower + 2):
            return term
    return None


def _other_constants(match: Match) -> Refusal | None:
    found = _formula(match.root)
    assert found is not None
    for role, value, wanted in misfits(found.constants, found.x):
        return Refusal(f"{role} is {value:.6g}; GELU has {wanted:.6g}", code="other_constant")
    return None


def _one_gelu(network: NetworkDefinition, match: Match) -> Replaced:
    found = _formula(match.root)
    assert found is not None
    attributes = {"approximate": found.approximate}
    return network.add_layer("Gelu", [found.x], attributes, name=match.root.name).outputs[0]


GELU_SPELLING = RewriteRule(
    "gelu_spelling",
    GeluFormula(),
    _one_gelu,
    _other_constants,
    shares_inner=True,
    about="GELU written out, by erf or by tanh, is one operator.",
)
