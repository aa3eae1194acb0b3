"""Numbers of oneDNN's C headers that the binding passes.

Source: oneapi/dnnl/dnnl_types.h and dnnl_common_types.h of oneDNN 3.2; stable through version 3.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

MAX_RANK = 12
"""DNNL_MAX_NDIMS: sizes and strides are passed as arrays of this many int64."""

FORWARD_INFERENCE = 96
"""dnnl_forward_inference: no workspace for a backward pass is kept."""


class Status(IntEnum):
    """dnnl_status_t: what each call returns."""

    SUCCESS = 0
    OUT_OF_MEMORY = 1
    INVALID_ARGUMENTS = 2
    UNIMPLEMENTED = 3
    LAST_IMPLEMENTATION_REACHED = 4
    RUNTIME_ERROR = 5
    NOT_REQUIRED = 6

    @property
    def words(self) -> str:
        """The status as words."""
        return self.name.lower().replace("_", " ")


class ElementType(IntEnum):
    """dnnl_data_type_t."""

    F16 = 1
    BF16 = 2
    F32 = 3
    S32 = 4
    S8 = 5
    U8 = 6


class Tag(IntEnum):
    """dnnl_format_tag_t: letters are axes, outermost first; a capital with a size is blocked."""

    ANY = 1
    A = 2
    AB = 3
    ABC = 4
    ABCD = 5
    ABCDE = 6
    ABCDEF = 7
    BA = 14
    ACB = 15
    ACDB = 22
    ACDEB = 33
    ABC16B = 56  # aBc16b
    ABC8B = 69  # aBc8b
    ABCD16B = 78  # aBcd16b
    ABCD8B = 102  # aBcd8b
    ABCDE16B = 121  # aBcde16b
    ABCDE8B = 142  # aBcde8b


LINEAR_TAGS = {1: Tag.A, 2: Tag.AB, 3: Tag.ABC, 4: Tag.ABCD, 5: Tag.ABCDE, 6: Tag.ABCDEF}
CHANNELS_LAST_TAGS = {3: Tag.ACB, 4: Tag.ACDB, 5: Tag.ACDEB}
BLOCKED_16_TAGS = {3: Tag.ABC16B, 4: Tag.ABCD16B, 5: Tag.ABCDE16B}
BLOCKED_8_TAGS = {3: Tag.ABC8B, 4: Tag.ABCD8B, 5: Tag.ABCDE8B}


class Argument(IntEnum):
    """DNNL_ARG_*: the role of a memory in one execution."""

    SRC = 1
    SRC_1 = 2
    DST = 17
    WEIGHTS = 33
    BIAS = 41
    MEAN = 49
    VARIANCE = 50
    SCALE = 51
    SHIFT = 52
    SCRATCHPAD = 80
    MULTIPLE_SRC = 1024
    SCALES = 4096  # or-ed with the argument that is scaled
    ZERO_POINTS = 8192  # or-ed with the argument that is shifted


_POST_OPERATION_BASE = 32768


def post_operation_argument(index: int) -> int:
    """Argument of the second input of binary post-operation ``index`` (counted from 0)."""
    return _POST_OPERATION_BASE * (index + 1) | Argument.SRC_1


class Algorithm(IntEnum):
    """dnnl_alg_kind_t. Every eltwise takes alpha and beta; unused ones are 0."""

    CONVOLUTION_DIRECT = 1
    CONVOLUTION_WINOGRAD = 2
    CONVOLUTION_AUTO = 3
    DECONVOLUTION_DIRECT = 10
    RELU = 32  # x > 0 ? x : alpha * x
    TANH = 33
    ELU = 34  # x > 0 ? x : alpha * (exp(x) - 1)
    SQUARE = 35
    ABS = 36
    SQRT = 37
    LINEAR = 38  # alpha * x + beta
    SOFT_RELU = 39  # log(1 + exp(alpha * x)) / alpha
    HARDSIGMOID = 40  # max(0, min(1, alpha * x + beta))
    LOGISTIC = 41
    EXP = 42
    GELU_TANH = 43
    SWISH = 44  # x * logistic(alpha * x)
    LOG = 45
    CLIP = 46  # to [alpha, beta]
    POW = 48  # alpha * x ** beta
    GELU_ERF = 49
    ROUND = 50  # ties to even
    MISH = 51
    HARDSWISH = 52  # x * max(0, min(1, alpha * x + beta))
    POOLING_MAX = 511
    POOLING_AVERAGE_INCLUDE_PADDING = 767
    POOLING_AVERAGE_EXCLUDE_PADDING = 1023
    ADD = 131056
    MUL = 131057
    MAX = 131058
    MIN = 131059
    DIV = 131060
    SUB = 131061
    RESAMPLING_NEAREST = 196592
    RESAMPLING_LINEAR = 196593
    REDUCTION_MAX = 196594
    REDUCTION_MIN = 196595
    REDUCTION_SUM = 196596
    REDUCTION_MUL = 196597
    REDUCTION_MEAN = 196598
    SOFTMAX_ACCURATE = 196608
    SOFTMAX_LOG = 196609


class NormalizationFlag(IntFlag):
    """dnnl_normalization_flags_t."""

    NONE = 0
    USE_GLOBAL_STATISTICS = 1
    USE_SCALE = 2
    USE_SHIFT = 4


class FloatMath(IntEnum):
    """dnnl_fpmath_mode_t: which narrower types f32 products may be computed in."""

    STRICT = 0
    BF16 = 1
    F16 = 2
    ANY = 3


class Query(IntEnum):
    """dnnl_query_t: what a descriptor is asked for."""

    IMPLEMENTATION_NAME = 8
    STRIDES = 14
    SRC = 129
    WEIGHTS = 131
    DST = 133
    SCRATCHPAD = 136
    ARGUMENT = 255  # by Argument
    RANK = 256
    SIZES = 257
    ELEMENT_TYPE = 258
    PADDED_SIZES = 260
    FORMAT_KIND = 262
    INNER_BLOCK_COUNT = 263
    INNER_BLOCKS = 264
    INNER_AXES = 265


class FormatKind(IntEnum):
    """dnnl_format_kind_t."""

    UNDEFINED = 0
    ANY = 1
    BLOCKED = 2


class InstructionSet(IntEnum):
    """dnnl_cpu_isa_t: instruction sets that oneDNN generates code for."""

    DEFAULT = 0x0
    SSE41 = 0x1
    AVX = 0x3
    AVX2 = 0x7
    AVX2_VNNI = 0xF
    AVX2_VNNI_2 = 0x1F
    AVX512_CORE = 0x27
    AVX512_CORE_VNNI = 0x67
    AVX512_CORE_BF16 = 0xE7
    AVX512_CORE_FP16 = 0x1EF
    AVX512_CORE_AMX = 0xFEF
    AVX512_CORE_AMX_FP16 = 0x1FEF

    @property
    def native_int8(self) -> bool:
        """Whether u8 by s8 products are summed in 32 bits without a saturating 16-bit step."""
        return self in (self.AVX2_VNNI, self.AVX2_VNNI_2) or self >= self.AVX512_CORE_VNNI

    @property
    def native_bf16(self) -> bool:
        """Whether bf16 products are an instruction (else they are computed in f32)."""
        return self is self.AVX2_VNNI_2 or self >= self.AVX512_CORE_BF16

    @property
    def native_f16(self) -> bool:
        """Whether f16 kernels exist."""
        return self is self.AVX2_VNNI_2 or self >= self.AVX512_CORE_FP16
