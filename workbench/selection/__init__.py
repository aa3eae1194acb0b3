"""Selection: try every tactic, then choose tactics and layouts together (PBQP)."""

from workbench.selection.candidate import Candidate
from workbench.selection.choice import LayerChoice, ReformatChoice, Tuned
from workbench.selection.tuning import tune
from workbench.selection.verdicts import lost_fusions

__all__ = ["Candidate", "LayerChoice", "ReformatChoice", "Tuned", "lost_fusions", "tune"]
