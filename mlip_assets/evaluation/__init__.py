"""What a potential is worth: errors beside others', and physics that no error shows."""

from __future__ import annotations

from mlip_assets.evaluation.learning_curve import LearningPoint, learning_curve
from mlip_assets.evaluation.report import ModelReport, report_on
from mlip_assets.evaluation.stability import try_dynamics

__all__ = [
    "LearningPoint",
    "ModelReport",
    "learning_curve",
    "report_on",
    "try_dynamics",
]
