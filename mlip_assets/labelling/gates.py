"""Gates: frames not worth a calculation, and calculations not worth training on.

A reason begins with the gate's name: before spending ``unusable``, ``close_contact``,
``surrogate_force`` or ``surrogate_energy``; afterwards ``not_finite``, ``net_force``, ``max_force``,
``stress`` or ``energy_window``.
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
from mlip_assets.labelling.structure import flaw_of
from mlip_assets.structures.contacts import closest_contact

#: A median needs this many frames to judge others by.
MIN_COMPANY = 8
#: Energies further from the median than this many standard deviations, as the median absolute
#: deviation gives them, are outliers, if they are also beyond the window of the settings.
_DEVIATIONS = 12.0
#: Sums of forces below this are the noise of any grid, eV/Å.
_NET_FORCE_FLOOR_EV_PER_A = 0.01


def refusals(frames: Sequence[Atoms], settings: GateSettings) -> list[str | None]:
    """Why each frame must not be paid for; None where it may.

    Looks at distances and at what the surrogate said: ``info["surrogate_energy_eV"]`` and the
    results of a calculator, where a frame has them.
    """
    reasons = [_refusal(atoms, settings) for atoms in frames]
    energies = np.array([float(a.info.get("surrogate_energy_eV", np.nan)) for a in frames])
    good = [i for i, reason in enumerate(reasons) if reason is None and np.isfinite(energies[i])]
    sizes = np.array([len(frames[i]) for i in good])
    outliers = energy_outliers([frames[i] for i in good], energies[good] / sizes, settings)
    for i, outlier in zip(good, outliers, strict=True):
        reasons[i] = outlier and f"surrogate_energy: by the surrogate, {outlier}"
    return reasons


def flaw_of_label(
    calculation: Calculation, settings: GateSettings, max_net_force_eV_per_A: float
) -> str | None:
    """Why a label must not be trained on, seen by itself; None when it may.

    Parameters
    ----------
    calculation
        What is judged.
    settings
        Limits relative to the calculation and for the material.
    max_net_force_eV_per_A
        Of the engine. Forces on all atoms sum to zero in an exact calculation; what is left is the
        error of the grid, which no single finite difference shows.
    """
    stress = np.zeros((3, 3)) if calculation.stress is None else calculation.stress
    parts = (calculation.energy_eV, calculation.forces, stress)
    if not all(np.isfinite(part).all() for part in parts):
        return "not_finite: energy, forces or stress are not finite"
    largest = float(np.linalg.norm(calculation.forces, axis=1).max(initial=0.0))
    net = float(np.linalg.norm(calculation.forces.sum(axis=0)))
    relative = max(settings.max_net_force_ratio * largest, _NET_FORCE_FLOOR_EV_PER_A)
    if net > max_net_force_eV_per_A:
        limit = f"max_net_force_eV_per_A = {max_net_force_eV_per_A:g}"
    elif net > relative:
        limit = f"max_net_force_ratio = {settings.max_net_force_ratio:g} of the largest force"
    else:
        limit = ""
    if limit:
        return (
            f"net_force: the forces sum to {net:.3g} eV/Å, the largest is {largest:.3g} ({limit}): "
            "too coarse a grid; raise cutoff_eV"
        )
    if largest > settings.max_force_eV_per_A:
        return f"max_force: {largest:.1f} eV/Å exceeds {settings.max_force_eV_per_A:g}"
    largest_GPa = float(np.abs(stress).max()) / GPa
    if largest_GPa > settings.max_stress_GPa:
        return (
            f"stress: {largest_GPa:.0f} GPa exceeds max_stress_GPa = {settings.max_stress_GPa:g}; "
            "either the frame is crushed, or cutoff_eV is too low for stress"
        )
    skew_GPa = float(np.abs(stress - stress.T).max()) / GPa
    if skew_GPa > 0.01 * largest_GPa + 0.01:
        return f"stress: the tensor is not symmetric, by {skew_GPa:.2g} GPa"
    return None


def energy_outliers(
    frames: Sequence[Atoms], energies: NDArray[np.float64], settings: GateSettings
) -> list[str | None]:
    """Which frames have an energy far from that of their likes, and by how much.

    Likes have the same composition and the same number of periodic directions. The median and the
    median absolute deviation are not moved by the outliers they are to find. Dimers are never
    outliers, nor company to others: their energies are meant to reach from the bond to the core.

    Parameters
    ----------
    frames, energies
        One energy a frame, eV/atom; not a number where it is unknown.
    """
    groups: dict[tuple[str, int], list[int]] = defaultdict(list)
    for i, atoms in enumerate(frames):
        if np.isfinite(energies[i]) and not is_dimer(atoms):
            formula = atoms.symbols.formula.reduce()[0].format("hill")
            groups[formula, int(atoms.pbc.sum())].append(i)
    found: list[str | None] = [None] * len(frames)
    window = settings.max_energy_deviation_eV_per_atom
    for members in groups.values():
        if len(members) < MIN_COMPANY:
            continue
        median = float(np.median(energies[members]))
        spread = 1.4826 * float(np.median(np.abs(energies[members] - median)))
        limit = max(window, _DEVIATIONS * spread)
        for i in members:
            deviation = float(energies[i]) - median
            if abs(deviation) > limit:
                found[i] = (
                    f"{energies[i]:.2f} eV/atom is {abs(deviation):.1f} "
                    f"{'above' if deviation > 0 else 'below'} the median of {len(members)} alike "
                    f"frames, {median:.2f} (limit {limit:.1f})"
                )
    return found


def _refusal(atoms: Atoms, settings: GateSettings) -> str | None:
    flaw = flaw_of(atoms)
    if flaw:
        return f"unusable: {flaw}"
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
        if not largest <= settings.max_force_eV_per_A:  # nor is what is not a number
            return f"surrogate_force: {largest:.1f} eV/Å exceeds {settings.max_force_eV_per_A:g}"
    return None
