"""Reports: rows with units, as pandas tables, from records. No drawing, no measuring."""

from workbench.reports.accuracy import accuracy_rows, classification_accuracy
from workbench.reports.calibration import calibration_rows, histogram_rows
from workbench.reports.coverage import Coverage, coverage
from workbench.reports.findings import finding_rows
from workbench.reports.graph import GraphView, network_graph
from workbench.reports.layers import layer_rows, reformat_rows, tactic_rows
from workbench.reports.ledger import ledger_rows, ledger_summary
from workbench.reports.memory import memory_rows
from workbench.reports.model import (
    file_graph,
    interface_rows,
    operator_rows,
    part_rows,
    refusal_rows,
    weight_rows,
)
from workbench.reports.number_types import spacing_rows, type_table
from workbench.reports.precision import precision_rows
from workbench.reports.profile import profile_rows, waterfall_rows
from workbench.reports.qdq import qdq_rows, unfused_quantizers
from workbench.reports.recording import Recording, load_recording, record
from workbench.reports.roofline import LayerWork, arithmetic_types, layer_work, roofline_rows
from workbench.reports.short_layers import short_layer_rows, short_tactic_rows
from workbench.reports.stages import stage_rows
from workbench.reports.timing import timing_rows
from workbench.reports.trials import (
    divergence_rows,
    front_rows,
    quality_rows,
    search_rows,
    sensitivity_rows,
)
from workbench.reports.weights_and_types import (
    headroom_rows,
    overflow_rows,
    pruning_rows,
    sparsity_rows,
    weak_typing_rows,
)
from workbench.reports.what_if import sources_of, what_if_rows

__all__ = [
    "divergence_rows",
    "front_rows",
    "qdq_rows",
    "quality_rows",
    "search_rows",
    "sensitivity_rows",
    "unfused_quantizers",
    "Coverage",
    "GraphView",
    "LayerWork",
    "Recording",
    "accuracy_rows",
    "arithmetic_types",
    "calibration_rows",
    "classification_accuracy",
    "coverage",
    "file_graph",
    "finding_rows",
    "histogram_rows",
    "layer_rows",
    "layer_work",
    "interface_rows",
    "load_recording",
    "ledger_rows",
    "ledger_summary",
    "memory_rows",
    "network_graph",
    "operator_rows",
    "part_rows",
    "precision_rows",
    "profile_rows",
    "record",
    "roofline_rows",
    "reformat_rows",
    "refusal_rows",
    "short_layer_rows",
    "short_tactic_rows",
    "sources_of",
    "spacing_rows",
    "stage_rows",
    "tactic_rows",
    "timing_rows",
    "type_table",
    "waterfall_rows",
    "weight_rows",
    "what_if_rows",
    "headroom_rows",
    "overflow_rows",
    "pruning_rows",
    "sparsity_rows",
    "weak_typing_rows",
]
