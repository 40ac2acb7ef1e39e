"""Guards: when a frame stops being physics and its walker must stop."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.geometry import complete_cell
from matscipy.neighbours import neighbour_list

from mlip_assets.campaign import GuardSettings
from mlip_assets.dynamics.trajectory import Trajectory

#: A walker is never stopped below its target plus this, K: small cells fluctuate by
#: T·sqrt(2/3N), and a strained or vacant seed turns strain energy into heat.
TEMPERATURE_MARGIN_K = 1500.0


def broken_guard(
    atoms: Atoms,
    *,
    energy_eV: float,
    forces: np.ndarray,
    target_temperature_K: float,
    guards: GuardSettings,
) -> str | None:
    """Name the first guard that a frame breaks, with the figure that broke it; None when sound.

    Parameters
    ----------
    atoms
        The frame, with momenta.
    energy_eV, forces
        Potential energy and forces ``(n_atoms, 3)`` in eV/Å; a MACE model returns NaN or huge
        forces for overlapping atoms without raising, and a finite energy for NaN positions, so
        each is checked.
    target_temperature_K
        Of the thermostat.
    """
    arrays = (forces, atoms.positions, atoms.get_momenta())
    if not (np.isfinite(energy_eV) and all(np.isfinite(array).all() for array in arrays)):
        return "nan: energy, forces, positions or momenta are not finite"
    max_force = float(np.linalg.norm(forces, axis=1).max())
    if max_force > guards.max_force_eV_per_A:
        return f"max_force: {max_force:.1f} eV/Å exceeds {guards.max_force_eV_per_A:g}"
    limit_K = max(
        guards.max_temperature_factor * target_temperature_K,
        target_temperature_K + TEMPERATURE_MARGIN_K,
    )
    temperature_K = atoms.get_temperature()
    if temperature_K > limit_K:
        return f"temperature: {temperature_K:.0f} K exceeds {limit_K:.0f}"
    return close_contact(atoms, guards.min_distance_ratio)


def close_contact(atoms: Atoms, ratio: float) -> str | None:
    """Name the worst pair nearer than ``ratio`` times the sum of its covalent radii, if any."""
    radii = ratio * covalent_radii[atoms.numbers]
    # matscipy's list takes microseconds where ASE's takes milliseconds
    first, second, distance = neighbour_list(
        "ijd",
        cutoff=2 * radii.max(),
        positions=atoms.positions,
        cell=complete_cell(atoms.cell),  # a molecule may have none
        pbc=atoms.pbc,
    )
    margin = distance - radii[first] - radii[second]
    if len(margin) == 0 or margin.min() >= 0:
        return None
    worst = int(np.argmin(margin))
    pair = "-".join(atoms.symbols[[first[worst], second[worst]]])
    limit = distance[worst] - margin[worst]
    return f"close_contact: {pair} at {distance[worst]:.2f} Å, below {limit:.2f}"


def unphysical_frames(
    trajectory: Trajectory, guards: GuardSettings, max_frames: int = 2000
) -> dict[int, str]:
    """Look again at stored frames, evenly spread when there are more than ``max_frames``.

    Returns
    -------
    dict
        ``frame_id`` -> what is wrong: positions, energy or temperature not finite, or a close
        contact. Empty when all is well.
    """
    scalars = trajectory.scalars()
    frame_ids = scalars["frame_id"].to_numpy()
    values = np.stack([scalars["energy_eV"].to_numpy(), scalars["temperature_K"].to_numpy()])
    wrong = {int(i): "nan" for i in frame_ids[~np.isfinite(values).all(axis=0)]}
    picks = frame_ids[:: max(1, -(-len(frame_ids) // max_frames))]
    for atoms in trajectory.frames(picks):
        if not np.isfinite(atoms.positions).all():
            wrong[atoms.info["frame_id"]] = "nan"
        elif contact := close_contact(atoms, guards.min_distance_ratio):
            wrong[atoms.info["frame_id"]] = contact
    return wrong
