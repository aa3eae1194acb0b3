"""ONEDNN, the tactic source: several oneDNN implementations per layer, each in several layouts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from workbench.body import Node, TensorType
from workbench.datatypes import DataType
from workbench.formats import Format
from workbench.records import Refusal
from workbench.tactics.arithmetic import computes
from workbench.tactics.onednn import (
    convolution,
    pointwise,
    pooling,
    product,
    resampling,
    rows,
    transposition,
)
from workbench.tactics.onednn.constants import InstructionSet
from workbench.tactics.onednn.descriptors import ELEMENT_TYPES
from workbench.tactics.onednn.layer import POINTWISE, read_layer
from workbench.tactics.onednn.layouts import has_tag
from workbench.tactics.onednn.library import Library, Unavailable, load, loaded
from workbench.tactics.onednn.parts import Layer
from workbench.tactics.onednn.preparation import make_layer_call
from workbench.tactics.onednn.primitives import PrimitiveDescriptor
from workbench.tactics.onednn.recipe import Recipe, Variant
from workbench.tactics.onednn.residence import forget_code
from workbench.tactics.onednn.splitting import make_split_call, split_layouts, split_node
from workbench.tactics.protocol import OVERWRITES, Call, Problem, Tactic

NAME = "ONEDNN"
_FIRST = "first"
"""In place of an implementation's name: oneDNN's own first choice at the sizes at hand."""
_SATURATES = "saturates"
_CODE_VERSION = 3
"""Raised when a change of this package changes what a tactic does."""


class _Family(NamedTuple):
    anchors: frozenset[str]
    variants: Callable[[Layer], Iterator[Variant]]
    describe: Callable[[Library, Layer, Variant], Recipe | Refusal]
    multiplies: bool


_FAMILIES: tuple[_Family, ...] = (
    _Family(frozenset(convolution.ANCHORS), convolution.variants, convolution.describe, True),
    _Family(frozenset(product.ANCHORS), product.variants, product.describe, True),
    _Family(frozenset(resampling.ANCHORS), resampling.variants, resampling.describe, False),
    _Family(frozenset(pooling.ANCHORS), pooling.variants, pooling.describe, False),
    _Family(frozenset(rows.ANCHORS), rows.variants, rows.describe, False),
    _Family(
        frozenset(transposition.ANCHORS), transposition.variants, transposition.describe, False
    ),
    _Family(POINTWISE, pointwise.variants, pointwise.describe, False),
)


class OneDnnSource:
    """oneDNN's CPU kernels. The library is loaded when first asked for."""

    name = NAME
    device_kind = "cpu"

    def unavailable(self) -> Refusal | None:
        """Why oneDNN cannot be used here, or None."""
        library = load()
        if isinstance(library, Unavailable):
            return Refusal(library.reason, NAME, library.remedy, code="unavailable")
        return None

    @property
    def version(self) -> str:
        """Library, instruction set and the version of this code."""
        library = load()
        found = "unavailable" if isinstance(library, Unavailable) else library.fingerprint
        return f"{found}; code {_CODE_VERSION}"

    def candidates(self, problem: Problem) -> Sequence[Tactic | Refusal]:
        """A tactic for each implementation in each layout; the reasons where there is none."""
        split = split_node(problem)
        if split is not None:
            return self._splits(problem, split)
        offers = [self._offers(replace(problem, threads=n)) for n in thread_counts(problem)]
        tactics = [t for found, _ in offers for t in found]
        refusals = [] if tactics else [r for _, found in offers for r in found]
        saturating = [r for _, found in offers for r in found if r.code == _SATURATES]
        return [*tactics, *dict.fromkeys((*refusals, *saturating))]

    def _offers(self, problem: Problem) -> tuple[list[Tactic], list[Refusal]]:
        opened = _open(problem)
        if isinstance(opened, Refusal):
            return [], [opened]
        library, layer, family = opened
        found: list[Tactic] = []
        refusals: list[Refusal] = []
        saturating: set[str] = set()
        for variant in _with_widened(library, layer, family):
            recipe = family.describe(library, layer, variant)
            if isinstance(recipe, Refusal):
                refusals.append(recipe)
                continue
            kernels = dict(_kernels(library, recipe.descriptor))
            if not kernels:
                layouts = " > ".join(map(str, (*variant.inputs, variant.output)))
                reason = f"oneDNN has only its plain loop for {variant.primitive} in {layouts}"
                refusals.append(layer.refusal(reason))
            for kernel in kernels:
                if variant.widened and _is_older(kernel, library):
                    continue
                if variant.overwrites is not None and _gains_nothing(kernel, library):
                    continue
                if family.multiplies and _saturates(kernel, layer):
                    saturating.add(kernel)
                else:
                    found.append(self._tactic(library, layer, variant, kernel))
        if saturating:
            names = ", ".join(sorted(saturating))
            reason = f"{names}: pairs of int8 products saturate at 16 bits before they are summed"
            refusals.append(Refusal(reason, layer.place, code=_SATURATES))
        return found, refusals

    def prepare(self, tactic: Tactic, problem: Problem) -> Call | Refusal:
        """Find the implementation again at these sizes, generate its code, pack its constants."""
        chosen = tactic.parameter("threads") or thread_counts(problem)[0]
        problem = replace(problem, threads=min(chosen, problem.threads))
        split = split_node(problem)
        library = load()
        if split is not None and isinstance(library, Library):
            library.set_threads(problem.threads)
            return make_split_call(library, problem, split, tactic.inputs[0])
        opened = _open(problem)
        if isinstance(opened, Refusal):
            return opened
        library, layer, family = opened
        widened = tactic.parameter("through") == DataType.FLOAT.value
        primitive, over = tactic.parameter("primitive"), tactic.overwrites
        layouts = (tactic.inputs, tactic.outputs[0])
        variant = Variant(primitive, *layouts, widened, overwrites=over)
        recipe = family.describe(library, layer, variant)
        if isinstance(recipe, Refusal):
            return recipe
        wanted = str(tactic.parameter("implementation"))
        others: list[str] = []
        for name, descriptor in _kernels(library, recipe.descriptor):
            if wanted in (name, _FIRST):
                return make_layer_call(library, layer, variant, recipe, descriptor)
            others.append(name)
        have = ", ".join(others) or "none"
        return layer.refusal(f"oneDNN has no {wanted} at these sizes, only: {have}")

    def reformat(self, type_: TensorType, source: Format, target: Format) -> Tactic | Refusal:
        """A reorder between two of the named layouts; oneDNN chooses the kernel by the sizes."""
        library = load()
        if isinstance(library, Unavailable):
            return Refusal(library.reason, NAME, library.remedy, code="unavailable")
        rank = len(type_.shape)
        if type_.dtype not in ELEMENT_TYPES:
            return Refusal(f"oneDNN reorders no {type_.dtype.value}", NAME)
        for layout in (source, target):
            if not has_tag(layout, rank):
                return Refusal(f"oneDNN has no layout {layout} at rank {rank}", NAME)
        parameters = _parameters("reorder", _FIRST, "", 0)
        return Tactic(
            *(NAME, "reorder", (source,), (target,), type_.dtype, parameters, self.version)
        )

    def settle(self) -> None:
        """Drop the library's code from memory: generated kernels need little of it."""
        library = loaded()
        if library is not None:
            forget_code(library.path)

    def _splits(self, problem: Problem, node: Node) -> Sequence[Tactic | Refusal]:
        unavailable = self.unavailable()
        layouts = split_layouts(problem, node) if unavailable is None else unavailable
        if isinstance(layouts, Refusal):
            return [layouts]
        precision, count = problem.body.compute_type, len(problem.body.outputs)
        parameters = _parameters("split", _FIRST, "", 0)
        return [
            Tactic(NAME, "split", (f,), (f,) * count, precision, parameters, self.version)
            for f in layouts
        ]

    def _tactic(self, library: Library, layer: Layer, variant: Variant, kernel: str) -> Tactic:
        body = layer.problem.body
        precision = body.compute_type
        lacking = precision in _lacking(library) and computes(body)
        label = f"{variant.primitive} {kernel}" + (" through FP32" if variant.widened else "")
        label += "" if variant.overwrites is None else " in place"
        through = DataType.FLOAT.value if variant.widened else ""
        threads = layer.problem.threads
        over = () if variant.overwrites is None else ((OVERWRITES, variant.overwrites),)
        return Tactic(
            *(NAME, f"{label}, 1 thread" if threads == 1 else label),
            *(variant.inputs, (variant.output,), precision),
            (*_parameters(variant.primitive, kernel, through, threads), *over),
            self.version,
            emulated=variant.widened or lacking,
        )


