"""The operators: a table per family; to add one, add a row to its family's table."""

from __future__ import annotations

from workbench.body import CONSTANT, Operator
from workbench.errors import NetworkError
from workbench.operators.chance import CHANCE
from workbench.operators.control_flow import CONTROL_FLOW
from workbench.operators.convolution import CONVOLUTION
from workbench.operators.data_dependent import DATA_DEPENDENT
from workbench.operators.features import FEATURES
from workbench.operators.images import IMAGES
from workbench.operators.linear_attention import LINEAR_ATTENTION
from workbench.operators.linear_models import LINEAR_MODELS
from workbench.operators.matrix import MATRIX
from workbench.operators.movement import MOVEMENT
from workbench.operators.normalization import NORMALIZATION
from workbench.operators.norms import NORMS
from workbench.operators.placing import PLACING
from workbench.operators.pointwise import POINTWISE
from workbench.operators.pooling import POOLING
from workbench.operators.quantization import QUANTIZATION
from workbench.operators.recurrence import RECURRENCE
from workbench.operators.reduction import REDUCTION
from workbench.operators.regions import REGIONS
from workbench.operators.resizing import RESIZING
from workbench.operators.sampling import SAMPLING
from workbench.operators.sequences import SEQUENCES
from workbench.operators.shape import SHAPE
from workbench.operators.spectral import SPECTRAL
from workbench.operators.strings import STRINGS
from workbench.operators.training import TRAINING
from workbench.operators.trees import TREES

FAMILIES: tuple[tuple[Operator, ...], ...] = (
    (CONSTANT,),
    POINTWISE,
    CONVOLUTION,
    MATRIX,
    POOLING,
    NORMALIZATION,
    REDUCTION,
    MOVEMENT,
    SHAPE,
    QUANTIZATION,
    NORMS,
    RESIZING,
    SAMPLING,
    REGIONS,
    PLACING,
    RECURRENCE,
    (LINEAR_ATTENTION,),
    SPECTRAL,
    CHANCE,
    CONTROL_FLOW,
    SEQUENCES,
    DATA_DEPENDENT,
    STRINGS,
    TRAINING,
    FEATURES,
    TREES,
    LINEAR_MODELS,
    IMAGES,
)

OPERATORS: dict[str, Operator] = {row.key: row for family in FAMILIES for row in family}


def operator_named(name: str) -> Operator:
    """The operator of this ONNX name, ``domain::name`` outside ai.onnx. Raises NetworkError."""
    try:
        return OPERATORS[name]
    except KeyError:
        raise NetworkError(f"operator {name} is not implemented") from None
