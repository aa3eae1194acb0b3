"""TensorRT's layer enumerations, spelled as its Python API spells them, as far as ours go."""

from __future__ import annotations

import enum


class ActivationType(enum.Enum):
    """What ``add_activation`` applies; alpha and beta as TensorRT defines them."""

    RELU = "RELU"
    SIGMOID = "SIGMOID"
    TANH = "TANH"
    LEAKY_RELU = "LEAKY_RELU"
    ELU = "ELU"
    SELU = "SELU"
    SOFTSIGN = "SOFTSIGN"
    SOFTPLUS = "SOFTPLUS"
    CLIP = "CLIP"
    HARD_SIGMOID = "HARD_SIGMOID"
    SCALED_TANH = "SCALED_TANH"
    THRESHOLDED_RELU = "THRESHOLDED_RELU"
    GELU_ERF = "GELU_ERF"
    GELU_TANH = "GELU_TANH"


class ElementWiseOperation(enum.Enum):
    """What ``add_elementwise`` computes of two tensors."""

    SUM = "SUM"
    PROD = "PROD"
    MAX = "MAX"
    MIN = "MIN"
    SUB = "SUB"
    DIV = "DIV"
    POW = "POW"
    FLOOR_DIV = "FLOOR_DIV"
    AND = "AND"
    OR = "OR"
    XOR = "XOR"
    EQUAL = "EQUAL"
    GREATER = "GREATER"
    LESS = "LESS"


class UnaryOperation(enum.Enum):
    """What ``add_unary`` computes of one tensor."""

    EXP = "EXP"
    LOG = "LOG"
    SQRT = "SQRT"
    RECIP = "RECIP"
    ABS = "ABS"
    NEG = "NEG"
    SIN = "SIN"
    COS = "COS"
    TAN = "TAN"
    SINH = "SINH"
    COSH = "COSH"
    ASIN = "ASIN"
    ACOS = "ACOS"
    ATAN = "ATAN"
    ASINH = "ASINH"
    ACOSH = "ACOSH"
    ATANH = "ATANH"
    CEIL = "CEIL"
    FLOOR = "FLOOR"
    ERF = "ERF"
    NOT = "NOT"
    SIGN = "SIGN"
    ROUND = "ROUND"
    ISINF = "ISINF"
    ISNAN = "ISNAN"


class ReduceOperation(enum.Enum):
    """What ``add_reduce`` computes over axes."""

    SUM = "SUM"
    PROD = "PROD"
    MAX = "MAX"
    MIN = "MIN"
    AVG = "AVG"


class PoolingType(enum.Enum):
    """What ``add_pooling_nd`` computes of each window."""

    MAX = "MAX"
    AVERAGE = "AVERAGE"


class PaddingMode(enum.Enum):
    """How windows are padded and their count rounded."""

    EXPLICIT_ROUND_DOWN = "EXPLICIT_ROUND_DOWN"
    EXPLICIT_ROUND_UP = "EXPLICIT_ROUND_UP"
    SAME_UPPER = "SAME_UPPER"
    SAME_LOWER = "SAME_LOWER"


class MatrixOperation(enum.Enum):
    """What ``add_matrix_multiply`` does to an operand first."""

    NONE = "NONE"
    TRANSPOSE = "TRANSPOSE"
    VECTOR = "VECTOR"


class ScaleMode(enum.Enum):
    """What ``add_scale`` has one coefficient for."""

    UNIFORM = "UNIFORM"
    CHANNEL = "CHANNEL"
    ELEMENTWISE = "ELEMENTWISE"


class GatherMode(enum.Enum):
    """How ``add_gather_v2`` reads its indices."""

    DEFAULT = "DEFAULT"
    ELEMENT = "ELEMENT"
    ND = "ND"


ELEMENTWISE_OPERATORS: dict[ElementWiseOperation, str] = {
    ElementWiseOperation.SUM: "Add",
    ElementWiseOperation.PROD: "Mul",
    ElementWiseOperation.MAX: "Max",
    ElementWiseOperation.MIN: "Min",
    ElementWiseOperation.SUB: "Sub",
    ElementWiseOperation.DIV: "Div",
    ElementWiseOperation.POW: "Pow",
    ElementWiseOperation.AND: "And",
    ElementWiseOperation.OR: "Or",
    ElementWiseOperation.XOR: "Xor",
    ElementWiseOperation.EQUAL: "Equal",
    ElementWiseOperation.GREATER: "Greater",
    ElementWiseOperation.LESS: "Less",
}
"""FLOOR_DIV is not one operator of ONNX."""

UNARY_OPERATORS: dict[UnaryOperation, str] = {
    UnaryOperation.RECIP: "Reciprocal",
    UnaryOperation.ISINF: "IsInf",
    UnaryOperation.ISNAN: "IsNaN",
    **{
        u: u.value.capitalize()
        for u in UnaryOperation
        if u not in (UnaryOperation.RECIP, UnaryOperation.ISINF, UnaryOperation.ISNAN)
    },
}

REDUCE_OPERATORS: dict[ReduceOperation, str] = {
    ReduceOperation.SUM: "ReduceSum",
    ReduceOperation.PROD: "ReduceProd",
    ReduceOperation.MAX: "ReduceMax",
    ReduceOperation.MIN: "ReduceMin",
    ReduceOperation.AVG: "ReduceMean",
}

ACTIVATION_OPERATORS: dict[ActivationType, tuple[str, dict[str, str], dict[str, str]]] = {
    ActivationType.RELU: ("Relu", {}, {}),
    ActivationType.SIGMOID: ("Sigmoid", {}, {}),
    ActivationType.TANH: ("Tanh", {}, {}),
    ActivationType.LEAKY_RELU: ("LeakyRelu", {"alpha": "alpha"}, {}),
    ActivationType.ELU: ("Elu", {"alpha": "alpha"}, {}),
    ActivationType.SELU: ("Selu", {"alpha": "alpha", "beta": "gamma"}, {}),
    ActivationType.SOFTSIGN: ("Softsign", {}, {}),
    ActivationType.SOFTPLUS: ("Softplus", {}, {}),
    ActivationType.HARD_SIGMOID: ("HardSigmoid", {"alpha": "alpha", "beta": "beta"}, {}),
    ActivationType.THRESHOLDED_RELU: ("ThresholdedRelu", {"alpha": "alpha"}, {}),
    ActivationType.GELU_ERF: ("Gelu", {}, {"approximate": "none"}),
    ActivationType.GELU_TANH: ("Gelu", {}, {"approximate": "tanh"}),
}
"""Operator, which of its attributes alpha and beta are, and its other attributes. CLIP and
SCALED_TANH take more than one operator or constant operands."""
