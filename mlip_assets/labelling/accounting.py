"""What labels have cost, and what choosing the frames has saved."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from mlip_assets.labelling.database import LabelledDatabase

#: Labelling every so-manieth frame of a trajectory is what a selection is compared with.
EVERY_KTH_FRAME = 10
#: Binding energy per atom that matter can have, eV: tungsten has -9, a frame far out of
#: equilibrium a few eV more than its crystal. Beyond it, frames and free atoms do not belong
#: together.
BINDING_RANGE_EV = (-15.0, 5.0)


@dataclass(frozen=True)
class Account:
    """Figures of one run's labels.

    Attributes
    ----------
    n_made, n_reused, n_duplicates
        DFT calls made; saved, because the label was there; of those, frames equal to another.
    failed
        Frames without a label, by outcome or gate.
    core_hours_spent, core_hours_reused
        Of the calls made, and of the labels that were there.
    frames_explored_per_label
        Frames explored over frames labelled; None without labels.
    core_hours_saved
        What labelling every ``EVERY_KTH_FRAME``-th explored frame would take beyond the labels
        there are, at their mean cost; None without a measured label. Negative where it would have
        been cheaper.
    """

    n_made: int
    n_reused: int
    n_duplicates: int
    failed: dict[str, int]
    core_hours_spent: float
    core_hours_reused: float
    frames_explored_per_label: float | None
    core_hours_saved: float | None


def account_of(database: LabelledDatabase, n_frames_explored: int) -> Account:
    """The account of one run.

    Parameters
    ----------
    database
        What the run has labelled.
    n_frames_explored
        Frames the labelled ones were chosen from.
    """
    n_labels = len(database.labelled)
    n_costed = database.n_calculated + database.n_reused
    cost = database.core_hours_spent + database.core_hours_reused
    saved = None
    if n_labels and n_costed and cost > 0:
        saved = (n_frames_explored / EVERY_KTH_FRAME - n_labels) * cost / n_costed
    return Account(
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
    """What is wrong with the sign or the size of the binding energies; None when nothing is.

    Frames and free atoms of different programs, settings or states of charge give binding energies
    of the wrong sign or of hundreds of eV, and a model trained on them is lost.
    """
    binding = database.binding_energies()
    if len(binding) == 0:
        return "there are no labels"
    if np.isnan(binding).any():
        return f"{int(np.isnan(binding).sum())} frames hold an element without a free-atom energy"
    low, high = BINDING_RANGE_EV
    outside = int(((binding < low) | (binding > high)).sum())
    if outside:
        return (
            f"{outside} frames bind by {binding.min():.1f} to {binding.max():.1f} eV/atom, outside "
            f"{low:g} to {high:g}; were the free atoms computed with the same engine and settings?"
        )
    if np.median(binding) >= 0:
        return (
            f"half of the frames lie {np.median(binding):.2f} eV/atom or more above their free "
            "atoms; matter is bound, so one of the two is wrong"
        )
    return None
