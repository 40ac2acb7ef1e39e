"""The learning curve of a campaign: errors of the models of its rounds against DFT labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ase import Atoms

from mlip_assets.refresh.rounds import Round
from mlip_assets.training.errors import errors_of, predict_with, references
from mlip_assets.training.held_out import HeldOut
from mlip_assets.training.labels import structure_sha256
from mlip_assets.training.model import TrainedModel


@dataclass(frozen=True)
class LearningPoint:
    """The model in use at the end of one round."""

    round: int
    n_labels: int
    force_rmse_meV_per_A: float | None
    energy_rmse_meV_per_atom: float | None


def learning_curve(
    rounds: Sequence[Round],
    model_of: Callable[[str], TrainedModel],
    labelled: Sequence[Atoms],
    held_out: HeldOut,
    device: str = "cpu",
) -> list[LearningPoint]:
    """Measure the models of all rounds on the labels that are held out now.

    Labels held out later than a model was trained are as new to it as those before: what is once
    trained on is never held out. So all errors are of the same frames and can be compared.

    Parameters
    ----------
    rounds
        Those that have ended with a model in use.
    model_of
        Gives the model that a round has named.
    labelled
        All labels of the campaign.
    device
        ``cpu``, ``cuda`` or ``cuda:1``.
    """
    frames = [frame for frame in labelled if structure_sha256(frame) in held_out.test]
    known, errors, points = references(frames), {}, []
    for one in rounds:
        if one.model is None or one.n_labels is None:
            continue
        if one.model not in errors:
            calculator = model_of(one.model).calculator(device)
            errors[one.model] = errors_of(known, predict_with(calculator, frames))
        found = errors[one.model]
        points.append(
            LearningPoint(
                one.number,
                one.n_labels,
                found["force_rmse_meV_per_A"],
                found["energy_rmse_meV_per_atom"],
            )
        )
    return points
