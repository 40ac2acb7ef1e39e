"""The learning curve of a campaign: errors of the models of its rounds against the number of labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ase import Atoms
from ase.calculators.calculator import Calculator

from mlip_assets.refresh.rounds import Round
from mlip_assets.training.errors import compute_errors, predict_with, references
from mlip_assets.training.labels import structure_sha256
from mlip_assets.training.splits import HeldOut


@dataclass(frozen=True)
class LearningPoint:
    """Errors of the model in use at the end of one round."""

    round: int
    n_labels: int
    force_rmse_meV_per_A: float | None
    energy_rmse_meV_per_atom: float | None


def learning_curve(
    rounds: Sequence[Round],
    calculator_of: Callable[[str], Calculator],
    labelled: Sequence[Atoms],
    held_out: HeldOut,
) -> list[LearningPoint]:
    """Compute the errors of the models of all rounds on the labels that are held out now.

    A frame used in training is never held out later. So no model has seen these labels, also where
    they were held out after its training, and all errors are of the same frames.

    Parameters
    ----------
    rounds
        Rounds without a model in use are ignored.
    calculator_of
        Returns the calculator of the model with the name that a round records.
    labelled
        All labels of the campaign.
    held_out
        Record of the campaign's held-out frames.
    """
    frames = [frame for frame in labelled if structure_sha256(frame) in held_out.test]
    labels, errors, points = references(frames), {}, []
    for one in rounds:
        if one.model is None or one.n_labels is None:
            continue
        if one.model not in errors:
            predicted = predict_with(calculator_of(one.model), frames)
            errors[one.model] = compute_errors(labels, predicted)
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
