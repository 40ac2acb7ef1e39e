"""Which of a campaign's models is the one to use: a worse one never replaces a better one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mlip_assets.common.files import locked, sha256_of_file, write_text
from mlip_assets.evaluation.report import Promotion
from mlip_assets.training.model import METRICS_NAME, TrainedModel

#: How much worse than the best of the campaign a promoted model may be, as a ratio of errors. Few
#: held-out frames cannot tell models apart that are closer than this.
TOLERANCE = 0.02
ERRORS = ("force_rmse_meV_per_A", "energy_rmse_meV_per_atom")
#: Below a campaign's results: the models it has promoted, and in it the file that names the best.
PROMOTED_FOLDER, POINTER_NAME = "promoted", "promoted.json"
#: In the folder of each promoted model, beside it: what its package needs later.
REPORT_FOLDER, LABELS_FOLDER = "report", "labels"


def judge(
    errors: Mapping[str, Mapping[str, Any]], *, rival_standing: float, is_stable: bool
) -> Promotion:
    """Compare a model with the promoted one, or the mean predictor, on the same held-out labels.

    It is promoted when it is stable and the geometric mean of its force and energy RMSE, over that
    of the best model of the campaign, is at most 1 + ``TOLERANCE``. Because the standing is handed
    on, models that are each a little worse than the last cannot creep away from the best.

    Parameters
    ----------
    errors
        On the held-out labels, of ``model``, ``mean_predictor`` and, unless it cannot be compared
        or there is none, ``promoted``: :attr:`mlip_assets.training.ModelReport.held_out`.
    rival_standing
        The ``standing`` the promoted model was promoted with; 1 where there is none.
    is_stable
        Whether its dynamics broke no guard at any temperature of the campaign.
    """
    rival, rival_is = "promoted", "the promoted model"
    if rival not in errors:
        rival, rival_is, rival_standing = "mean_predictor", "the mean predictor", 1.0
    ratio = _ratio(errors["model"], errors[rival])
    if ratio is None:
        reason = "its errors on the held-out labels are not finite"
        return Promotion(False, reason, None, rival_standing)
    standing = rival_standing * ratio
    compared = f"{ratio:.3f} × the force and energy RMSE of {rival_is} (geometric mean)"
    if not is_stable:
        reason = f"its molecular dynamics broke a guard; {compared}"
        return Promotion(False, reason, ratio, rival_standing)
    if standing > 1 + TOLERANCE:
        limit = (1 + TOLERANCE) / rival_standing
        reason = f"worse: {compared}, at most {limit:.3f} is allowed"
        return Promotion(False, reason, ratio, rival_standing)
    return Promotion(True, f"not worse: {compared}, and stable", ratio, max(1.0, standing))


class PromotedModels:
    """The models that one campaign has promoted, each in a folder of its own, and which is in use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pointer = folder / POINTER_NAME

    def locked(self) -> AbstractContextManager[None]:
        """Held while a model is judged and promoted; waits for others."""
        return locked(self.folder / "lock", wait=True)

    @property
    def name(self) -> str | None:
        """Folder of the model in use; None: none has been promoted yet."""
        if not self._pointer.exists():
            return None
        return str(json.loads(self._pointer.read_text(encoding="utf-8"))["model"])

    def in_use(self) -> tuple[TrainedModel, Promotion]:
        """The promoted model and how it came to be that.

        Raises
        ------
        FileNotFoundError
            None has been promoted yet.
        ValueError
            The model is not the one that was promoted.
        """
        record = json.loads(self._pointer.read_text(encoding="utf-8"))
        model = self.open(record.pop("model"))
        if record.pop("weights_sha256") != model.weights_sha256:
            raise ValueError(
                f"{model.model_file} is not the model that {self._pointer} names; restore it, or "
                "delete the folder and run the campaign again"
            )
        return model, Promotion(**record)

    def open(self, name: str) -> TrainedModel:
        """One of the models, by its folder."""
        return TrainedModel.open(self.folder / name)

    def folder_of(self, model: TrainedModel) -> Path:
        """Where a model is kept among the others, with its report and its labels."""
        name = model.weights_sha256[:16]
        if model.members:  # the same model with another committee is kept beside it
            hashes = "".join(map(sha256_of_file, model.members))
            name += "-" + hashlib.sha256(hashes.encode()).hexdigest()[:8]
        return self.folder / name

    def promote(self, model: TrainedModel, promotion: Promotion) -> None:
        """Keep the model in a folder of its own and, last, point to it.

        A kill leaves the earlier model promoted.
        """
        own = self.folder_of(model)
        if not (own / METRICS_NAME).exists():
            model.save(own)
        record = {"model": own.name, "weights_sha256": model.weights_sha256, **asdict(promotion)}
        write_text(self._pointer, json.dumps(record, indent=1, allow_nan=False) + "\n")


def _ratio(errors: Mapping[str, Any], rival: Mapping[str, Any]) -> float | None:
    pairs = [(errors[name], rival[name]) for name in ERRORS]
    if any(ours is None for ours, _ in pairs):
        return None
    # a rival whose error is unknown or nothing at all can only be matched, not judged by
    ratios = [ours / theirs for ours, theirs in pairs if theirs]
    return float(np.exp(np.mean(np.log(np.maximum(ratios, 1e-12))))) if ratios else 1.0
