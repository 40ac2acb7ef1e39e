"""Checks of the labels before a training, and their hashes.

A labelled frame is an :class:`ase.Atoms` with ``info["REF_energy"]`` (free energy, eV),
``arrays["REF_forces"]`` (eV/Å) and, when it is periodic, ``info["REF_stress"]`` ((3, 3), eV/Å³,
positive under tension as in ASE). ``info`` may also hold ``frame_id``, ``walker``, ``seed_kind``,
``seed_name``, ``label_key``, ``settings_hash``, and ``config_weight``, the weight of the frame in the
loss (default 1; errors are never weighted).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from ase import Atoms

from mlip_assets.campaign import GateSettings
from mlip_assets.labelling.dimers import is_dimer
from mlip_assets.labelling.gates import energy_outliers

#: Key in ``info`` of the weight of a frame in the loss.
WEIGHT_KEY = "config_weight"
#: Formation energy from isolated atoms, eV/atom. The most strongly bound solids have about -9 (W),
#: and a hot or compressed frame a few eV more than its crystal. Outside this range the isolated atoms
#: were computed with other settings than the frames, or the calculation is wrong. Dimers have no
#: upper limit, because of the repulsion of their cores.
FORMATION_RANGE_EV = (-15.0, 5.0)
#: Largest median formation energy of the frames other than dimers, eV/atom. Most frames are bound;
#: colliding rare-gas atoms have a small positive energy.
MAX_MEDIAN_FORMATION_EV = 0.5
MAX_LISTED_PROBLEMS = 10


class LabelError(ValueError):
    """Labels that cannot be used for training; the message has one line for each wrong frame."""


def check_labels(
    labelled: Sequence[Atoms],
    isolated_energies: Mapping[str, float],
    gates: GateSettings | None = None,
) -> None:
    """Check that labels are present, finite, of one settings hash, and consistent with the E0.

    Energy outliers are refused by the rule of the labelling gates
    (:func:`mlip_assets.labelling.gates.energy_outliers`): the energy differs from the median of the
    frames of equal composition and periodicity by more than ``max_energy_deviation_eV_per_atom``
    and by more than twelve standard deviations.

    Parameters
    ----------
    labelled
        Labelled frames.
    isolated_energies
        Isolated-atom energy of each element (MACE's E0), eV, with the settings of the labels.
    gates
        Gates by which the labels were accepted; None for the defaults.

    Raises
    ------
    LabelError
        The message names each wrong frame (the first ten) and gives the remedy.
    """
    if not labelled:
        raise LabelError("no labelled frames; label some before training")
    problems = [
        f"{name_of(atoms)}: {problem}"
        for atoms in labelled
        for problem in _problems_of(atoms, isolated_energies)
    ]
    if not problems:
        problems = list(_problems_of_the_set(labelled, isolated_energies, gates or GateSettings()))
    if problems:
        more = len(problems) - MAX_LISTED_PROBLEMS
        listed = problems[:MAX_LISTED_PROBLEMS] + ([f"... and {more} more"] if more > 0 else [])
        raise LabelError("these labels cannot be used for training:\n" + "\n".join(listed))


def formation_energy(atoms: Atoms, isolated_energies: Mapping[str, float]) -> float:
    """Labelled energy minus the energies of the isolated atoms, eV/atom."""
    isolated = sum(isolated_energies[symbol] for symbol in atoms.get_chemical_symbols())
    return float(atoms.info["REF_energy"] - isolated) / len(atoms)


def name_of(atoms: Atoms) -> str:
    """Name of a frame in messages."""
    where = ", ".join(
        str(atoms.info[key]) for key in ("seed_name", "walker", "label_key") if key in atoms.info
    )
    return f"frame {atoms.info.get('frame_id', '?')} ({where or atoms.get_chemical_formula()})"


def frame_sha256(atoms: Atoms) -> str:
    """SHA-256 of structure, labels, origin and weight of a frame, and of nothing else."""
    digest = hashlib.sha256()
    numbers = (atoms.numbers, atoms.pbc, atoms.cell.array, atoms.positions)
    labels = (atoms.info["REF_energy"], atoms.arrays["REF_forces"], atoms.info.get("REF_stress", 0))
    for array in (*numbers, *labels):
        digest.update(np.ascontiguousarray(array, dtype=np.float64).tobytes() + b"|")
    origin = [str(atoms.info.get(key)) for key in ("seed_kind", "walker", "frame_id")]
    origin += [f"{atoms.info[WEIGHT_KEY]:g}"] if WEIGHT_KEY in atoms.info else []
    digest.update(json.dumps(origin).encode())
    return digest.hexdigest()


def structure_sha256(atoms: Atoms) -> str:
    """SHA-256 of elements, positions, cell and periodicity of a frame, independent of its labels."""
    digest = hashlib.sha256()
    for array in (atoms.numbers, atoms.pbc, atoms.cell.array, atoms.positions):
        digest.update(np.ascontiguousarray(array, dtype=np.float64).tobytes() + b"|")
    return digest.hexdigest()


def dataset_sha256(labelled: Sequence[Atoms], isolated_energies: Mapping[str, float]) -> str:
    """SHA-256 of all labels and isolated atoms, independent of the order of the frames."""
    content = [
        sorted(frame_sha256(atoms) for atoms in labelled),
        sorted((symbol, float(energy)) for symbol, energy in isolated_energies.items()),
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _problems_of(atoms: Atoms, isolated_energies: Mapping[str, float]) -> Iterator[str]:
    energy = atoms.info.get("REF_energy")
    forces = atoms.arrays.get("REF_forces")
    stress = atoms.info.get("REF_stress")
    if energy is None:
        yield "info['REF_energy'] is missing; label it again or leave it out"
    elif not np.isfinite(energy):
        yield f"REF_energy is {energy}; leave it out"
    if forces is None:
        yield "arrays['REF_forces'] is missing; label it again or leave it out"
    elif not np.isfinite(forces).all():
        yield "REF_forces has values that are not finite; leave it out"
    if stress is not None and np.shape(stress) != (3, 3):
        yield f"REF_stress has shape {np.shape(stress)}; give the (3, 3) tensor in eV/Å³"
    elif stress is not None and not np.isfinite(stress).all():
        yield "REF_stress has values that are not finite; leave it out"
    missing = sorted(set(atoms.get_chemical_symbols()) - set(isolated_energies))
    if missing:
        yield f"isolated_energies lacks {', '.join(missing)}; compute the isolated atom as the labels"
    elif energy is not None and np.isfinite(energy):
        formation = formation_energy(atoms, isolated_energies)
        low, high = FORMATION_RANGE_EV
        high = np.inf if is_dimer(atoms) else high
        if not low <= formation <= high:
            yield (
                f"formation energy {formation:.2f} eV/atom is outside {low:g} … {high:g}; were the "
                "isolated atoms computed with the same settings as the frames?"
            )


def _problems_of_the_set(
    labelled: Sequence[Atoms], isolated_energies: Mapping[str, float], gates: GateSettings
) -> Iterator[str]:
    hashes = sorted({str(a.info["settings_hash"]) for a in labelled if "settings_hash" in a.info})
    if len(hashes) > 1:
        yield (
            f"labels of {len(hashes)} different settings are mixed ({', '.join(hashes)}); train on "
            "labels of one"
        )
    energies = np.array([formation_energy(atoms, isolated_energies) for atoms in labelled])
    outliers = energy_outliers(labelled, energies, gates)
    for atoms, outlier in zip(labelled, outliers, strict=True):
        if outlier:
            yield f"{name_of(atoms)}: formation energy {outlier}; label it again or leave it out"
    bound = [e for atoms, e in zip(labelled, energies, strict=True) if not is_dimer(atoms)]
    median = float(np.median(bound)) if bound else -np.inf
    if median > MAX_MEDIAN_FORMATION_EV:
        yield (
            f"the median energy of the frames is {median:.2f} eV/atom above that of the isolated "
            "atoms, so most frames are not bound; were the isolated atoms computed with the same "
            "settings as the frames?"
        )
