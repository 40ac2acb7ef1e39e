"""From labels to a potential: checks, splits, MACE's own trainer, and errors on unseen frames."""

from __future__ import annotations

from mlip_assets.training.committee import Calibration
from mlip_assets.training.evaluation import evaluate
from mlip_assets.training.fitting import fit_mace
from mlip_assets.training.held_out import HeldOut
from mlip_assets.training.labels import LabelError, check_labels
from mlip_assets.training.learning_curve import LearningPoint, learning_curve
from mlip_assets.training.model import TrainedModel, state_dict_sha256
from mlip_assets.training.package import pack
from mlip_assets.training.promotion import PromotedModels, judge
from mlip_assets.training.report import ModelReport, report_on
from mlip_assets.training.splits import Split, split_labels
from mlip_assets.training.trainer import TrainingError

__all__ = [
    "Calibration",
    "HeldOut",
    "LabelError",
    "LearningPoint",
    "ModelReport",
    "PromotedModels",
    "Split",
    "TrainedModel",
    "TrainingError",
    "check_labels",
    "evaluate",
    "fit_mace",
    "judge",
    "learning_curve",
    "pack",
    "report_on",
    "split_labels",
    "state_dict_sha256",
]
