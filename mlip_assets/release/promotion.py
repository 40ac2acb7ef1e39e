"""Promotion of the models of a campaign: a worse model never replaces a better one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from mlip_assets.common.files import locked, sha256_of_file, write_text
from mlip_assets.evaluation.report import Promotion
from mlip_assets.training.model import METRICS_NAME, TrainedModel

#: Largest relative error increase of a promoted model from the best model of the campaign. Smaller
#: differences are not significant for the usual number of held-out frames.
TOLERANCE = 0.02
ERRORS = ("force_rmse_meV_per_A", "energy_rmse_meV_per_atom")
#: Folder of the promoted models in the results of a campaign, and its file that names the one in use.
PROMOTED_FOLDER, POINTER_NAME = "promoted", "promoted.json"
#: Folders in the folder of each promoted model, for its package.
REPORT_FOLDER, LABELS_FOLDER = "report", "labels"


def decide_promotion(
    errors: Mapping[str, Mapping[str, Any]], *, baseline_ratio: float, is_stable: bool
) -> Promotion:
    """Compare a model with the promoted model, or the mean predictor, on the same held-out labels.

    The model is promoted if it is stable and its error ratio to the best model of the campaign is
    at most 1 + ``TOLERANCE``. The error ratio is the geometric mean of the ratios of force and
    energy RMSE. The ratio of each promoted model is stored, so small losses cannot accumulate.

    Parameters
    ----------
    errors
        Errors on the held-out labels of ``model``, ``mean_predictor`` and, if it can be compared,
        ``promoted``: :attr:`mlip_assets.evaluation.ModelReport.held_out`.
    baseline_ratio
        :attr:`Promotion.error_ratio_to_best` of the promoted model; 1 where there is none.
    is_stable
        Whether no guard stopped its dynamics at any temperature of the campaign.
    """
    baseline, baseline_name = "promoted", "the promoted model"
    if baseline not in errors:
        baseline, baseline_name, baseline_ratio = "mean_predictor", "the mean predictor", 1.0
    ratio = _error_ratio(errors["model"], errors[baseline])
    if ratio is None:
        reason = "its errors on the held-out labels are not finite"
        return Promotion(False, reason, None, baseline_ratio)
    ratio_to_best = baseline_ratio * ratio
    comparison = f"{ratio:.3f} × the force and energy RMSE of {baseline_name} (geometric mean)"
    if not is_stable:
        reason = f"a guard stopped its molecular dynamics; {comparison}"
        return Promotion(False, reason, ratio, baseline_ratio)
    if ratio_to_best > 1 + TOLERANCE:
        limit = (1 + TOLERANCE) / baseline_ratio
        reason = f"worse: {comparison}, at most {limit:.3f} is allowed"
        return Promotion(False, reason, ratio, baseline_ratio)
    return Promotion(True, f"not worse: {comparison}, and stable", ratio, max(1.0, ratio_to_best))


class PromotedModels:
    """The promoted models of one campaign, one folder each, and the pointer to the one in use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pointer = folder / POINTER_NAME

    def locked(self) -> AbstractContextManager[None]:
        """Lock for the comparison and the promotion of a model; waits for other processes."""
        return locked(self.folder / "lock", wait=True)

    @property
    def name(self) -> str | None:
        """Folder name of the model in use; None before the first promotion."""
        if not self._pointer.exists():
            return None
        return str(json.loads(self._pointer.read_text(encoding="utf-8"))["model"])

    def in_use(self) -> tuple[TrainedModel, Promotion]:
        """The model in use and its promotion.

        Raises
        ------
        FileNotFoundError
            No model has been promoted.
        ValueError
            The weights are not those that were promoted.
        """
        record = json.loads(self._pointer.read_text(encoding="utf-8"))
        model = self.open(record.pop("model"))
        if record.pop("weights_sha256") != model.weights_sha256:
            raise ValueError(
                f"{model.model_file} is not the model that {self._pointer} names; restore it, or "
                "delete the folder and run the campaign again"
            )
        return model, Promotion.from_record(record)

    def open(self, name: str) -> TrainedModel:
        """The model in a folder, by the name of the folder."""
        return TrainedModel.open(self.folder / name)

    def folder_of(self, model: TrainedModel) -> Path:
        """Folder for a model, its report and its labels."""
        name = model.weights_sha256[:16]
        if model.members:  # the same model with another committee has another folder
            hashes = "".join(map(sha256_of_file, model.members))
            name += "-" + hashlib.sha256(hashes.encode()).hexdigest()[:8]
        return self.folder / name

    def promote(self, model: TrainedModel, promotion: Promotion) -> None:
        """Store the model in its folder and, last, write the pointer.

        If the process is killed, the earlier model stays promoted.
        """
        folder = self.folder_of(model)
        if not (folder / METRICS_NAME).exists():
            model.save(folder)
        record = {"model": folder.name, "weights_sha256": model.weights_sha256}
        record |= promotion.to_record()
        write_text(self._pointer, json.dumps(record, indent=1, allow_nan=False) + "\n")


def _error_ratio(errors: Mapping[str, Any], baseline: Mapping[str, Any]) -> float | None:
    pairs = [(errors[name], baseline[name]) for name in ERRORS]
    if any(ours is None for ours, _ in pairs):
        return None
    # a baseline error that is unknown or zero gives no ratio
    ratios = [ours / theirs for ours, theirs in pairs if theirs]
    return float(np.exp(np.mean(np.log(np.maximum(ratios, 1e-12))))) if ratios else 1.0
