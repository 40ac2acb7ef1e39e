"""Gates: checks of frames before a calculation, and of calculations before training.

A reason begins with the name of the gate: ``unusable``, ``close_contact``, ``surrogate_force`` or
``surrogate_energy`` before a calculation; ``not_finite``, ``net_force``, ``max_force``, ``stress``
or ``energy_window`` after it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.units import GPa
from numpy.typing import NDArray

from mlip_assets.campaign import GateSettings
from mlip_assets.labelling.dimers import is_dimer
from mlip_assets.labelling.engines.engine import Calculation
from mlip_assets.labelling.structure import invalid_reason
from mlip_assets.structures.contacts import closest_contact

#: Smallest number of frames of equal composition and periodicity whose median is used.
MIN_GROUP_SIZE = 8
#: An outlier is at least this many standard deviations from the median, estimated from the median
#: absolute deviation, and also beyond the limit of the settings.
_MIN_OUTLIER_DEVIATIONS = 12.0
#: Net forces below this are the noise of any real-space grid, eV/Å.
_NET_FORCE_NOISE_EV_PER_A = 0.01


def gate_of(reason: str) -> str:
    """Name of the gate that gave a reason."""
    return reason.partition(":")[0]


def gate_frames(frames: Sequence[Atoms], settings: GateSettings) -> list[str | None]:
    """Why each frame must not be computed; None if it may.

    Distances are checked, and the results of the surrogate where a frame has them:
    ``info["surrogate_energy_eV"]`` and the forces of an attached calculator.
    """
    reasons = [_gate_frame(atoms, settings) for atoms in frames]
    energies = np.array([float(a.info.get("surrogate_energy_eV", np.nan)) for a in frames])
    passed = [i for i, reason in enumerate(reasons) if reason is None and np.isfinite(energies[i])]
    sizes = np.array([len(frames[i]) for i in passed])
    outliers = energy_outliers([frames[i] for i in passed], energies[passed] / sizes, settings)
    for i, outlier in zip(passed, outliers, strict=True):
        reasons[i] = outlier and f"surrogate_energy: by the surrogate, {outlier}"
    return reasons


def gate_calculation(
    calculation: Calculation, settings: GateSettings, max_net_force_eV_per_A: float
) -> str | None:
    """Why a calculation must not be used for training, by its own values; None if it may.

    Parameters
    ----------
    calculation
        Energy, forces and stress.
    settings
        Limits of forces and stress, and of the net force relative to the largest force.
    max_net_force_eV_per_A
        Of the engine. Forces on all atoms sum to zero in an exact calculation; the sum is an error
        of the real-space grid, which no finite difference of one atom shows.
    """
    stress = np.zeros((3, 3)) if calculation.stress is None else calculation.stress
    values = (calculation.energy_eV, calculation.forces, stress)
    if not all(np.isfinite(value).all() for value in values):
        return "not_finite: energy, forces or stress are not finite"
    largest = float(np.linalg.norm(calculation.forces, axis=1).max(initial=0.0))
    net = float(np.linalg.norm(calculation.forces.sum(axis=0)))
    relative = max(settings.max_net_force_ratio * largest, _NET_FORCE_NOISE_EV_PER_A)
    if net > max_net_force_eV_per_A:
        limit = f"max_net_force_eV_per_A = {max_net_force_eV_per_A:g}"
    elif net > relative:
        limit = f"max_net_force_ratio = {settings.max_net_force_ratio:g} of the largest force"
    else:
        limit = ""
    if limit:
        return (
            f"net_force: the forces sum to {net:.3g} eV/Å, the largest is {largest:.3g} ({limit}); "
            "the grid is too coarse; raise cutoff_eV"
        )
    if largest > settings.max_force_eV_per_A:
        return f"max_force: {largest:.1f} eV/Å exceeds {settings.max_force_eV_per_A:g}"
    largest_GPa = float(np.abs(stress).max()) / GPa
    if largest_GPa > settings.max_stress_GPa:
        return (
            f"stress: {largest_GPa:.0f} GPa exceeds max_stress_GPa = {settings.max_stress_GPa:g}; "
            "either the frame is strongly compressed, or cutoff_eV is too low for stress"
        )
    asymmetry_GPa = float(np.abs(stress - stress.T).max()) / GPa
    if asymmetry_GPa > 0.01 * largest_GPa + 0.01:
        return f"stress: the tensor is not symmetric, by {asymmetry_GPa:.2g} GPa"
    return None


def energy_outliers(
    frames: Sequence[Atoms], energies: NDArray[np.float64], settings: GateSettings
) -> list[str | None]:
    """Which frames have an energy far from the median of their group, and by how much.

    A group has the same composition and the same number of periodic directions. The median and the
    median absolute deviation are robust against the outliers. Dimers belong to no group, because
    their energies range from the bond to the repulsive core.

    Parameters
    ----------
    frames
        With ``info["seed_kind"]`` for dimers.
    energies
        ``(n_frames,)``, eV/atom; not a number if unknown.
    settings
        The limit ``max_energy_deviation_eV_per_atom``.

    Returns
    -------
    list of str or None
        For each frame the reason, or None if it is no outlier.
    """
    groups: dict[tuple[str, int], list[int]] = defaultdict(list)
    for i, atoms in enumerate(frames):
        if np.isfinite(energies[i]) and not is_dimer(atoms):
            formula = atoms.symbols.formula.reduce()[0].format("hill")
            groups[formula, int(atoms.pbc.sum())].append(i)
    reasons: list[str | None] = [None] * len(frames)
    for members in groups.values():
        if len(members) < MIN_GROUP_SIZE:
            continue
        median = float(np.median(energies[members]))
        spread = 1.4826 * float(np.median(np.abs(energies[members] - median)))
        limit = max(settings.max_energy_deviation_eV_per_atom, _MIN_OUTLIER_DEVIATIONS * spread)
        for i in members:
            deviation = float(energies[i]) - median
            if abs(deviation) > limit:
                reasons[i] = (
                    f"{energies[i]:.2f} eV/atom is {abs(deviation):.1f} "
                    f"{'above' if deviation > 0 else 'below'} the median of {len(members)} frames "
                    f"of equal composition and periodicity, {median:.2f} (limit {limit:.1f})"
                )
    return reasons


def _gate_frame(atoms: Atoms, settings: GateSettings) -> str | None:
    invalid = invalid_reason(atoms)
    if invalid:
        return f"unusable: {invalid}"
    contact = closest_contact(atoms, settings.min_distance_ratio)
    if contact:
        first, second = (f"{atoms.symbols[i]}{i}" for i in (contact.first, contact.second))
        return (
            f"close_contact: {first} and {second} are {contact.distance_A:.2f} Å apart, "
            f"{contact.ratio:.2f} of their covalent radii; min_distance_ratio is "
            f"{settings.min_distance_ratio:g}"
        )
    energy_eV = atoms.info.get("surrogate_energy_eV")
    if energy_eV is not None and not np.isfinite(energy_eV):
        return "surrogate_energy: not finite"
    forces = atoms.calc.results.get("forces") if atoms.calc else None
    if forces is not None:
        largest = float(np.linalg.norm(forces, axis=1).max())
        if not largest <= settings.max_force_eV_per_A:  # true for nan as well
            return f"surrogate_force: {largest:.1f} eV/Å exceeds {settings.max_force_eV_per_A:g}"
    return None
