"""x·sigmoid(a·x) is Swish (SiLU where a is 1); x·clip(x/6 + ½, 0, 1) is HardSwish."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from workbench.network import Layer, NetworkDefinition, Tensor
from workbench.passes.monomials import (
    Constant,
    is_scaled_later,
    misfits,
    monomial,
    number,
    sum_of,
)
from workbench.passes.rule_pass import RulePass
from workbench.records import Refusal
from workbench.rewrite import Match, Miss, Replaced, RewriteRule


@dataclass(frozen=True)
class SwishSpelling(RulePass):
    """Folds x·sigmoid(a·x), and its piecewise linear likeness, into one operator each."""

    name: str = "swish_spelling"

    @property
    def rules(self) -> tuple[RewriteRule, ...]:
        """HardSwish first: its clip may itself be a HardSigmoid."""
        return (HARD_SWISH_SPELLING, SWISH_SPELLING)


@dataclass(frozen=True, eq=False)
class _Found:
    """x·gate(...), whatever its constants. alpha: of Swish."""

    x: Tensor
    alpha: float
    constants: tuple[Constant, ...]
    layers: tuple[Layer, ...]

    @property
    def fits(self) -> bool:
        """Whether the constants are the operator's."""
        return not misfits(self.constants, self.x)


def _swish(layer: Layer) -> Iterator[_Found]:
    for x, gate, coefficient, layers in _gated(layer):
        made = gate.producer
        if made is None or made.op != "Sigmoid" or made.inputs[0] is None:
            continue
        argument = monomial(made.inputs[0], {x})
        if argument.is_power(x, 1):
            before = ("the factor before", coefficient, 1.0)
            found = (*layers, made, *argument.layers)
            yield _Found(x, argument.coefficient, (before,), found)


def _hard_swish(layer: Layer) -> Iterator[_Found]:
    for x, gate, coefficient, layers in _gated(layer):
        made = gate.producer
        if made is None or made.inputs[0] is None:
            continue
        if made.op == "HardSigmoid" and made.inputs[0] is x:
            slope = ("HardSigmoid's alpha", made.attributes["alpha"], 1 / 6)
            offset = ("HardSigmoid's beta", made.attributes["beta"], 0.5)
            before = ("the factor before", coefficient, 1.0)
            yield _Found(x, 1.0, (slope, offset, before), (*layers, made))
        parts = sum_of(made.inputs[0]) if made.op == "Clip" else None
        if parts is None or len(made.inputs) < 3 or x not in parts[0]:
            continue
        (offset,) = [t for t in parts[0] if t is not x] or [None]
        low, high = number(made.inputs[1]), number(made.inputs[2])
        shift = number(offset)
        if low is None or high is None or shift is None:
            continue
        constants = (
            ("the factor before", coefficient, 1 / 6),
            ("the shift", shift, 3.0),
            ("Clip's upper limit", high, 6.0),
            ("Clip's lower limit + 1", low + 1, 1.0),
        )
        yield _Found(x, 1.0, constants, (*layers, made, parts[1]))


def _gated(layer: Layer) -> Iterator[tuple[Tensor, Tensor, float, tuple[Layer, ...]]]:
    """Every reading of a product as coefficient·x·gate."""
    if layer.operator is None:
        return
    out = layer.outputs[0]
    for gate in monomial(out).powers:
        made = gate.producer
        inner = made.inputs[0] if made is not None and made.inputs else None
        if inner is None:
            continue
        near = sum_of(inner)
        candidates = [inner, *monomial(inner).powers, *(near[0] if near else ())]
        for x in dict.fromkeys(candidates):
            whole = monomial(out, {gate, x})
            if whole.powers == {gate: 1, x: 1} and x.value is None:
                yield x, gate, whole.coefficient, whole.layers


@dataclass(frozen=True)
class GatedFormula:
    """Finds a product of a tensor with a gate of its own."""

    hard: bool
    operators: frozenset[str] = frozenset({"Mul", "Div"})
    depth: int = 5
    size: int = 6

    def read(self, layer: Layer) -> _Found | None:
        """The formula whose last layer this is; of several readings, the first that fits."""
        found = list(_hard_swish(layer) if self.hard else _swish(layer))
        return next((f for f in found if f.fits), found[0] if found else None)

    def find(self, layer: Layer) -> Iterator[Match]:
        """The formula whose last layer this is, as a match."""
        found = self.read(layer)
        if found is not None and (found.fits or not is_scaled_later(layer)):
            rest = sorted(dict.fromkeys(found.layers), key=lambda x: x.place)
            yield Match(tuple(rest), layer, {"x": found.x})

    def nearest_miss(self, layer: Layer) -> Miss | None:
        """None: a formula with other constants is a match, which the rule refuses."""
        return None


def _rule(name: str, finder: GatedFormula, operator: str, about: str) -> RewriteRule:
    def refuse(match: Match) -> Refusal | None:
        found = finder.read(match.root)
        assert found is not None
        for role, value, wanted in misfits(found.constants, found.x):
            text = f"{role} is {value:.6g}; {operator} has {wanted:.6g}"
            return Refusal(text, code="other_constant")
        return None

    def replace(network: NetworkDefinition, match: Match) -> Replaced:
        found = finder.read(match.root)
        assert found is not None
        attributes = {} if finder.hard else {"alpha": found.alpha}
        return network.add_layer(operator, [found.x], attributes, name=match.root.name).outputs[0]

    return RewriteRule(name, finder, replace, refuse, shares_inner=True, about=about)


SWISH_SPELLING = _rule(
    "swish_spelling",
    GatedFormula(hard=False),
    "Swish",
    "A tensor times its own sigmoid is one operator: SiLU, Swish.",
)

HARD_SWISH_SPELLING = _rule(
    "hard_swish_spelling",
    GatedFormula(hard=True),
    "HardSwish",
    "A tensor times its own clipped line is one operator.",
)
