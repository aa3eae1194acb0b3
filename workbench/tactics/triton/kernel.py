"""Kernel and Program: Triton text of one launch, and the launches of one tactic in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from workbench.body import Array, Body
from workbench.datatypes import DataType
from workbench.tactics.scalar_text import short_gelu_terms

POINTERS: dict[DataType, str] = {
    DataType.FLOAT: "*fp32",
    DataType.HALF: "*fp16",
    DataType.BF16: "*bf16",
    DataType.FP8: "*fp8e4nv",
    DataType.FP8E5M2: "*fp8e5",
    DataType.INT8: "*i8",
    DataType.UINT8: "*u8",
    DataType.INT16: "*i16",
    DataType.INT32: "*i32",
    DataType.INT64: "*i64",
    DataType.BOOL: "*i8",
}
"""Triton's type of a pointer to stored elements; types that are not here have no kernel."""

STORED: dict[DataType, str] = {
    DataType.FLOAT: "tl.float32",
    DataType.HALF: "tl.float16",
    DataType.BF16: "tl.bfloat16",
    DataType.FP8: "tl.float8e4nv",
    DataType.FP8E5M2: "tl.float8e5",
    DataType.INT8: "tl.int8",
    DataType.UINT8: "tl.uint8",
    DataType.INT16: "tl.int16",
    DataType.INT32: "tl.int32",
    DataType.INT64: "tl.int64",
    DataType.BOOL: "tl.int8",
}
"""Triton's name of a stored element's type."""

HEADER = """\
import triton
import triton.language as tl
from triton.language.extra.cuda import libdevice


"""
"""Head of every module."""
LONG_GELU = """\
@triton.jit
def long_gelu(x):
    a = tl.minimum(tl.abs(x), 16.0)
    t = 1.0 / (1.0 + 0.2316418882663604 * a)
    q = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592)
    q = q * t * tl.exp2(-0.7213475204444817 * a * a)
    return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL) - 0.5 * a * q


"""
"""x/2·(1 + erf(x/√2)) as max(x, 0) - |x|/2·erfc(|x|/√2); erfc to 1.5e-7 by Abramowitz and Stegun,
Handbook of Mathematical Functions, 7.1.26. A third of libdevice's instructions."""
SHORT_GELU = f"""\
@triton.jit
def short_gelu(x):
    y = tl.maximum(x, -4.25, propagate_nan=tl.PropagateNan.ALL)
    z = tl.minimum(y, 4.25)
    s = z * z
{"".join(f"    {line}{chr(10)}" for line in short_gelu_terms())}    return y * (z * q + 0.5)


"""
"""The same for results of 16 bits or fewer; see ``short_gelu_terms``."""
HELPERS = {"long_gelu": LONG_GELU, "short_gelu": SHORT_GELU}

ALIGNED = 16
"""Bytes to which every pointer is aligned; the compiler is told so."""
PLAIN_SHARED = 48 << 10
"""Bytes of dynamic shared memory beyond which a kernel must ask for them first."""


def masked(mask: str, dtype: DataType) -> str:
    """The rest of a load: where it reads, and zeros elsewhere. Empty without a mask."""
    if not mask:
        return ""
    return f", mask={mask}, other={'0.0' if dtype.is_float else '0'}"


@dataclass(frozen=True)
class Argument:
    """A pointer that a kernel takes: a Body value, a packed constant, or a part of the workspace.

    kind: ``value`` (an input, an output or a constant of the Body), ``packed`` or ``workspace``.
    """

    kind: str
    name: str
    dtype: DataType


@dataclass(frozen=True)
class Kernel:
    """One launch: a module's text whose function ``kernel`` takes ``arguments``.

    grid: programs along each axis. warps, stages: Triton's num_warps and num_stages.
    """

    text: str
    arguments: tuple[Argument, ...]
    grid: tuple[int, int, int]
    warps: int = 4
    stages: int = 3

    @property
    def signature(self) -> tuple[str, ...]:
        """Types of the arguments as Triton writes them."""
        return tuple(POINTERS[a.dtype] for a in self.arguments)


@dataclass(frozen=True, eq=False)
class Pack:
    """A derived constant: a value of the Body that follows from its constants, arranged anew.

    recipe: decides, with the value, the bytes that ``arrange`` makes.
    """

    value: str
    recipe: str
    arrange: Callable[[Array], Array]


@dataclass(frozen=True, eq=False)
class Program:
    """The launches of one tactic. packs: derived constants; workspace: bytes of each part."""

    name: str
    kernels: tuple[Kernel, ...]
    packs: Mapping[str, Pack] = field(default_factory=lambda: MappingProxyType({}))
    workspace: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))


class Arguments:
    """The pointers that a kernel's text uses, in order of first use."""

    def __init__(self, body: Body) -> None:
        self.body = body
        self._found: dict[Argument, str] = {}

    def value(self, name: str) -> str:
        """The parameter that points to an input, a constant or an output of the Body."""
        return self._parameter(Argument("value", name, self.body.types[name].dtype))

    def packed(self, name: str, dtype: DataType) -> str:
        """The parameter that points to a derived constant."""
        return self._parameter(Argument("packed", name, dtype))

    def workspace(self, name: str, dtype: DataType) -> str:
        """The parameter that points to a part of the workspace."""
        return self._parameter(Argument("workspace", name, dtype))

    def _parameter(self, argument: Argument) -> str:
        return self._found.setdefault(argument, f"p{len(self._found)}")

    def kernel(
        self,
        lines: Sequence[str],
        grid: Sequence[int],
        *,
        warps: int = 4,
        stages: int = 3,
    ) -> Kernel:
        """A whole kernel of these lines."""
        inner = "".join(f"    {line}\n" for line in lines)
        helpers = "".join(text for name, text in HELPERS.items() if f"{name}(" in inner)
        parameters = ", ".join(self._found.values())
        text = f"{HEADER}{helpers}@triton.jit\ndef kernel({parameters}):\n{inner}"
        x, y, z = (*grid, 1, 1)[:3]
        return Kernel(text, tuple(self._found), (x, y, z), warps, stages)
