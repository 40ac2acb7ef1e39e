"""Guards: when a frame stops being physics and its walker must stop.

A message begins with the guard's name: ``nan``, ``max_force``, ``temperature``, ``volume``,
``energy_jump``, ``close_contact``, ``dissociated`` or ``melted_framework``.
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

#: A walker is never stopped below its target plus this, K: small cells fluctuate by
#: T·sqrt(2/3N), and a strained or vacant seed turns strain energy into heat.
TEMPERATURE_MARGIN_K = 1500.0

#: Distances over covalent radii at which a seed is tried for being in one piece: covalent solids
#: hold together at the first, noble gases at the third or fourth.
_GAPS = (1.25, 1.5, 2.0, 3.0, 4.5, 7.0)

#: Kinds of seed whose atoms have no sites to stay at.
_WITHOUT_FRAMEWORK = frozenset({"liquid", "melt_quench", "cluster", "molecule"})


class Guards:
    """The guards of one walker, which know the seed it came from."""

    def __init__(self, seed: Atoms, settings: GuardSettings) -> None:
        self._settings = settings
        self._seed_positions = seed.positions
        self._seed_cell = seed.cell.complete()
        self._seed_volume = abs(float(np.linalg.det(seed.cell.array)))
        self._gap = None if settings.max_gap_ratio is None else _widest_gap(seed)
        self._framework = np.zeros(0, dtype=int)
        if settings.framework and seed.info.get("seed_kind") not in _WITHOUT_FRAMEWORK:
            self._framework = np.flatnonzero(np.isin(seed.symbols, settings.framework))
            self._site_distance = _nearest_distance(seed)

    def broken_in_step(
        self, atoms: Atoms, energy_eV: float, forces: NDArray[np.float64], target_K: float
    ) -> str | None:
        """Look at what costs microseconds, so that nothing impossible is ever propagated.

        Parameters
        ----------
        atoms
            The frame, with momenta.
        energy_eV, forces
            Potential energy and forces ``(n_atoms, 3)`` in eV/Å. A MACE model returns NaN or huge
            forces for overlapping atoms without raising, and a finite energy for NaN positions, so
            each is looked at.
        target_K
            Of the thermostat.
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
        if self._seed_volume > 0:
            ratio = abs(float(np.linalg.det(atoms.cell.array))) / self._seed_volume
            if not settings.min_volume_ratio <= ratio <= settings.max_volume_ratio:
                return (
                    f"volume: {ratio:.2f} of the seed's, outside {settings.min_volume_ratio:g} to "
                    f"{settings.max_volume_ratio:g}"
                )
        return None

    def broken_since(self, atoms: Atoms, energy_eV: float, energy_before_eV: float) -> str | None:
        """Look at the structure, and at how far its energy went since the last look."""
        limit = self._settings.max_energy_jump_eV_per_atom
        jump = abs(energy_eV - energy_before_eV) / len(atoms)
        if jump > limit:
            return f"energy_jump: {jump:.2f} eV/atom since the last look exceeds {limit:g}"
        return (
            close_contact(atoms, self._settings.min_distance_ratio)
            or self._dissociated(atoms)
            or self._melted_framework(atoms)
        )

    def _dissociated(self, atoms: Atoms) -> str | None:
        if self._gap is None or self._settings.max_gap_ratio is None:
            return None
        if len(_pieces(atoms, self._gap)) == 1:  # as the seed, which a short search tells
            return None
        pieces = _pieces(atoms, self._gap * self._settings.max_gap_ratio)
        if len(pieces) == 1:
            return None
        return f"dissociated: into {len(pieces)} parts, the smallest of {min(pieces)} atoms"

    def _melted_framework(self, atoms: Atoms) -> str | None:
        if len(self._framework) == 0:
            return None
        # Sites follow the cell; positions are unwrapped and the centre of mass does not move.
        sites = self._seed_positions @ np.linalg.solve(self._seed_cell, atoms.cell.complete())
        moved = (atoms.positions - sites)[self._framework]
        ratio = float(np.sqrt((moved**2).sum(axis=1).mean())) / self._site_distance
        limit = self._settings.max_framework_displacement_ratio
        if ratio <= limit:
            return None
        return f"melted_framework: displaced by {ratio:.2f} nearest distances, above {limit:g}"


def close_contact(atoms: Atoms, ratio: float) -> str | None:
    """Name the worst pair nearer than ``ratio`` times the sum of its covalent radii, if any."""
    contact = closest_contact(atoms, within=ratio)
    if contact is None:
        return None
    pair = "-".join(atoms.symbols[[contact.first, contact.second]])
    limit = ratio * contact.distance_A / contact.ratio if contact.ratio > 0 else 0.0
    return f"close_contact: {pair} at {contact.distance_A:.2f} Å, below {limit:.2f}"


def counts_by_reason(events: Iterable[GuardEvent]) -> dict[str, int]:
    """How often each guard was broken, the most frequent first."""
    return dict(Counter(event.reason for event in events).most_common())


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
    for atoms in trajectory.iter_frames(picks):
        if not np.isfinite(atoms.positions).all():
            wrong[atoms.info["frame_id"]] = "nan"
        elif contact := close_contact(atoms, guards.min_distance_ratio):
            wrong[atoms.info["frame_id"]] = contact
    return wrong


def _pieces(atoms: Atoms, within: float) -> list[int]:
    """Sizes of the connected parts, atoms nearer than ``within`` covalent radii being connected."""
    from scipy.sparse import coo_matrix  # type: ignore[import-untyped]
    from scipy.sparse.csgraph import connected_components  # type: ignore[import-untyped]

    first, second, _, _ = contacts(atoms, within)
    links = coo_matrix((np.ones(len(first), dtype=bool), (first, second)), shape=(len(atoms),) * 2)
    _, labels = connected_components(links, directed=False)
    return [int(size) for size in np.bincount(labels)]


def _widest_gap(seed: Atoms) -> float | None:
    """The smallest of some distances, in covalent radii, at which the seed is in one piece.

    None when it is at none of them, or has one atom: such a seed cannot fall apart.
    """
    if len(seed) < 2:
        return None
    return next((gap for gap in _GAPS if len(_pieces(seed, gap)) == 1), None)


def _nearest_distance(seed: Atoms) -> float:
    """Å; the first of wider and wider searches that finds a neighbour."""
    closest = next((c for gap in _GAPS if (c := closest_contact(seed, within=gap))), None)
    return closest.distance_A if closest else np.inf
