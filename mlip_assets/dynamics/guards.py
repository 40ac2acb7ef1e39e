"""Guards: limits that a physical configuration keeps; a walker that violates one stops.

A violation is a text that begins with the guard's name: ``nan``, ``max_force``, ``temperature``,
``volume``, ``energy_jump``, ``close_contact``, ``dissociated`` or ``melted_framework``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from mlip_assets.campaign import GuardSettings
from mlip_assets.structures.contacts import closest_contact, contacts
from mlip_assets.trajectory import GuardEvent, Trajectory

#: The temperature limit is at least the target plus this, K: the temperature of a small cell
#: fluctuates by T·sqrt(2/3N), and the strain energy of a strained or vacant seed becomes heat.
TEMPERATURE_MARGIN_K = 1500.0

#: Distances, in sums of covalent radii, at which a seed is tested for being connected. Covalent
#: solids are connected at the first, noble gases at the third or fourth.
_CONNECTION_RATIOS = (1.25, 1.5, 2.0, 3.0, 4.5, 7.0)

#: Kinds of seed whose atoms have no sites.
_WITHOUT_FRAMEWORK = frozenset({"liquid", "melt_quench", "cluster", "molecule"})


class Guards:
    """The guards of one walker.

    Parameters
    ----------
    initial_structure
        The reference for volume, connectivity and the sites of the framework.
    settings
        The limits.
    """

    def __init__(self, initial_structure: Atoms, settings: GuardSettings) -> None:
        self._settings = settings
        self._initial_positions = initial_structure.positions
        self._initial_cell = initial_structure.cell.complete()
        self._initial_volume = abs(float(np.linalg.det(initial_structure.cell.array)))
        self._connection_ratio = (
            None if settings.max_gap_ratio is None else _connection_ratio(initial_structure)
        )
        self._framework = np.zeros(0, dtype=int)
        kind = initial_structure.info.get("seed_kind")
        if settings.framework and kind not in _WITHOUT_FRAMEWORK:
            is_framework = np.isin(initial_structure.symbols, settings.framework)
            self._framework = np.flatnonzero(is_framework)
            self._site_distance = _nearest_distance(initial_structure)

    def check_step(
        self, atoms: Atoms, energy_eV: float, forces: NDArray[np.float64], target_K: float
    ) -> str | None:
        """Check what costs microseconds: finite values, forces, temperature, volume.

        Every step is checked, so that no unphysical state is propagated.

        Parameters
        ----------
        atoms
            The frame, with momenta.
        energy_eV, forces
            Potential energy, and forces ``(n_atoms, 3)`` in eV/Å. Both are checked, and the
            positions: for overlapping atoms a MACE model returns NaN or very large forces without
            an exception, and for NaN positions a finite energy.
        target_K
            Target temperature of the thermostat.

        Returns
        -------
        str | None
            The violated guard and the values, or None.
        """
        settings = self._settings
        arrays = (forces, atoms.positions, atoms.get_momenta(), atoms.cell.array)
        if not (np.isfinite(energy_eV) and all(np.isfinite(array).all() for array in arrays)):
            return "nan: energy, forces, positions or momenta are not finite"
        max_force = float(np.sqrt((forces**2).sum(axis=1).max()))
        if max_force > settings.max_force_eV_per_A:
            return f"max_force: {max_force:.1f} eV/Å exceeds {settings.max_force_eV_per_A:g}"
        limit_K = max(settings.max_temperature_factor * target_K, target_K + TEMPERATURE_MARGIN_K)
        temperature_K = atoms.get_temperature()
        if temperature_K > limit_K:
            return f"temperature: {temperature_K:.0f} K exceeds {limit_K:.0f}"
        if self._initial_volume > 0:
            ratio = abs(float(np.linalg.det(atoms.cell.array))) / self._initial_volume
            if not settings.min_volume_ratio <= ratio <= settings.max_volume_ratio:
                return (
                    f"volume: {ratio:.2f} of the seed's, outside {settings.min_volume_ratio:g} to "
                    f"{settings.max_volume_ratio:g}"
                )
        return None

    def check_structure(
        self, atoms: Atoms, energy_eV: float, previous_energy_eV: float
    ) -> str | None:
        """Check the structure, and the change of the energy since the previous check.

        Returns
        -------
        str | None
            The violated guard and the values, or None.
        """
        limit = self._settings.max_energy_jump_eV_per_atom
        jump = abs(energy_eV - previous_energy_eV) / len(atoms)
        if jump > limit:
            return f"energy_jump: {jump:.2f} eV/atom since the previous check exceeds {limit:g}"
        return (
            close_contact(atoms, self._settings.min_distance_ratio)
            or self._dissociation(atoms)
            or self._framework_melting(atoms)
        )

    def _dissociation(self, atoms: Atoms) -> str | None:
        if self._connection_ratio is None or self._settings.max_gap_ratio is None:
            return None
        # The search at the shorter distance is faster, and decides most frames.
        if len(_fragment_sizes(atoms, self._connection_ratio)) == 1:
            return None
        sizes = _fragment_sizes(atoms, self._connection_ratio * self._settings.max_gap_ratio)
        if len(sizes) == 1:
            return None
        return f"dissociated: into {len(sizes)} parts, the smallest of {min(sizes)} atoms"

    def _framework_melting(self, atoms: Atoms) -> str | None:
        if len(self._framework) == 0:
            return None
        # Sites follow the cell; positions are unwrapped and the centre of mass does not move.
        sites = self._initial_positions @ np.linalg.solve(self._initial_cell, atoms.cell.complete())
        displacements = (atoms.positions - sites)[self._framework]
        rms = float(np.sqrt((displacements**2).sum(axis=1).mean()))
        ratio, limit = rms / self._site_distance, self._settings.max_framework_displacement_ratio
        if ratio <= limit:
            return None
        return f"melted_framework: displaced by {ratio:.2f} nearest distances, above {limit:g}"


def close_contact(atoms: Atoms, ratio: float) -> str | None:
    """The closest pair if its distance is below ``ratio`` times the sum of the covalent radii."""
    contact = closest_contact(atoms, within=ratio)
    if contact is None:
        return None
    pair = "-".join(atoms.symbols[[contact.first, contact.second]])
    limit = ratio * contact.distance_A / contact.ratio if contact.ratio > 0 else 0.0
    return f"close_contact: {pair} at {contact.distance_A:.2f} Å, below {limit:.2f}"


def counts_by_reason(events: Iterable[GuardEvent]) -> dict[str, int]:
    """Number of violations of each guard, the most frequent first."""
    return dict(Counter(event.reason for event in events).most_common())


def unphysical_frames(
    trajectory: Trajectory, guards: GuardSettings, max_frames: int = 2000
) -> dict[int, str]:
    """Check stored frames: finite values in all, contacts in at most ``max_frames``.

    Returns
    -------
    dict
        ``frame_id`` -> the violation: positions, energy or temperature not finite, or a close
        contact. Empty if every checked frame is physical.
    """
    scalars = trajectory.scalars()
    frame_ids = scalars["frame_id"].to_numpy()
    values = np.stack([scalars["energy_eV"].to_numpy(), scalars["temperature_K"].to_numpy()])
    violations = {int(i): "nan" for i in frame_ids[~np.isfinite(values).all(axis=0)]}
    evenly_spaced = frame_ids[:: max(1, -(-len(frame_ids) // max_frames))]
    for atoms in trajectory.iter_frames(evenly_spaced):
        if not np.isfinite(atoms.positions).all():
            violations[atoms.info["frame_id"]] = "nan"
        elif contact := close_contact(atoms, guards.min_distance_ratio):
            violations[atoms.info["frame_id"]] = contact
    return violations


def _fragment_sizes(atoms: Atoms, within: float) -> list[int]:
    """Number of atoms of each connected part; a bond is a distance below ``within`` radii sums."""
    from scipy.sparse import coo_matrix  # type: ignore[import-untyped]
    from scipy.sparse.csgraph import connected_components  # type: ignore[import-untyped]

    first, second, _, _ = contacts(atoms, within)
    bonds = coo_matrix((np.ones(len(first), dtype=bool), (first, second)), shape=(len(atoms),) * 2)
    _, labels = connected_components(bonds, directed=False)
    return [int(size) for size in np.bincount(labels)]


def _connection_ratio(structure: Atoms) -> float | None:
    """The smallest of ``_CONNECTION_RATIOS`` at which the structure is connected.

    None if there is none, or for one atom: such a structure has no guard against dissociation.
    """
    if len(structure) < 2:
        return None
    ratios = _CONNECTION_RATIOS
    return next((ratio for ratio in ratios if len(_fragment_sizes(structure, ratio)) == 1), None)


def _nearest_distance(structure: Atoms) -> float:
    """Smallest distance of two atoms, Å; searched at increasing distances."""
    found = (closest_contact(structure, within=ratio) for ratio in _CONNECTION_RATIOS)
    closest = next((contact for contact in found if contact), None)
    return closest.distance_A if closest else np.inf
