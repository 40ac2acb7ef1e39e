"""Cost of the labels of one run, and DFT cost avoided by the selection of frames."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from mlip_assets.labelling.database import LabelledDatabase

#: A selection is compared with labelling every n-th frame of a trajectory.
EVERY_NTH_FRAME = 10
#: Plausible binding energy, eV/atom: tungsten has -9, and a frame far from equilibrium is a few eV
#: above its crystal. Outside, frames and isolated atoms have inconsistent settings.
BINDING_RANGE_EV = (-15.0, 5.0)


@dataclass(frozen=True)
class LabellingCost:
    """Calculations, failures and core-hours of one run.

    Attributes
    ----------
    n_made, n_reused, n_duplicates
        DFT calls made; DFT calls avoided, because the label existed; and of these, frames equal to
        another frame.
    failed
        Number of frames without a label, by outcome or gate.
    core_hours_spent, core_hours_reused
        Core-hours of the calls made, and of the labels that existed.
    frames_explored_per_label
        Frames explored divided by frames labelled; None without labels.
    core_hours_saved
        Core-hours of labelling every ``EVERY_NTH_FRAME``-th explored frame, at the mean cost of a
        label, minus those of the labels; None without a measured label. Negative if the selection
        costs more.
    """

    n_made: int
    n_reused: int
    n_duplicates: int
    failed: dict[str, int]
    core_hours_spent: float
    core_hours_reused: float
    frames_explored_per_label: float | None
    core_hours_saved: float | None


def labelling_cost(database: LabelledDatabase, n_frames_explored: int) -> LabellingCost:
    """Cost of the labels of one run.

    Parameters
    ----------
    database
        The labels and failures of the run.
    n_frames_explored
        Number of frames from which the labelled ones were selected.
    """
    n_labels = len(database.labelled)
    n_with_cost = database.n_calculated + database.n_reused
    core_hours = database.core_hours_spent + database.core_hours_reused
    saved = None
    if n_labels and n_with_cost and core_hours > 0:
        saved = (n_frames_explored / EVERY_NTH_FRAME - n_labels) * core_hours / n_with_cost
    return LabellingCost(
        n_made=database.n_calculated,
        n_reused=database.n_reused,
        n_duplicates=database.n_duplicates,
        failed=dict(Counter(failure.kind for failure in database.failed).most_common()),
        core_hours_spent=database.core_hours_spent,
        core_hours_reused=database.core_hours_reused,
        frames_explored_per_label=n_frames_explored / n_labels if n_labels else None,
        core_hours_saved=saved,
    )


def binding_problem(database: LabelledDatabase) -> str | None:
    """Why the binding energies are implausible in sign or size; None if they are plausible.

    If frames and isolated atoms differ in program, settings or charge, binding energies have the
    wrong sign or are hundreds of eV, and no useful model can be trained on them.
    """
    binding = database.binding_energies()
    if len(binding) == 0:
        return "there are no labels"
    if np.isnan(binding).any():
        n_missing = int(np.isnan(binding).sum())
        return f"{n_missing} frames contain an element without an isolated-atom energy"
    low, high = BINDING_RANGE_EV
    n_outside = int(((binding < low) | (binding > high)).sum())
    if n_outside:
        return (
            f"{n_outside} frames have binding energies outside {low:g} to {high:g} eV/atom; the "
            f"range is {binding.min():.1f} to {binding.max():.1f}; compute the isolated atoms with "
            "the same engine and settings as the frames"
        )
    if np.median(binding) >= 0:
        return (
            f"half of the frames are {np.median(binding):.2f} eV/atom or more above their isolated "
            "atoms, so they are not bound; compute the isolated atoms with the same engine and "
            "settings as the frames"
        )
    return None
