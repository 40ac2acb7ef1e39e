"""Fitting MACE to labels: checks, splits, replay, committee, errors on held-out frames."""

from __future__ import annotations

from mlip_assets.training.committee import Calibration
from mlip_assets.training.errors import evaluate
from mlip_assets.training.fitting import fit_mace
from mlip_assets.training.labels import LabelError, check_labels
from mlip_assets.training.model import TrainedModel
from mlip_assets.training.splits import HeldOut, Split, split_labels
from mlip_assets.training.trainer.process import TrainingError

__all__ = [
    "Calibration",
    "HeldOut",
    "LabelError",
    "Split",
    "TrainedModel",
    "TrainingError",
    "check_labels",
    "evaluate",
    "fit_mace",
    "split_labels",
]
