"""Recurrent layers: RNN, GRU and LSTM, over arrays or Tracked values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from workbench import dimensions
from workbench.body import (
    Array,
    Attributes,
    Cost,
    CostRule,
    Inference,
    InferRule,
    Operator,
    Reference,
    TensorType,
)
from workbench.errors import InferenceError
from workbench.operators.products import operand
from workbench.operators.rules import absent, one_dtype
from workbench.operators.tracking import Value, applied, chosen, stacked, tracked

DIRECTIONS = ("forward", "reverse", "bidirectional")


# -- activations --------------------------------------------------------------------------
def _sigmoid(x: Array) -> Array:
    return (1 / (1 + np.exp(-x))).astype(x.dtype, copy=False)


@dataclass(frozen=True)
class _Activation:
    """A function (x, alpha, beta), and the defaults; None: it takes none."""

    function: Callable[[Array, float, float], Array]
    alpha: float | None = None
    beta: float | None = None


# Defaults: those of the ONNX operators of the same names; ONNX gives none for Affine and
# ScaledTanh, which are 1 and 0, and 1 and 1 here.
_ACTIVATIONS = MappingProxyType(
    {
        "affine": _Activation(lambda x, a, b: a * x + b, 1.0, 0.0),
        "elu": _Activation(lambda x, a, b: np.where(x < 0, a * np.expm1(x), x), 1.0),
        "hardsigmoid": _Activation(lambda x, a, b: np.clip(a * x + b, 0, 1), 0.2, 0.5),
        "leakyrelu": _Activation(lambda x, a, b: np.where(x < 0, a * x, x), 0.01),
        "relu": _Activation(lambda x, a, b: np.maximum(x, 0)),
        "scaledtanh": _Activation(lambda x, a, b: a * np.tanh(b * x), 1.0, 1.0),
        "sigmoid": _Activation(lambda x, a, b: _sigmoid(x)),
        "softplus": _Activation(lambda x, a, b: np.logaddexp(x, 0 * x)),
        "softsign": _Activation(lambda x, a, b: x / (1 + np.abs(x))),
        "tanh": _Activation(lambda x, a, b: np.tanh(x)),
        "thresholdedrelu": _Activation(lambda x, a, b: np.where(x > a, x, 0 * x), 1.0),
    }
)

Function = Callable[[Value], Value]


def activations_of(
    attributes: Attributes, defaults: Sequence[str]
) -> list[tuple[str, float, float]]:
    """Every direction's activations, one direction after the other: name, alpha and beta.

    Names are in lower case; what a function does not take is 0. defaults: of one direction.
    """
    count = 2 if attributes["direction"] == "bidirectional" else 1
    # The standard's default of RNN names two, for either count of directions.
    names = (attributes["activations"] or tuple(defaults) * count)[: len(defaults) * count]
    alphas: Iterator[float] = iter(attributes["activation_alpha"] or ())
    betas: Iterator[float] = iter(attributes["activation_beta"] or ())
    found: list[tuple[str, float, float]] = []
    for name in names:
        row = _ACTIVATIONS[name.lower()]
        a = next(alphas, row.alpha) if row.alpha is not None else None
        b = next(betas, row.beta) if row.beta is not None else None
        found.append((name.lower(), a or 0.0, b or 0.0))
    return found


def _functions(attributes: Attributes, defaults: Sequence[str]) -> list[Function]:
    clip = attributes["clip"]
    given = activations_of(attributes, defaults)
    return [_bound_function(_ACTIVATIONS[name], a, b, clip) for name, a, b in given]


def _bound_function(row: _Activation, a: float, b: float, clip: float | None) -> Function:
    def function(x: Array) -> Array:
        kept = x if clip is None else np.clip(x, -clip, clip)
        return row.function(kept, a, b).astype(x.dtype, copy=False)

    return lambda x: applied(function, x)


# -- cells --------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Direction:
    """The weights of one direction. bias: of input and recurrence. peepholes: of an LSTM."""

    w: Value
    r: Value
    bias: Value
    recurrent_bias: Value
    peepholes: Value
    functions: Sequence[Function]


Cell = Callable[[Attributes, _Direction, Value, tuple[Value, ...]], tuple[Value, ...]]
"""(attributes, direction, W·x of the step, state) -> the next state; state[0] is the output."""


def _parts(x: Value, count: int) -> list[Value]:
    size = x.shape[-1] // count
    return [x[..., k * size : (k + 1) * size] for k in range(count)]


def _rnn_cell(
    attributes: Attributes, d: _Direction, x: Value, state: tuple[Value, ...]
) -> tuple[Value, ...]:
    (f,) = d.functions
    return (f(x + state[0] @ d.r.transpose(1, 0) + d.bias + d.recurrent_bias),)


def _gru_cell(
    attributes: Attributes, d: _Direction, x: Value, state: tuple[Value, ...]
) -> tuple[Value, ...]:
    f, g = d.functions
    (h,) = state
    x_z, x_r, x_h = _parts(x + d.bias, 3)
    b_z, b_r, b_h = _parts(d.recurrent_bias, 3)
    size = d.r.shape[-1]
    r_z, r_r, r_h = (d.r[k * size : (k + 1) * size].transpose(1, 0) for k in range(3))
    update = f(x_z + h @ r_z + b_z)
    reset = f(x_r + h @ r_r + b_r)
    if attributes["linear_before_reset"]:
        hidden = g(x_h + reset * (h @ r_h + b_h))
    else:
        hidden = g(x_h + (reset * h) @ r_h + b_h)
    return ((1 - update) * hidden + update * h,)


def _lstm_cell(
    attributes: Attributes, d: _Direction, x: Value, state: tuple[Value, ...]
) -> tuple[Value, ...]:
    f, g, h = d.functions
    before, cell = state
    gates = x + before @ d.r.transpose(1, 0) + d.bias + d.recurrent_bias
    i, o, forget, c = _parts(gates, 4)
    p_i, p_o, p_f = _parts(d.peepholes, 3)
    i = f(i + p_i * cell)
    forget = 1 - i if attributes["input_forget"] else f(forget + p_f * cell)
    cell = forget * cell + i * g(c)
    return f(o + p_o * cell) * h(cell), cell


# -- sequences ----------------------------------------------------------------------------
def _recurrent(cell: Cell, gates: int, defaults: Sequence[str], states: int) -> Reference:
    """The reference of a recurrent operator; it also runs on Tracked values."""

    def reference(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Any, ...]:
        x, w, r, bias, lengths = (operand(inputs, i) for i in range(5))
        if attributes["layout"]:
            x = x.transpose(1, 0, 2)
        steps, batch, hidden = x.shape[0], x.shape[1], r.shape[-1]
        lengths = np.full(batch, steps) if lengths is None else np.asarray(lengths)
        functions, kind = _functions(attributes, defaults), getattr(x, "dtype", np.float64)
        ys: list[Value] = []
        finals: list[tuple[Value, ...]] = []
        for k in range(w.shape[0]):
            backward = k == 1 or attributes["direction"] == "reverse"
            initial = [_initial(attributes, inputs, 5 + s, k) for s in range(states)]
            zeros = np.zeros((batch, hidden), kind)
            state = tuple(zeros if s is None else s for s in initial)
            none = np.zeros(gates * hidden, kind)
            peepholes = operand(inputs, 7) if states == 2 else None
            direction = _Direction(
                w[k],
                r[k],
                none if bias is None else bias[k][: gates * hidden],
                none if bias is None else bias[k][gates * hidden :],
                np.zeros(3 * hidden, kind) if peepholes is None else peepholes[k],
                functions[k * len(defaults) : (k + 1) * len(defaults)],
            )
            y, final = _run(attributes, cell, direction, x, state, lengths, backward=backward)
            ys.append(y)
            finals.append(final)
        y = stacked(ys, 1)
        ends = [stacked([f[s] for f in finals], 0) for s in range(states)]
        if attributes["layout"]:
            y, ends = y.transpose(2, 0, 1, 3), [e.transpose(1, 0, 2) for e in ends]
        return y, *ends

    return reference


def _initial(attributes: Attributes, inputs: Sequence[Any], index: int, k: int) -> Value | None:
    given = operand(inputs, index)
    if given is None:
        return None
    return given[:, k] if attributes["layout"] else given[k]


def _run(
    attributes: Attributes,
    cell: Cell,
    direction: _Direction,
    x: Value,
    state: tuple[Value, ...],
    lengths: Array,
    *,
    backward: bool,
) -> tuple[Value, tuple[Value, ...]]:
    """One direction over the sequences; beyond a sequence's end lie zeros."""
    steps = x.shape[0]
    time, rows = np.arange(steps)[:, None], np.arange(x.shape[1])
    order = np.where(time < lengths, lengths - 1 - time, time) if backward else time + 0 * rows
    x = x[order, rows]
    projected = x @ direction.w.transpose(1, 0)
    outputs: list[Value] = []
    for t in range(steps):
        made = cell(attributes, direction, projected[t], state)
        alive = (t < lengths)[:, None]
        state = tuple(chosen(alive, n, s) for n, s in zip(made, state, strict=True))
        outputs.append(chosen(alive, made[0], 0 * made[0]))
    return stacked(outputs, 0)[order, rows], state


