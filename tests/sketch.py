"""Sketch: a small network by hand, rewritten, and proved the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from workbench import fusions, passes
from workbench.body import Array
from workbench.network import NetworkDefinition, Tensor
from workbench.records import Attempt
from workbench.rewrite import RewriteRule, replay


class Sketch:
    """A network under construction. ``sketch("Relu", x, name="act")`` adds a layer.

    A layer's name is also its origin, as if a model had been parsed.
    """

    def __init__(self, seed: int = 0) -> None:
        self.network = NetworkDefinition("sketch")
        self.random = np.random.default_rng(seed)
        self.sizes = {"batch": 2}

    def input(self, *shape: int | str, name: str = "x", dtype: str = "float32") -> Tensor:
        return self.network.add_input(name, dtype, shape)

    def weight(self, *shape: int, name: str = "w", dtype: str = "float32") -> Tensor:
        """A random constant."""
        return self.value(self.random.standard_normal(shape).astype(dtype), name=name)

    def value(self, array: Any, name: str = "v") -> Tensor:
        """A given constant; Python floats become float32."""
        given = np.asarray(array)
        return self.network.constant(
            given.astype(np.float32) if given.dtype == np.float64 else given, name
        )

    def __call__(
        self, operator: str, *inputs: Tensor | None, name: str = "", **attributes: Any
    ) -> Tensor:
        return self.layer(operator, *inputs, name=name, **attributes)[0]

    def layer(
        self,
        operator: str,
        *inputs: Tensor | None,
        name: str = "",
        outputs: int = 1,
        **attributes: Any,
    ) -> list[Tensor]:
        """As a call, with all outputs."""
        name = self.network.unique_layer(name or operator.lower())
        layer = self.network.add_layer(
            operator, inputs, attributes, name=name, outputs=outputs, origin=(name,)
        )
        return layer.outputs

    def conv(self, x: Tensor, channels: int, kernel: int = 3, *, name: str, **more: Any) -> Tensor:
        """A convolution without bias that keeps the size."""
        w = self.weight(channels, x.shape[1], kernel, kernel, name=f"{name}.w")
        pads = more.pop("pads", (kernel // 2,) * 4)
        return self("Conv", x, w, name=name, pads=pads, **more)

    def norm(self, x: Tensor, *, name: str) -> Tensor:
        """A batch normalization."""
        c = x.shape[1]
        var = self.value(0.5 + np.abs(self.random.standard_normal(c)), f"{name}.var")
        rest = [self.weight(c, name=f"{name}.{n}") for n in ("scale", "bias", "mean")]
        return self("BatchNormalization", x, *rest, var, name=name)

    def linear(self, x: Tensor, columns: int, *, name: str) -> Tensor:
        """A MatMul with a weight."""
        return self("MatMul", x, self.weight(x.shape[-1], columns, name=f"{name}.w"), name=name)

    def quantize(self, x: Tensor, scale: float = 0.05, *, name: str) -> Tensor:
        """QuantizeLinear and DequantizeLinear, INT8, per tensor."""
        s, z = self.value(scale, f"{name}.scale"), self.value(np.int8(0), f"{name}.zero")
        q = self("QuantizeLinear", x, s, z, name=f"{name}.q")
        return self("DequantizeLinear", q, s, z, name=f"{name}.dq")

    def stored(self, *shape: int, axis: int = 0, name: str = "w") -> Tensor:
        """A dequantized INT8 constant, one scale per channel."""
        array = self.random.integers(-127, 128, shape).astype(np.int8)
        scale = self.value(0.01 + 0.01 * self.random.random(shape[axis]), f"{name}.scale")
        q = self.value(array, f"{name}.int8")
        return self("DequantizeLinear", q, scale, name=f"{name}.dq", axis=axis)

    def output(self, *tensors: Tensor) -> None:
        for t in tensors:
            self.network.mark_output(t)

    def feeds(self) -> dict[str, Array]:
        """A random value for each input."""
        feeds: dict[str, Array] = {}
        for t in self.network.inputs:
            shape = [d if isinstance(d, int) else self.sizes.get(str(d), 3) for d in t.shape]
            feeds[t.name] = self.random.standard_normal(shape).astype(t.dtype.numpy)
        return feeds

    # -- rewriting ------------------------------------------------------------------------
    def fold(self) -> tuple[Attempt, ...]:
        """Fold; prove it."""
        return self.rewrite(lambda n: passes.fold(n, verify="all"), passes.RULES)

    def fuse(self) -> tuple[Attempt, ...]:
        """Fuse; prove it."""
        return self.rewrite(lambda n: fusions.fuse(n, verify="all"), fusions.FUSIONS)

    def rewrite(
        self,
        stage: Callable[[NetworkDefinition], tuple[Attempt, ...]],
        rules: Sequence[RewriteRule],
    ) -> tuple[Attempt, ...]:
        """Rewrite; prove the same outputs, a faithful replay, and that no node got lost."""
        self.network.verify()
        before, again, feeds = self.network.clone(), self.network.clone(), self.feeds()
        nodes = {o for x in before.layers for o in x.origin}
        attempts = stage(self.network)
        self.network.verify()
        assert_same_outputs(before, self.network, feeds)
        replay(again, attempts, rules)
        assert_same_network(self.network, again)
        left = {o for x in self.network.layers for o in x.origin} | set(self.network.absorbed)
        assert nodes <= left
        return attempts

    def operators(self) -> list[str]:
        """Each layer's operators, joined by +."""
        return ["+".join(x.operator_names) for x in self.network.layers]


def assert_same_outputs(
    before: NetworkDefinition, after: NetworkDefinition, feeds: dict[str, Array]
) -> None:
    expected, found = before.run(feeds), after.run(feeds)
    assert list(expected) == list(found)
    for name, array in expected.items():
        if array.dtype.kind == "f":
            scale = float(np.abs(array).max(initial=1e-30))
            np.testing.assert_allclose(found[name] / scale, array / scale, atol=2e-5)
        else:
            np.testing.assert_array_equal(found[name], array)


def assert_same_network(one: NetworkDefinition, other: NetworkDefinition) -> None:
    assert str(one) == str(other)
    for x, y in zip(one.layers, other.layers, strict=True):
        assert (x.name, x.origin, x.cause, x.body) == (y.name, y.origin, y.cause, y.body)
    for name, t in one.tensors.items():
        if t.weight is not None:
            np.testing.assert_array_equal(t.weight.array, other.tensor(name).weight.array)
    assert one.absorbed == other.absorbed


def applied(attempts: Sequence[Attempt], rule: str) -> list[Attempt]:
    """The rule's applied attempts."""
    return [a for a in attempts if a.rule == rule and a.applied]


def refusal(attempts: Sequence[Attempt], rule: str) -> tuple[str, str]:
    """Code and reason of the rule's only refused attempt."""
    (found,) = [a for a in attempts if a.rule == rule and not a.applied]
    assert found.refusal is not None
    return found.refusal.code, found.refusal.reason
