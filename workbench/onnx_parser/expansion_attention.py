"""Attention written as products, a bias and a Softmax: what fusions and tactics know.

The standard's own body builds every size at run time; here they are read from the types. Rare
forms are left to it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from workbench.datatypes import DataType
from workbench.onnx_parser.element_types import FROM_ONNX
from workbench.onnx_parser.problems import ErrorCode
from workbench.onnx_parser.site import Site, Step

MASK, PAST_KEY, PAST_VALUE, VALID_LENGTHS = 3, 4, 5, 6
"""Indices of the optional inputs."""


def attention(site: Site) -> tuple[Step, ...]:
    """Softmax(softcap(s·Q·Kᵀ) + bias)·V, per head; nothing for rare forms. Source: ONNX Attention.

    Those with windows, lengths, the scores as an output: the standard's own body says them.
    """
    if _is_rare(site):
        return ()
    chain = _Chain(site)
    heads = [_heads(chain, i) for i in range(3)]
    query, key, value = (name for name, _, _ in heads)
    (_, queries, depth), (_, keys, _) = heads[0], heads[1]
    if site.input(PAST_KEY):
        key = chain.add("Concat", (site.input(PAST_KEY), key), "keys", axis=2)
        value = chain.add("Concat", (site.input(PAST_VALUE), value), "values", axis=2)
    chain.hand_out(1, key)
    chain.hand_out(2, value)
    key, value = (_repeated(chain, v, queries, keys, n) for v, n in ((key, "k"), (value, "v")))
    scores = _scores(chain, query, key, depth)
    mixed = _mixed(chain, _probabilities(chain, scores, (query, key)), value)
    if len(site.type(0).shape) == 4:
        chain.rename(mixed, site.node.outputs[0])
        return tuple(chain.steps)
    rows = chain.add("Transpose", (mixed,), "rows", perm=(0, 2, 1, 3))
    shape = site.constant("shape", [0, 0, -1])
    chain.add("Reshape", (rows, shape), output=site.node.outputs[0])
    return tuple(chain.steps)


@dataclass
class _Chain:
    """Steps in the making."""

    site: Site
    steps: list[Step] = field(default_factory=list[Step])

    def add(
        self,
        operator: str,
        inputs: tuple[str, ...],
        label: str = "",
        *,
        output: str = "",
        **attributes: object,
    ) -> str:
        """Append a step; returns the name of its output."""
        name = output or self.site.fresh(label)
        self.steps.append(Step(operator, inputs, (name,), attributes))
        return name

    def rename(self, name: str, output: str) -> None:
        """Give the last step's output another name."""
        last = self.steps.pop()
        assert last.outputs == (name,)
        self.steps.append(Step(last.operator, last.inputs, (output,), last.attributes))

    def number(self, label: str, value: float, kind: DataType | None = None) -> str:
        """A scalar constant, of the operands' type unless another one is given."""
        return self.site.constant(label, value, (kind or self.site.type(0).dtype).numpy)

    def hand_out(self, index: int, name: str) -> None:
        """Give an optional output of the node, where it is read."""
        if self.site.reads_output(index):
            self.add("Identity", (name,), output=self.site.node.outputs[index])


def _is_rare(site: Site) -> bool:
    """Whether this form is left to the standard's own body."""
    return (
        bool(site.input(VALID_LENGTHS))
        or site.attribute("left_window_size", -1) >= 0
        or site.attribute("right_window_size", -1) >= 0
        or site.reads_output(3)
        or bool(site.attribute("is_causal", 0) and site.input(PAST_KEY))
        or bool(site.input(PAST_KEY)) != bool(site.input(PAST_VALUE))
    )