# -- types and rows -----------------------------------------------------------------------
def _types(gates: int, defaults: Sequence[str], states: int) -> InferRule:
    def infer(inference: Inference) -> tuple[TensorType, ...]:
        x, w, r = (inference.input(i) for i in range(3))
        dtype = one_dtype(x, w, r)
        a = inference.attributes
        if not dtype.is_float or (len(x.shape), len(w.shape), len(r.shape)) != (3, 3, 3):
            raise InferenceError(f"inputs are {x}, {w}, {r}", remedy="give floats of rank 3")
        _check_attributes(a, defaults)
        directions, hidden = r.shape[0], r.shape[2]
        if directions != 1 + (a["direction"] == "bidirectional") or not isinstance(hidden, int):
            raise InferenceError(
                f"R is {r.shape}, direction {a['direction']}", remedy="give a kernel a direction"
            )
        wanted = (directions, gates * hidden, hidden)
        if r.shape != wanted or not dimensions.may_equal(w.shape, (*wanted[:2], x.shape[2])):
            raise InferenceError(
                f"W is {w.shape}, R {r.shape}; expected {(*wanted[:2], x.shape[2])}, {wanted}",
                remedy=f"give {gates} gates",
            )
        if not absent(inference, 4) and not inference.input(4).dtype.is_integer:
            raise InferenceError("sequence_lens are no integers", remedy="cast them to INT32")
        batch, steps = (x.shape[0], x.shape[1]) if a["layout"] else (x.shape[1], x.shape[0])
        if a["layout"]:
            y, end = (batch, steps, directions, hidden), (batch, directions, hidden)
        else:
            y, end = (steps, directions, batch, hidden), (directions, batch, hidden)
        found = (TensorType(dtype, y), *(TensorType(dtype, end) for _ in range(states)))
        return found[: inference.outputs]

    return infer


