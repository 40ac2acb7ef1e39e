"""From labels to a potential: checks, splits, MACE's own trainer, and errors on unseen frames."""

from __future__ import annotations

from mlip_assets.training.evaluation import evaluate
from mlip_assets.training.fitting import fit_mace
from mlip_assets.training.labels import LabelError, check_labels
from mlip_assets.training.model import TrainedModel, state_dict_sha256
from mlip_assets.training.splits import Split, split_labels
from mlip_assets.training.trainer import TrainingError

__all__ = [
    "LabelError",
    "Split",
    "TrainedModel",
    "TrainingError",
    "check_labels",
    "evaluate",
    "fit_mace",
    "split_labels",
    "state_dict_sha256",
]