ONEDNN = OneDnnSource()


def _open(problem: Problem) -> tuple[Library, Layer, _Family] | Refusal:
    """The library, the layer as oneDNN sees it, and its family; or the reason for none."""
    library = load()
    if isinstance(library, Unavailable):
        return Refusal(library.reason, NAME, library.remedy, code="unavailable")
    library.set_threads(problem.threads)
    layer = read_layer(problem)
    if isinstance(layer, Refusal):
        return layer
    for family in _FAMILIES:
        if layer.anchor.op in family.anchors:
            return library, layer, family
    return layer.refusal(f"oneDNN has no primitive for {layer.anchor.op}")


def _lacking(library: Library) -> set[DataType]:
    """Half types that this CPU has no arithmetic for."""
    native = {DataType.BF16: library.isa.native_bf16, DataType.HALF: library.isa.native_f16}
    return {kind for kind, has in native.items() if not has}


def _with_widened(library: Library, layer: Layer, family: _Family) -> Iterator[Variant]:
    """The family's variants; halves without native arithmetic also through f32."""
    kinds = {i.type.dtype for i in layer.problem.body.dynamic_inputs} & _lacking(library)
    for variant in family.variants(layer):
        yield variant
        moves = variant.primitive in ("reorder", "concat", "transpose")
        if kinds and not moves and variant.overwrites is None:
            yield replace(variant, widened=True)


