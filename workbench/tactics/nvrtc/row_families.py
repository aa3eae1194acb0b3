"""What each reducing operator computes of a row: statements on the elements that a thread keeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from workbench.body import Node
from workbench.tactics.nvrtc.scalars import INTEGERS, highest, lowest, powered, rooted

HELPERS = r"""
template <typename T> struct Sum { static INLINE T join(T a, T b) { return a + b; } };
template <typename T> struct Most { static INLINE T join(T a, T b) { return max_nan(a, b); } };
template <typename T> struct Least { static INLINE T join(T a, T b) { return min_nan(a, b); } };
template <typename T> struct Times { static INLINE T join(T a, T b) { return a * b; } };
template <int N, template <typename> class F, typename T> INLINE T across(T v) {
  if (N == 1) return v;
#pragma unroll
  for (int o = (N < 32 ? N : 32) / 2; o > 0; o /= 2) v = F<T>::join(v, __shfl_xor_sync(~0u, v, o));
  if (N > 32) {
    __shared__ T part[32];
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
    __syncthreads();
    v = part[0];
#pragma unroll
    for (int w = 1; w < N / 32; ++w) v = F<T>::join(v, part[w]);
    __syncthreads();
  }
  return v;
}
"""
"""across<N, F>(v): v of N neighbouring threads, joined; every thread gets the result."""


@dataclass(frozen=True)
class Joined:
    """A value of the whole row. join: of element a[u], which is number ``j`` of the row, into it.

    start: with which joining begins, and which changes nothing. how: joins two such values.
    """

    name: str
    kind: str
    start: str
    join: str
    how: str


@dataclass(frozen=True)
class Changed:
    """From here on every element a[u] is another. text: the statement that makes it so."""

    text: str


Step = Joined | Changed | str
"""What is done once a row, in order; a text is a statement on what was joined before."""


@dataclass(frozen=True)
class Family:
    """An anchor's arithmetic on the elements a[] of a row.

    prepare: what is done before any result. result: of element ``a[u]``, or of the row if
    ``reduces``.
    kind: the result's C type, where it is not that of the elements.
    """

    prepare: Callable[[Node, str, int], list[Step]]
    result: str
    reduces: bool = False
    kind: str = ""


def _most(kind: str) -> list[Step]:
    start = lowest(kind)
    return [Joined("most", kind, f"({kind})({start})", "max_nan(most, a[u])", "Most")]


def _least(kind: str) -> list[Step]:
    return [Joined("least", kind, highest(kind), "min_nan(least, a[u])", "Least")]


def _softmax(node: Node, kind: str, n: int) -> list[Step]:
    return [
        *_most(kind),
        Changed("a[u] = exp_(a[u] - most);"),
        Joined("total", kind, "0", "total + a[u]", "Sum"),
        "total = 1 / total;",
    ]


def _log_softmax(node: Node, kind: str, n: int) -> list[Step]:
    return [
        *_most(kind),
        Joined("total", kind, "0", "total + exp_(a[u] - most)", "Sum"),
        "total = most + log_(total);",
    ]


def _layer_norm(node: Node, kind: str, n: int) -> list[Step]:
    epsilon = float(node.attributes["epsilon"])
    return [
        Joined("mean", kind, "0", "mean + a[u]", "Sum"),
        f"mean /= {n};",
        Joined("spread", kind, "0", "spread + (a[u] - mean) * (a[u] - mean)", "Sum"),
        f"spread = 1 / sqrt_(spread / {n} + ({kind}){epsilon:.9g});",
    ]


def _rms_norm(node: Node, kind: str, n: int) -> list[Step]:
    epsilon = float(node.attributes["epsilon"])
    return [
        Joined("spread", kind, "0", "spread + a[u] * a[u]", "Sum"),
        f"spread = 1 / sqrt_(spread / {n} + ({kind}){epsilon:.9g});",
    ]


def _sum_of(element: str) -> Callable[[Node, str, int], list[Step]]:
    return lambda node, kind, n: [Joined("total", kind, "0", f"total + {element}", "Sum")]


def _log_sum_exp(node: Node, kind: str, n: int) -> list[Step]:
    return [
        *_most(kind),
        f"const {kind} shift = most - most == 0 ? most : 0;",
        Joined("total", kind, "0", "total + exp_(a[u] - shift)", "Sum"),
    ]


def _place(node: Node, kind: str, n: int) -> list[Step]:
    """Where the largest or smallest element stands: the first such, or the last; NaN is both."""
    smallest = node.op == "ArgMin"
    flipped = "~a[u]" if kind in INTEGERS else "-a[u]"
    last = node.attributes["select_last_index"]
    here = "a[u] == most || (a[u] != a[u] && most != most)"
    further = "max_nan" if last else "min_nan"
    join = f"{here} ? {further}(place, (i64)j) : place"
    return [
        *([Changed(f"a[u] = {flipped};")] if smallest else []),
        *_most(kind),
        Joined("place", "i64", "-1" if last else str(n), join, "Most" if last else "Least"),
    ]


def _norm(p: int, kind: str) -> list[Step]:
    """(Σ|a|ᵖ)^(1/p), scaled by the largest so that no power overflows."""
    size = "(a[u] < 0 ? -a[u] : a[u])"
    return [
        Joined("most", kind, "0", f"max_nan(most, {size})", "Most"),
        "if (!(most > 0 && most - most == 0)) most = 1;",
        Joined("total", kind, "0", f"total + {powered(f'({size} / most)', p, kind)}", "Sum"),
        f"total = {rooted('total', p, kind)} * most;",
    ]


def _lp_norm(node: Node, kind: str, n: int) -> list[Step]:
    return _norm(node.attributes["p"], kind)


FAMILIES: dict[str, Family] = {
    "Softmax": Family(_softmax, "a[u] * total"),
    "LogSoftmax": Family(_log_softmax, "a[u] - total"),
    "LayerNormalization": Family(_layer_norm, "(a[u] - mean) * spread"),
    "InstanceNormalization": Family(_layer_norm, "(a[u] - mean) * spread"),
    "GroupNormalization": Family(_layer_norm, "(a[u] - mean) * spread"),
    "RMSNormalization": Family(_rms_norm, "a[u] * spread"),
    "LpNormalization": Family(_lp_norm, "(total == 0 ? 0 : a[u] / total)"),
    "GlobalLpPool": Family(_lp_norm, "total", reduces=True),
    "ArgMax": Family(_place, "place", reduces=True, kind="i64"),
    "ArgMin": Family(_place, "place", reduces=True, kind="i64"),
    "ReduceSum": Family(_sum_of("a[u]"), "total", reduces=True),
    "ReduceMean": Family(_sum_of("a[u]"), "total / {n}", reduces=True),
    "GlobalAveragePool": Family(_sum_of("a[u]"), "total / {n}", reduces=True),
    "ReduceL1": Family(_sum_of("(a[u] < 0 ? -a[u] : a[u])"), "total", reduces=True),
    "ReduceL2": Family(_sum_of("a[u] * a[u]"), "sqrt_(total)", reduces=True),
    "ReduceSumSquare": Family(_sum_of("a[u] * a[u]"), "total", reduces=True),
    "ReduceLogSum": Family(_sum_of("a[u]"), "log_(total)", reduces=True),
    "ReduceLogSumExp": Family(_log_sum_exp, "shift + log_(total)", reduces=True),
    "ReduceProd": Family(
        lambda node, kind, n: [Joined("total", kind, "1", "total * a[u]", "Times")],
        "total",
        reduces=True,
    ),
    "ReduceMax": Family(lambda node, kind, n: _most(kind), "most", reduces=True),
    "GlobalMaxPool": Family(lambda node, kind, n: _most(kind), "most", reduces=True),
    "ReduceMin": Family(lambda node, kind, n: _least(kind), "least", reduces=True),
}
"""By anchor."""
