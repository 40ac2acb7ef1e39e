"""The labels, and the frames that have none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
import numpy as np

from mlip_assets.figures.canvas import TABLE_ROWS, canvas, png, table

if TYPE_CHECKING:
    from mlip_assets.labelling import LabelledDatabase

#: Columns of the table of labels.
LABEL_COLUMNS = [
    "frame_id",
    "seed_kind",
    "n_atoms",
    "binding_energy_eV_per_atom",
    "max_force_eV_per_A",
    "label_key",
]
#: Labels named on their scatter: the farthest, beyond this number of robust standard deviations.
NAMED_OUTLIERS, OUTLIER_SCORE = 8, 4.0


def label_table(database: LabelledDatabase) -> dg.MetadataValue:
    """Every label beside what the surrogate thought of the frame."""
    labels = database.to_dataframe()
    if labels.empty:
        return table([])
    shown = labels[LABEL_COLUMNS].head(TABLE_ROWS)
    return table(shown.assign(label_key=shown["label_key"].str[:12]))


def failure_table(database: LabelledDatabase) -> dg.MetadataValue:
    """Every frame without a label and its reason."""
    return table(
        {
            "frame_id": failure.frame_id,
            "kind": failure.kind,
            "attempts": failure.attempts,
            "reason": failure.reason,
        }
        for failure in database.failed
    )


def label_plot(database: LabelledDatabase) -> bytes:
    """Binding energies and forces of the labelled frames by kind of seed, and outliers by name."""
    figure, (left, middle, right) = canvas(1, 3, 4.2, 3.6)
    binding = database.binding_energies()
    kinds = np.array([atoms.info["seed_kind"] for atoms in database.labelled])
    norms = [np.linalg.norm(atoms.arrays["REF_forces"], axis=1) for atoms in database.labelled]
    largest = np.array([norm.max() for norm in norms])
    names = sorted(set(kinds))
    if names:
        left.hist([binding[kinds == kind] for kind in names], bins=20, stacked=True, label=names)
        forces = [
            np.concatenate([n for n, k in zip(norms, kinds, strict=True) if k == kind])
            for kind in names
        ]
        middle.hist(forces, bins=20, stacked=True, label=names)
        middle.legend(fontsize=7)
    for kind in names:
        right.plot(largest[kinds == kind], binding[kinds == kind], "o", ms=3, alpha=0.7)
    for i in _outliers(np.stack([largest, binding], axis=1)):
        right.annotate(
            str(database.labelled[i].info.get("frame_id", i)),
            (largest[i], binding[i]),
            xytext=(-3, 3),
            textcoords="offset points",
            ha="right",
            fontsize=7,
        )
    left.set(xlabel="binding energy / eV per atom", ylabel="frames")
    middle.set(xlabel="force / eV/Å", ylabel="atoms")
    right.set(xlabel="largest force / eV/Å", ylabel="binding energy / eV per atom")
    right.set_title("outliers by frame_id", fontsize=9)
    return png(figure)


def _outliers(points: np.ndarray) -> np.ndarray:
    """Points far from the median along any axis, the farthest first."""
    finite = np.flatnonzero(np.isfinite(points).all(axis=1))
    if len(finite) == 0:
        return finite
    distances = np.abs(points[finite] - np.median(points[finite], axis=0))
    spread = 1.4826 * np.median(distances, axis=0)
    scores = np.max(distances / np.where(spread > 0, spread, np.inf), axis=1)
    order = np.argsort(-scores)[:NAMED_OUTLIERS]
    far: np.ndarray = finite[order[scores[order] > OUTLIER_SCORE]]
    return far
