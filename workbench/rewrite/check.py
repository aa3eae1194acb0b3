"""Checker: rewrites proved on numbers as they are applied, each distinct one once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from workbench.body import Array, Body, TensorType
from workbench.checks import bit_equal, check_rewrite, equivalent
from workbench.errors import NetworkError
from workbench.network.editing import Closure
from workbench.network.graph import SMALL
from workbench.records import Refusal
from workbench.rewrite.rule import RewriteRule
from workbench.rewrite.smaller import at_small_sizes, smallest, stand_ins, with_sizes
from workbench.sampling import sample_inputs, small_bindings

SEEDS = (0, 1)


class Checker:
    """Runs the numeric check of rewrites as often as ``verify`` asks.

    ``distinct``: each (rule, Body before, Body after, constants) once, and each change of weights
    by itself, at smaller sizes where ``stand_ins`` finds some (what differs there is looked at
    again without them); ``all``: every rewrite, without stand-ins; ``none``: none. Raises
    NetworkError for another word.
    """

    def __init__(self, verify: str) -> None:
        if verify not in ("all", "distinct", "none"):
            raise NetworkError(f"verify is '{verify}'", remedy="use 'all', 'distinct' or 'none'")
        self.verify = verify
        self._known: dict[tuple[str, ...], Refusal | None] = {}
        self._samples: dict[tuple[str, ...], _Sample] = {}

    def asks(self, rule: RewriteRule) -> bool:
        """Whether a replacement by this rule is looked at."""
        return self.verify == "all" or (self.verify == "distinct" and not rule.exact)

    def replaced(
        self, rule: RewriteRule, before: Body, after: Body, constants: Mapping[str, Array]
    ) -> Refusal | None:
        """Why the Bodies before and after differ by more than their bounds, or None."""
        if self.verify == "all":
            return _unequal(rule, before, after, constants, SEEDS, whole=True)
        inputs = _inputs(before, after)
        key = (rule.name, before.signature, after.signature, *_wiring(before, after, inputs))
        if rule.changes_weights:
            return self._weights(rule, before, after, constants, key)
        key = (*key, _digest(inputs, constants))
        if key not in self._known:
            self._known[key] = _unequal(rule, before, after, constants, SEEDS)
        return self._known[key]

    def _weights(
        self,
        rule: RewriteRule,
        before: Body,
        after: Body,
        constants: Mapping[str, Array],
        key: tuple[str, ...],
    ) -> Refusal | None:
        """As ``replaced``, of a rule that makes new weights: each by itself.

        The same change of other weights needs one sample only, and that of the first.
        """
        inputs = _inputs(before, after)
        sample = self._samples.get(key)
        given = {i: constants[n] for i, n in enumerate(inputs) if n in constants}
        if sample is not None and sample.unequal(given) is None:
            return None
        refusal = _unequal(rule, before, after, constants, SEEDS)
        if refusal is None and sample is None:
            self._samples[key] = _sampled(rule, before, after, constants)
        return refusal

    def fused(self, rule: RewriteRule, closure: Closure) -> Refusal | None:
        """Why the fused Body does not give what its layers give one by one, or None.

        Both are evaluated by the typed reference on the same samples: to the last bit the same.
        """
        if self.verify == "none":
            return None
        if self.verify == "all":
            return _apart(closure, whole=True)
        key = (rule.name, closure.body.signature)
        if key not in self._known:
            self._known[key] = _apart(closure)
        return self._known[key]


def _quarantined(message: str) -> Refusal:
    return Refusal(
        f"quarantined: {message}",
        remedy="the rule is wrong here: report it; the build goes on without it",
        code="check_failed",
    )


def _unequal(
    rule: RewriteRule,
    before: Body,
    after: Body,
    constants: Mapping[str, Array],
    seeds: Sequence[int],
    *,
    whole: bool = False,
) -> Refusal | None:
    if rule.any_size:
        before, after = at_small_sizes(before, after)
    try:
        bindings = small_bindings(before)
        old, new = before.substitute(bindings), after.substitute(bindings)
        choices = () if whole else stand_ins((old, new), fixed=constants)
    except NetworkError as e:
        return _unchecked(e)
    answers = (
        _compared(with_sizes(old, sizes), with_sizes(new, sizes), constants, seeds)
        for sizes in choices
    )
    if choices and all(answer is None for answer in answers):
        return None
    return _compared(old, new, constants, seeds)


def _compared(
    before: Body, after: Body, constants: Mapping[str, Array], seeds: Sequence[int]
) -> Refusal | None:
    try:
        result = check_rewrite(
            before, after, constants=constants, after_constants=constants, seeds=seeds
        )
    except NetworkError as e:
        return _unchecked(e)
    return None if result.passed else _quarantined(result.message)


def _unchecked(error: NetworkError) -> Refusal:
    return Refusal(
        f"it could not be checked: {error}",
        remedy="verify='none' makes it unchecked",
        code="unchecked",
    )


@dataclass(frozen=True)
class _Sample:
    """A rewrite at small sizes, with samples of what is read, for the same one of other weights.

    inputs: names of the inputs of both Bodies, as ``_inputs`` orders them.
    """

    before: Body
    after: Body
    inputs: tuple[str, ...]
    data: Mapping[str, Array]

    def unequal(self, constants: Mapping[int, Array]) -> Refusal | None:
        """Why the Bodies differ on these constants, by place in ``inputs``; None if they do not."""
        given = {**self.data, **{self.inputs[i]: array for i, array in constants.items()}}
        try:
            result = equivalent(self.before, self.after, given)
        except NetworkError as e:
            return _unchecked(e)
        return None if result.passed else _quarantined(result.message)


def _sampled(
    rule: RewriteRule, before: Body, after: Body, constants: Mapping[str, Array]
) -> _Sample:
    inputs = _inputs(before, after)
    if rule.any_size:
        before, after = at_small_sizes(before, after)
    sizes = small_bindings(before)
    small, changed = before.substitute(sizes), after.substitute(sizes)
    for choice in stand_ins((small, changed), fixed=constants)[:1]:
        small, changed = with_sizes(small, choice), with_sizes(changed, choice)
    given = sample_inputs(small, constants=constants)
    data = {name: array for name, array in given.items() if name not in constants}
    return _Sample(small, changed, inputs, data)


def _inputs(before: Body, after: Body) -> tuple[str, ...]:
    """Names of the inputs of both Bodies, each once."""
    return tuple(dict.fromkeys(i.name for i in (*before.inputs, *after.inputs)))


def _wiring(before: Body, after: Body, inputs: Sequence[str]) -> tuple[str, ...]:
    """Which input of one Body is which of the other."""
    place = {name: str(index) for index, name in enumerate(inputs)}
    return tuple(place[i.name] for i in (*before.inputs, *after.inputs))


def _digest(inputs: Sequence[str], constants: Mapping[str, Array]) -> str:
    """Of what rules may look at in the constants before they fit.

    That is every value, but for large weights: of those whether all are one number, and which.
    """
    digest = hashlib.blake2b(digest_size=16)
    for index, name in enumerate(inputs):
        array = constants.get(name)
        if array is None:
            continue
        if array.size > SMALL and array.dtype.kind == "f":
            first = array.reshape(-1)[:1]
            array = first if bool(np.all(array == first)) else first[:0]
        digest.update(f"{index} {array.dtype} {array.shape}:".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


# -- fused layers -----------------------------------------------------------------------------
def _apart(closure: Closure, *, whole: bool = False) -> Refusal | None:
    if not all(n.operator.deterministic for n in closure.body.nodes):
        return None
    try:
        bindings = small_bindings(closure.body)
        body = smallest(closure.body.substitute(bindings))
        choices = () if whole else stand_ins((body,))
    except NetworkError as e:
        return _unchecked(e)
    # One choice is enough: on both sides the same nodes meet the same numbers.
    for sizes in choices[:1]:
        if _differs(closure, with_sizes(body, sizes), bindings, sizes) is None:
            return None
    return _differs(closure, body, bindings, {})


def _differs(
    closure: Closure, body: Body, bindings: Mapping[str, int], sizes: Mapping[int, int]
) -> Refusal | None:
    """body: the closure's with these bindings, some sizes cut, and some replaced."""
    try:
        return _unlike(closure, body, bindings, sizes)
    except NetworkError as e:
        return _unchecked(e)


def _unlike(
    closure: Closure, body: Body, bindings: Mapping[str, int], sizes: Mapping[int, int]
) -> Refusal | None:
    given = sample_inputs(body)
    together = body.evaluate(given)
    values = {t.name: given[i.name] for i, t in zip(body.inputs, closure.operands, strict=True)}
    for layer in closure.layers:
        step = with_sizes(layer.body.substitute(bindings), sizes)
        read = {i.name: values[t.name] for i, t in zip(step.inputs, layer.operands, strict=True)}
        made = _retyped(step, read).evaluate(read)
        values.update({t.name: made[o] for o, t in zip(step.outputs, layer.outputs, strict=True)})
    for value, tensor in zip(body.outputs, closure.outputs, strict=True):
        if not bit_equal({value: together[value]}, {value: values[tensor.name]}):
            return _quarantined(f"'{tensor.name}' is not what the layers give one by one")
    return None


def _retyped(body: Body, inputs: Mapping[str, Array]) -> Body:
    """The Body at the shapes of these inputs."""
    typed = tuple(
        replace(i, type=TensorType(i.type.dtype, inputs[i.name].shape)) for i in body.inputs
    )
    return Body(typed, body.nodes, body.outputs, body.anchor)