def _heads(chain: _Chain, index: int) -> tuple[str, int, int]:
    """An operand as [batch, heads, sequence, size]; its heads and size."""
    site = chain.site
    shape = site.type(index).shape
    if len(shape) not in (3, 4) or len(shape) != site.rank():
        site.refuse(
            ErrorCode.INVALID_NODE,
            f"inputs 0 and {index} have ranks {site.rank()} and {len(shape)}",
            "give Q, K and V all with 4 axes, or all with 3",
        )
    if len(shape) == 4:
        return site.input(index), _static(site, shape[1], "heads"), _static(site, shape[3], "size")
    heads = site.attribute("q_num_heads" if index == 0 else "kv_num_heads")
    width = _static(site, shape[2], "size")
    if not heads or width % heads:
        site.refuse(
            ErrorCode.INVALID_NODE,
            f"input {index} has {width} numbers a token, which {heads} heads do not divide",
            "give the number of heads in q_num_heads and kv_num_heads",
        )
    label = "qkv"[index]
    split = site.constant(f"{label}_heads", [0, 0, heads, width // heads])
    rows = chain.add("Reshape", (site.input(index), split), f"{label}_rows")
    name = chain.add("Transpose", (rows,), label, perm=(0, 2, 1, 3))
    return name, heads, width // heads


def _static(site: Site, size: object, what: str) -> int:
    if not isinstance(size, int) or size < 1:
        site.refuse(
            ErrorCode.UNSUPPORTED_NODE_DYNAMIC,
            f"the number of its {what} is {size}; it must be known, and at least 1",
            "export the model with a fixed number",
        )
    return size


def _repeated(chain: _Chain, name: str, queries: int, keys: int, label: str) -> str:
    """Each key head once for every query head that shares it."""
    site = chain.site
    if queries == keys:
        return name
    if not keys or queries % keys:
        site.refuse(
            ErrorCode.INVALID_NODE,
            f"{queries} query heads do not share {keys} key heads evenly",
            "make the number of query heads a multiple of that of the key heads",
        )
    axes = site.constant(f"{label}_axes", [2])
    counts = site.constant(f"{label}_counts", [1, 1, queries // keys, 1, 1])
    index = 1 if label == "k" else 2
    shape = site.type(index).shape
    size = shape[3] if len(shape) == 4 else shape[2] // keys
    merged = site.constant(f"{label}_shape", [0, queries, -1, _static(site, size, "size")])
    apart = chain.add("Unsqueeze", (name, axes), f"{label}_apart")
    copied = chain.add("Expand", (apart, counts), f"{label}_copied")
    return chain.add("Reshape", (copied, merged), f"{label}_shared")


def _scores(chain: _Chain, query: str, key: str, depth: int) -> str:
    """softcap(Q·Kᵀ), both factors scaled by the root of the scale."""
    site = chain.site
    scale = site.attribute("scale")
    root = chain.number("root", math.sqrt(1 / math.sqrt(depth) if scale is None else scale))
    turned = chain.add("Transpose", (key,), "turned", perm=(0, 1, 3, 2))
    left = chain.add("Mul", (query, root), "q_scaled")
    right = chain.add("Mul", (turned, root), "k_scaled")
    scores = chain.add("MatMul", (left, right), "scores")
    if not site.attribute("softcap", 0.0):
        return scores
    cap = chain.number("cap", site.attribute("softcap"))
    small = chain.add("Div", (scores, cap), "small")
    bent = chain.add("Tanh", (small,), "bent")
    return chain.add("Mul", (bent, cap), "capped")


def _probabilities(chain: _Chain, scores: str, factors: tuple[str, str]) -> str:
    """Softmax of the scores plus the bias, in ``_wide``; a row that is all masked gives zeros."""
    site = chain.site
    bias = _mask_bias(chain)
    total = chain.add("Add", (scores, bias), "masked") if bias else scores
    if site.attribute("is_causal", 0):
        total = chain.add("Add", (total, _causal_bias(chain, factors)), "causal")
    own, wide = site.type(0).dtype, _wide(site)
    asked = site.attribute("softmax_precision")
    precise = FROM_ONNX.get(asked, own) if isinstance(asked, int) else asked or own
    precise = wide if precise.itemsize < wide.itemsize else precise
    if precise is not own:
        total = chain.add("Cast", (total,), "precise", to=precise)
    result = chain.add("Softmax", (total,), "softmax", axis=-1)
    if precise is not wide:
        result = chain.add("Cast", (result,), "probabilities", to=wide)
    if not bias or _leaves_every_row(site):
        return result
    axes, nothing = site.constant("last", [-1]), chain.number("nothing", 0, wide)
    most = chain.add("ReduceMax", (bias, axes), "most")
    dark = chain.add("Equal", (most, chain.number("never", -math.inf)), "dark")
    return chain.add("Where", (dark, nothing, result), "lit")


def _wide(site: Site) -> DataType:
    """The type of the probabilities: not a half, whose rounding would show in the result."""
    own = site.type(0).dtype
    return DataType.FLOAT if own.itemsize < DataType.FLOAT.itemsize else own


def _mixed(chain: _Chain, probabilities: str, value: str) -> str:
    """The values, weighted by the probabilities."""
    own, wide = chain.site.type(0).dtype, _wide(chain.site)
    if wide is own:
        return chain.add("MatMul", (probabilities, value), "mixed")
    widened = chain.add("Cast", (value,), "v_wide", to=wide)
    product = chain.add("MatMul", (probabilities, widened), "mixed_wide")
    return chain.add("Cast", (product,), "mixed", to=own)


def _mask_bias(chain: _Chain) -> str:
    """The mask as numbers to add; empty where there is none."""
    site = chain.site
    mask = site.input(MASK)
    if not mask or site.type(MASK).dtype is not DataType.BOOL:
        return mask
    zero, never = chain.number("zero", 0), chain.number("infinity", -math.inf)
    return chain.add("Where", (mask, zero, never), "bias")


def _leaves_every_row(site: Site) -> bool:
    """Whether the mask is known and masks no row completely."""
    mask = site.value(MASK)
    if mask is None or mask.dtype == object:
        return False
    seen = mask if mask.dtype == np.bool_ else ~np.isneginf(mask.astype(np.float32))
    return bool(np.all(np.any(seen, axis=-1)))


def _causal_bias(chain: _Chain, factors: tuple[str, str]) -> str:
    """Zero on and below the diagonal, minus infinity above; a row a query, a column a key."""
    lengths = (
        chain.add("Shape", (v,), n, start=-2, end=-1)
        for v, n in zip(factors, ("queries", "keys_now"), strict=True)
    )
    size = chain.add("Concat", tuple(lengths), "square", axis=0)
    ones = chain.add("ConstantOfShape", (size,), "ones", value=np.ones(1, np.bool_))
    seen = chain.add("Trilu", (ones,), "seen", upper=0)
    zero, never = chain.number("kept", 0), chain.number("hidden", -math.inf)
    return chain.add("Where", (seen, zero, never), "triangle")
