"""The committee of a model: splits of its members, and calibration of its spread."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from mlip_assets.surrogates import force_spread
from mlip_assets.training.errors import Properties, predict, references
from mlip_assets.training.splits import Split

Floats = NDArray[np.float64]

_log = logging.getLogger(__name__)

#: Fraction of the training labels on which each other member is trained. Members that are tuned
#: from the same weights on the same labels, in another order, have too small a spread.
MEMBER_FRACTION = 0.8
#: Training labels that a committee needs.
MIN_LABELS = 10
#: Frames that the fit of a scale needs.
MIN_FRAMES = 5
#: Smaller spreads occur only where forces vanish by symmetry, and are rounding errors.
MIN_SPREAD_EV_PER_A = 1e-4


@dataclass(frozen=True)
class Calibration:
    """How well the spread of a committee predicts the force error of the model."""

    scale: float | None
    """Factor from the spread of a frame to its expected force RMSE; None where it is not known."""
    spearman: float | None
    """Rank correlation of spread and error over the frames."""
    within_1: float | None
    """Fraction of the frames with an error below the calibrated spread; the scale for each frame is
    fitted to the other frames."""
    within_2: float | None
    """Fraction of the frames with an error below twice the calibrated spread."""
    n_frames: int
    frames: str
    """``held-out``, or ``validation and held-out`` where the held-out frames are too few."""
    reason: str | None
    """Why there is no scale."""
    errors_eV_per_A: list[float]
    """Force RMSE of each frame, over its components, eV/Å."""
    spreads_eV_per_A: list[float]
    """Largest :func:`mlip_assets.surrogates.force_spread` in each frame, eV/Å, before scaling."""


def member_splits(split: Split, n_members: int, *, seed: int) -> list[Split]:
    """Splits of the members other than the main model: a random 80 % of the training labels each.

    This is the delete-d jackknife (Shao & Wu, Ann. Stat. 17, 1176 (1989)). Validation and held-out
    sets are those of the main model. The only frame with an element is always kept.

    Parameters
    ----------
    split
        Split of the main model.
    n_members
        Number of members other than the main model.
    seed
        Random seed. Member i does not depend on the number of members.

    Returns
    -------
    list[Split]
        Empty for fewer than ten training labels.
    """
    if n_members and len(split.train) < MIN_LABELS:
        _log.warning(
            "training: %d training labels are too few for a committee; at least %d are needed",
            len(split.train),
            MIN_LABELS,
        )
        return []
    return [
        replace(split, train=_random_part(split.train, np.random.default_rng([seed, number])))
        for number in range(1, n_members + 1)
    ]


def _random_part(frames: Sequence[Atoms], generator: np.random.Generator) -> list[Atoms]:
    kept = set(range(len(frames)))
    n_kept = round(MEMBER_FRACTION * len(frames))
    elements = [set(frame.numbers.tolist()) for frame in frames]
    for index in generator.permutation(len(frames)).tolist():
        if len(kept) > n_kept and elements[index] <= set().union(
            *(elements[other] for other in kept - {index})
        ):
            kept.remove(index)
    return [frames[index] for index in sorted(kept)]


def calibrate_committee(
    split: Split, predicted: Mapping[str, Properties], members: Sequence[Path]
) -> tuple[tuple[Path, ...], Calibration | None]:
    """Compare the spread of a committee with the errors of its main model on the held-out frames.

    Parameters
    ----------
    split
        Split of the main model.
    predicted
        Predictions of the main model for each set.
    members
        ``.model`` files of the other members; they are unpickled.

    Returns
    -------
    tuple
        The members whose training did not diverge, and the calibration; None without members.
    """
    sets = ["test"] if len(split.test) >= MIN_FRAMES else ["valid", "test"]
    frames = [frame for name in sets for frame in split.by_name[name]]
    committee_forces = [np.concatenate([predicted[name].forces for name in sets])]
    converged = []
    for member in members:
        forces = predict(member, {"frames": frames})["frames"].forces
        if np.isfinite(forces).all():
            converged.append(member)
            committee_forces.append(forces)
        else:
            _log.warning("training: %s diverged and is left out of the committee", member)
    if not converged:
        return (), None
    ends = np.cumsum([len(frame) for frame in frames])[:-1]
    errors = np.split(committee_forces[0] - references(frames).forces, ends)
    spreads = np.split(force_spread(np.array(committee_forces)), ends)
    return tuple(converged), calibrate(
        np.array([np.sqrt(np.mean(error**2)) for error in errors]),
        np.array([spread.max() for spread in spreads]),
        frames="held-out" if sets == ["test"] else "validation and held-out",
    )


def calibrate(errors: Floats, spreads: Floats, *, frames: str = "held-out") -> Calibration:
    r"""Fit the scale from spreads to expected errors.

    Assume that the components of the force error of a frame are Gaussian with standard deviation
    ``s * spread``, and that each frame has weight one. The maximum-likelihood scale is

    .. math:: s^2 = \frac{1}{N} \sum_f \frac{\mathrm{RMSE}_f^2}{\mathrm{spread}_f^2},

    as in Imbalzano et al., "Uncertainty estimation for molecular dynamics and sampling", J. Chem.
    Phys. 154, 074102 (2021). Their correction for few members, (M - 3)/(M - 1), is not applied: it
    is for the variance of a single number, while a spread here is a maximum over all atoms of a
    frame. With N frames the relative uncertainty of the scale is about 1/sqrt(2 N), a quarter for
    eight frames.

    Parameters
    ----------
    errors
        Force RMSE of each frame, (n_frames,), eV/Å.
    spreads
        Spread of each frame, (n_frames,), eV/Å. Frames with a spread below 0.1 meV/Å are left out.
    frames
        Name of the set of frames, for messages.
    """
    is_used = spreads >= MIN_SPREAD_EV_PER_A
    errors, spreads = errors[is_used], spreads[is_used]
    scale = spearman = None
    within: list[float | None] = [None, None]
    if enough := len(errors) >= MIN_FRAMES:
        ratios = (errors / spreads) ** 2
        scale = float(np.sqrt(ratios.mean()))
        spearman = _rank_correlation(errors, spreads)
        squared_scales = (ratios.sum() - ratios) / (len(ratios) - 1)
        within = [float(np.mean(ratios < times**2 * squared_scales)) for times in (1, 2)]
    return Calibration(
        scale=scale,
        spearman=spearman,
        within_1=within[0],
        within_2=within[1],
        n_frames=len(errors),
        frames=frames,
        reason=None if enough else f"{len(errors)} {frames} frames, fewer than {MIN_FRAMES}",
        errors_eV_per_A=errors.tolist(),
        spreads_eV_per_A=spreads.tolist(),
    )


def _rank_correlation(errors: Floats, spreads: Floats) -> float | None:
    from scipy.stats import spearmanr  # type: ignore[import-untyped]

    if np.ptp(errors) == 0 or np.ptp(spreads) == 0:
        return None
    return float(spearmanr(errors, spreads).statistic)