def _parameters(
    primitive: str, kernel: str, through: str, threads: int
) -> tuple[tuple[str, str | int], ...]:
    """What tells a tactic from others in the same layouts.

    through: the type that it is emulated in, or "". threads: how many it uses; 0 where the size
    decides.
    """
    return (
        ("primitive", primitive),
        ("implementation", kernel),
        ("through", through),
        ("threads", threads),
    )


_SERIAL_BELOW = 100_000
"""Work under which starting other threads (3 to 10 µs) costs more than they save."""
_PARALLEL_ABOVE = 10_000_000
"""Work over which one thread is not worth timing."""


def thread_counts(problem: Problem) -> tuple[int, ...]:
    """Numbers of OpenMP threads worth timing, by the Body's operations and bytes moved."""
    types = problem.body.types
    costs = [
        n.operator.cost(
            n.attributes,
            [types[v] if v else None for v in n.inputs],
            [types[v] for v in n.outputs if v],
        )
        for n in problem.body.nodes
    ]
    work = sum(c.flops + c.bytes for c in costs)
    if problem.threads == 1 or work < _SERIAL_BELOW:
        return (1,)
    return (problem.threads,) if work > _PARALLEL_ABOVE else (problem.threads, 1)


def _is_older(kernel: str, library: Library) -> bool:
    """Whether a kernel leaves the wider half of AVX-512 unused; not worth timing in emulation."""
    has_avx512 = library.isa & InstructionSet.AVX512_CORE == InstructionSet.AVX512_CORE
    return has_avx512 and kernel.endswith((":avx", ":avx2"))


def _gains_nothing(kernel: str, library: Library) -> bool:
    """Whether a kernel is not worth timing in place: an older one, or sums apart from products."""
    return _is_older(kernel, library) or "gemm" in kernel


def _saturates(kernel: str, layer: Layer) -> bool:
    """Whether an integer kernel sums pairs of products in 16 bits (vpmaddubsw), which overflow.

    Only VNNI and AMX kernels sum in 32 bits; others carry an older instruction set in their name.
    """
    quantized = any(o is not None and o.affine is not None for o in layer.operands)
    return quantized and kernel.rpartition(":")[2] in ("sse41", "avx", "avx2", "avx512_core")


def _kernels(
    library: Library, first: PrimitiveDescriptor
) -> Iterator[tuple[str, PrimitiveDescriptor]]:
    """Implementations with their names, best first by oneDNN's order, without the hopeless ones.

    oneDNN 3.2 lists an implementation again once a primitive of an earlier one lies in its cache;
    the first of a name counts.
    """
    has_avx2 = library.isa & InstructionSet.AVX2 == InstructionSet.AVX2
    seen: set[str] = set()
    for descriptor in first.implementations():
        name = descriptor.implementation
        hopeless = has_avx2 and name.endswith(":sse41")
        if not hopeless and name not in seen and not descriptor.is_reference:
            seen.add(name)
            yield name, descriptor
