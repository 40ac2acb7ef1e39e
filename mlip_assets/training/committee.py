"""A committee beside the model: where its members disagree, and how far wrong the model is there."""

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

#: Of the training labels, what each further member is trained on. Members that see the same data
#: and differ in the order of the batches alone, tuned from the same weights, agree too well.
SHARE = 0.8
#: Fewer training labels leave no meaningful share.
FEWEST_LABELS = 10
#: Fewer frames do not determine a scale.
FEWEST_FRAMES = 5
#: eV/Å. Members agree so well only where forces vanish by symmetry; rounding is no uncertainty.
SMALLEST_SPREAD = 1e-4


@dataclass(frozen=True)
class Calibration:
    """What the spread of a committee is worth as a prediction of the model's force error."""

    scale: float | None
    """Times the spread of a frame: its expected force RMSE. None where it is not known."""
    spearman: float | None
    """Rank correlation of spread and error over the frames."""
    within_1: float | None
    """Share of the frames with an error below the calibrated spread; each is judged by the scale
    that the other frames give."""
    within_2: float | None
    """The same, below twice the calibrated spread."""
    n_frames: int
    frames: str
    """``held-out``, or ``validation and held-out`` where those alone are too few."""
    reason: str | None
    """Why there is no scale."""
    errors_eV_per_A: list[float]
    """Force RMSE of each frame, over its components."""
    spreads_eV_per_A: list[float]
    """Largest :func:`mlip_assets.dynamics.force_spread` in each frame, not yet scaled."""


def member_splits(split: Split, n_members: int, *, seed: int) -> list[Split]:
    """What each member beside the main model is trained on: a random 80 % of the training labels.

    The delete-d jackknife (Shao & Wu, Ann. Stat. 17, 1176 (1989)). Validation and held-out sets are
    those of the main model. A frame that alone holds an element is never left out.

    Parameters
    ----------
    n_members
        Beside the main model. None are made from fewer than ten training labels.
    seed
        Of the draws; member i is the same whatever the number of members.
    """
    if n_members and len(split.train) < FEWEST_LABELS:
        _log.warning(
            "training: %d training labels are too few for a committee; at least %d are needed",
            len(split.train),
            FEWEST_LABELS,
        )
        return []
    return [
        replace(split, train=_share(split.train, np.random.default_rng([seed, number])))
        for number in range(1, n_members + 1)
    ]


def _share(frames: Sequence[Atoms], generator: np.random.Generator) -> list[Atoms]:
    kept = set(range(len(frames)))
    n_kept = round(SHARE * len(frames))
    elements = [set(frame.numbers.tolist()) for frame in frames]
    for index in generator.permutation(len(frames)).tolist():
        if len(kept) > n_kept and elements[index] <= set().union(
            *(elements[other] for other in kept - {index})
        ):
            kept.remove(index)
    return [frames[index] for index in sorted(kept)]


def calibrated(
    split: Split, predicted: Mapping[str, Properties], members: Sequence[Path]
) -> tuple[tuple[Path, ...], Calibration | None]:
    """Compare the spread of a committee with the errors of its main model on the held-out frames.

    Parameters
    ----------
    split
        Of the main model.
    predicted
        What the main model says of each set.
    members
        The ``.model`` files of the others; they are unpickled.

    Returns
    -------
    tuple
        The members whose training did not diverge, and the calibration; None without members.
    """
    sets = ["test"] if len(split.test) >= FEWEST_FRAMES else ["valid", "test"]
    frames = [frame for name in sets for frame in split.by_name[name]]
    said = [np.concatenate([predicted[name].forces for name in sets])]
    kept = []
    for member in members:
        forces = predict(member, {"frames": frames})["frames"].forces
        if np.isfinite(forces).all():
            kept.append(member)
            said.append(forces)
        else:
            _log.warning("training: %s diverged and is left out of the committee", member)
    if not kept:
        return (), None
    ends = np.cumsum([len(frame) for frame in frames])[:-1]
    errors = np.split(said[0] - references(frames).forces, ends)
    spreads = np.split(force_spread(np.array(said)), ends)
    return tuple(kept), calibrate(
        np.array([np.sqrt(np.mean(error**2)) for error in errors]),
        np.array([spread.max() for spread in spreads]),
        frames="held-out" if sets == ["test"] else "validation and held-out",
    )


def calibrate(errors: Floats, spreads: Floats, *, frames: str = "held-out") -> Calibration:
    r"""Fit the scale that turns spreads into expected errors.

    With the components of a frame's force error drawn from a Gaussian of width ``s * spread``, the
    likelihood of all frames, each counting once, is greatest at

    .. math:: s^2 = \frac{1}{N} \sum_f \frac{\mathrm{RMSE}_f^2}{\mathrm{spread}_f^2},

    the scaling of Imbalzano et al., "Uncertainty estimation for molecular dynamics and sampling",
    J. Chem. Phys. 154, 074102 (2021). Their correction for few members, (M - 3)/(M - 1), is not
    applied: it is for the variance of one number, which few members leave wide open, while a spread
    here is taken over all the atoms of a frame. With N frames the scale is uncertain by about
    1/sqrt(2 N) where frames count as single errors: a quarter for eight.

    Parameters
    ----------
    errors
        Force RMSE of each frame, (n_frames,), eV/Å.
    spreads
        Spread of each frame, (n_frames,), eV/Å. Frames with a spread below 0.1 meV/Å are left out.
    frames
        What they are called.
    """
    known = spreads >= SMALLEST_SPREAD
    errors, spreads = errors[known], spreads[known]
    scale = spearman = None
    within: list[float | None] = [None, None]
    if enough := len(errors) >= FEWEST_FRAMES:
        ratios = (errors / spreads) ** 2
        scale = float(np.sqrt(ratios.mean()))
        spearman = _rank_correlation(errors, spreads)
        of_others = (ratios.sum() - ratios) / (len(ratios) - 1)
        within = [float(np.mean(ratios < times**2 * of_others)) for times in (1, 2)]
    return Calibration(
        scale=scale,
        spearman=spearman,
        within_1=within[0],
        within_2=within[1],
        n_frames=len(errors),
        frames=frames,
        reason=None if enough else f"{len(errors)} {frames} frames, fewer than {FEWEST_FRAMES}",
        errors_eV_per_A=errors.tolist(),
        spreads_eV_per_A=spreads.tolist(),
    )


def _rank_correlation(errors: Floats, spreads: Floats) -> float | None:
    from scipy.stats import spearmanr  # type: ignore[import-untyped]

    if np.ptp(errors) == 0 or np.ptp(spreads) == 0:
        return None
    return float(spearmanr(errors, spreads).statistic)