def _check_attributes(attributes: Attributes, defaults: Sequence[str]) -> None:
    if attributes["direction"] not in DIRECTIONS:
        raise InferenceError(
            f"direction is {attributes['direction']!r}", remedy=f"use {', '.join(DIRECTIONS)}"
        )
    given = attributes["activations"]
    count = len(defaults) * (2 if attributes["direction"] == "bidirectional" else 1)
    unknown = [n for n in given or () if n.lower() not in _ACTIVATIONS]
    if unknown or (given is not None and len(given) < count):
        raise InferenceError(
            f"activations are {given}", remedy=f"give {count} of {', '.join(_ACTIVATIONS)}"
        )


def _cost(gates: int) -> CostRule:
    def cost(
        attributes: Attributes, inputs: Sequence[TensorType | None], outputs: Sequence[TensorType]
    ) -> Cost:
        x, w, r = inputs[:3]
        assert x is not None and w is not None and r is not None
        rows = int(x.shape[0] * x.shape[1])
        weights = int(dimensions.volume(w.shape) + dimensions.volume(r.shape))
        moved = sum(int(t.nbytes()) for t in (*inputs, *outputs) if t is not None)
        return Cost(2 * rows * weights, moved)

    return cost


def _row(
    name: str, cell: Cell, gates: int, defaults: tuple[str, ...], states: int, **attributes: Any
) -> Operator:
    reference = _recurrent(cell, gates, defaults, states)
    return Operator(
        name=name,
        infer=_types(gates, defaults, states),
        reference=reference,
        bound=tracked(reference, indices=frozenset({4})),
        layer_type="LOOP",
        family="recurrence",
        cost=_cost(gates),
        attributes=MappingProxyType(
            {
                "activation_alpha": None,
                "activation_beta": None,
                "activations": None,
                "clip": None,
                "direction": "forward",
                "hidden_size": None,
                "layout": 0,
                **attributes,
            }
        ),
    )


RECURRENCE: tuple[Operator, ...] = (
    _row("RNN", _rnn_cell, 1, ("Tanh",), 1, activations=("Tanh", "Tanh")),
    _row("GRU", _gru_cell, 3, ("Sigmoid", "Tanh"), 1, linear_before_reset=0),
    _row("LSTM", _lstm_cell, 4, ("Sigmoid", "Tanh", "Tanh"), 2, input_forget=0),
)
