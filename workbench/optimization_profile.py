"""OptimizationProfile: the sizes that a build is made for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from workbench.body import HostType
from workbench.dimensions import Bindings, Shape, evaluate, is_symbol, symbols_of
from workbench.errors import ConfigError
from workbench.network import NetworkDefinition, Tensor


@dataclass
class OptimizationProfile:
    """For each dynamic input, the smallest, the tuned-for and the largest shape."""

    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = field(
        default_factory=dict
    )

    def set_shape(
        self, input: str, min: Sequence[int], opt: Sequence[int], max: Sequence[int]
    ) -> OptimizationProfile:
        """Set one input's shapes; returns self. Raises ConfigError unless min <= opt <= max."""
        low, mid, high = (tuple(int(d) for d in s) for s in (min, opt, max))
        place = f"profile of input '{input}'"
        if not len(low) == len(mid) == len(high):
            raise ConfigError(f"ranks of {low}, {mid}, {high} differ", place=place)
        for axis, (a, b, c) in enumerate(zip(low, mid, high, strict=True)):
            if not 0 <= a <= b <= c:
                raise ConfigError(
                    f"axis {axis}: min {a}, opt {b}, max {c} are not in order",
                    place=place,
                    remedy="give 0 <= min <= opt <= max",
                )
        self.shapes[input] = (low, mid, high)
        return self

    def get_shape(self, input: str) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """(min, opt, max) of an input. Raises ConfigError."""
        try:
            return self.shapes[input]
        except KeyError:
            raise ConfigError(f"the profile has no shapes for input '{input}'") from None

    def bindings(self, network: NetworkDefinition, which: int) -> dict[str, int]:
        """Value of each size symbol at min (0), opt (1) or max (2). Raises ConfigError."""
        known = [t.name for t in network.inputs]
        for name in self.shapes:
            if name not in known:
                raise ConfigError(
                    "the network has no such input",
                    place=f"profile of input '{name}'",
                    remedy=f"its inputs: {', '.join(known)}",
                )
        given = [
            (t.name, _ranked_shape(t), self.shapes[t.name][which])
            for t in network.inputs
            if t.name in self.shapes
        ]
        bound: dict[str, int] = {}
        for name, wanted, shape in given:
            _bind(name, wanted, shape, bound)
        for name, wanted, shape in given:
            _check_sizes(name, wanted, shape, bound)
        missing = [s for s in network.symbols if s not in bound]
        if missing:
            ranked = [t for t in network.inputs if not isinstance(t.type, HostType)]
            inputs = [t.name for t in ranked if set(map(str, t.shape)) & set(missing)]
            raise ConfigError(
                f"dynamic size {', '.join(missing)} of input {', '.join(inputs)} has no range",
                place="optimization profile",
                remedy="config.add_optimization_profile(OptimizationProfile().set_shape("
                f"'{inputs[0] if inputs else missing[0]}', min, opt, max))",
            )
        return bound

    def to_json(self) -> dict[str, list[list[int]]]:
        return {k: [list(s) for s in v] for k, v in sorted(self.shapes.items())}

    @classmethod
    def from_json(cls, data: Mapping[str, Sequence[Sequence[int]]]) -> OptimizationProfile:
        profile = cls()
        for name, (low, mid, high) in data.items():
            profile.set_shape(name, low, mid, high)
        return profile


def pinned_sizes(
    profiles: Sequence[OptimizationProfile], network: NetworkDefinition
) -> dict[str, int]:
    """The dynamic sizes that have one value in all profiles, by their symbols."""
    found = [p.bindings(network, which) for p in profiles for which in (0, 2)]
    return {s: found[0][s] for s in network.symbols if len({b[s] for b in found}) == 1}


def _ranked_shape(tensor: Tensor) -> Shape:
    """The shape of an input. Raises ConfigError where it has none."""
    if isinstance(tensor.type, HostType):
        raise ConfigError(
            f"it is a {tensor.type} and takes no shapes",
            place=f"profile of input '{tensor.name}'",
            remedy="leave it out of the profile",
        )
    return tensor.shape


def _bind(name: str, wanted: Shape, given: tuple[int, ...], bound: dict[str, int]) -> None:
    """Give the symbols of an input's shape their values. Raises ConfigError where two differ."""
    place = f"profile of input '{name}'"
    if len(given) != len(wanted):
        raise ConfigError(
            f"shape {given} has rank {len(given)}, the input has {wanted}", place=place
        )
    for want, have in zip(wanted, given, strict=True):
        if is_symbol(want) and bound.setdefault(str(want), have) != have:
            raise ConfigError(
                f"'{want}' is {bound[str(want)]} in one input and {have} in another", place=place
            )


def _check_sizes(name: str, wanted: Shape, given: tuple[int, ...], bound: Bindings) -> None:
    """Raises ConfigError where a number or an expression has another size than was given."""
    for want, have in zip(wanted, given, strict=True):
        if symbols_of(want) <= set(bound) and (size := evaluate(want, bound)) != have:
            where = ", ".join(f"{s} = {bound[s]}" for s in sorted(symbols_of(want)))
            raise ConfigError(
                f"size {have} where the network has {want}"
                + (f" = {size} with {where}" if where else ""),
                place=f"profile of input '{name}'",
            )
