"""Evaluation of potentials: errors compared with those of others, and physical properties.

Elasticity, phonons, pair curves, stability and the learning curve take any ASE calculator; the report
combines them for a trained model.
"""

from __future__ import annotations

from mlip_assets.evaluation.learning_curve import LearningPoint, learning_curve
from mlip_assets.evaluation.make_report import make_report
from mlip_assets.evaluation.report import ModelReport
from mlip_assets.evaluation.stability import StabilityTest, run_guarded_md, run_stability_tests

__all__ = [
    "LearningPoint",
    "ModelReport",
    "StabilityTest",
    "learning_curve",
    "make_report",
    "run_guarded_md",
    "run_stability_tests",
]
