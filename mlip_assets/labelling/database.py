"""The labels of one campaign: frames with energies, forces and stresses, and what was left out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
from ase import Atoms
from ase.db import connect
from ase.db.core import check
from ase.io import write
from numpy.typing import NDArray

from mlip_assets.common.files import write_atomically
from mlip_assets.labelling.engines.engine import Calculation

_DATABASE, _EXTXYZ = "labels.db", "labels.extxyz"
_FRAMES = {"labelled", "isolated"}
#: Arrays for which ASE's database has columns of its own.
_COLUMNS = {
    "numbers",
    "positions",
    "initial_magmoms",
    "initial_charges",
    "momenta",
    "tags",
    "masses",
}


class MixedSettingsError(ValueError):
    """Labels of different engines or settings, which must not be trained on together."""


@dataclass(frozen=True)
class Failure:
    """A frame without a label, and why; ``attempts`` calculations were made of it.

    ``kind`` is the outcome of the calculation, or the gate that refused the frame.
    """

    frame_id: int
    label_key: str
    reason: str
    attempts: int
    kind: str = "error"


@dataclass(frozen=True)
class LabelledDatabase:
    """Labels in the order of the frames they were asked for.

    Attributes
    ----------
    labelled
        Frames with ``info["REF_energy"]`` (free energy, eV), ``arrays["REF_forces"]`` (eV/Å),
        ``info["REF_stress"]`` ((3, 3), eV/Å³, fully periodic frames only), ``label_key``,
        ``engine``, ``settings_hash``, ``config_type``, and all that was in their ``info`` before.
    isolated
        The free atoms at the same settings, likewise, with ``config_type`` IsolatedAtom.
    failed
        Frames without a usable label.
    deferred
        ``frame_id`` of the frames that the budget did not reach.
    n_calculated
        DFT calls made, further attempts and free atoms included.
    n_reused
        DFT calls saved: frames and free atoms whose label was there already, in the ledger or
        from an equal frame.
    n_duplicates
        Those frames among them that equal an earlier one of the same call.
    core_hours_spent, core_hours_reused
        What the calls took, and what those took whose labels were there already.
    expected_core_hours
        What the calls were expected to take before they were made; None where the ledger knew too
        little.
    wall_s
        Time all this took.
    settings_hash
        Of the engine's physics.
    """

    labelled: list[Atoms]
    isolated: list[Atoms]
    failed: list[Failure]
    deferred: list[int]
    n_calculated: int
    n_reused: int
    wall_s: float
    settings_hash: str
    n_duplicates: int = 0
    core_hours_spent: float = 0.0
    core_hours_reused: float = 0.0
    expected_core_hours: float | None = None

    @property
    def isolated_energies(self) -> dict[str, float]:
        """Free energy of the free atom of each element, eV."""
        return {atom.get_chemical_formula(): atom.info["REF_energy"] for atom in self.isolated}

    def binding_energies(self) -> NDArray[np.float64]:
        """Energy above the free atoms, eV/atom, negative when bound; one value a labelled frame.

        Not a number where the free atom of one of its elements has no label.
        """
        free = self.isolated_energies
        values = [
            (atoms.info["REF_energy"] - sum(free.get(s, np.nan) for s in atoms.symbols))
            / len(atoms)
            for atoms in self.labelled
        ]
        return np.asarray(values, dtype=np.float64)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``labels.extxyz`` (MACE's keys) and, last, ``labels.db`` (ASE SQLite).

        Raises
        ------
        MixedSettingsError
            The labels differ in engine or settings.
        """
        frames = [*self.isolated, *self.labelled]
        refuse_mixed_settings(
            [(a.info.get("engine", "?"), a.info.get("settings_hash", "?"), {}) for a in frames],
            f"{folder}: label them again with one engine and its settings",
        )
        facts = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _FRAMES}
        facts["failed"] = [asdict(failure) for failure in self.failed]
        write_frames(frames, Path(folder), {**facts, "n_isolated": len(self.isolated)})

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Self:
        """Read back what :meth:`save` wrote.

        Raises
        ------
        FileNotFoundError
            There is no ``labels.db`` in the folder.
        """
        file = Path(folder) / _DATABASE
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no such label database; materialize the labels first")
        database = connect(file, type="db", use_lock_file=False)
        facts = dict(database.metadata)
        everything = []
        for row in database.select():
            atoms = row.toatoms()
            atoms.info = dict(row.data["info"])
            for name, array in row.data["arrays"].items():
                atoms.set_array(name, array)
            everything.append(atoms)
        n_isolated = facts.pop("n_isolated")
        facts["failed"] = [Failure(**failure) for failure in facts["failed"]]
        del facts["title"]
        return cls(labelled=everything[n_isolated:], isolated=everything[:n_isolated], **facts)


def labelled_frame(atoms: Atoms, calculation: Calculation, **facts: str) -> Atoms:
    """A copy of ``atoms`` with a label under MACE's keys, and further facts in its ``info``."""
    labelled: Atoms = atoms.copy()
    labelled.info |= {"REF_energy": calculation.energy_eV, **facts}
    labelled.info.pop("REF_stress", None)
    if calculation.stress is not None:
        labelled.info["REF_stress"] = calculation.stress
    labelled.set_array("REF_forces", calculation.forces)
    return labelled


def refuse_mixed_settings(
    labels: Iterable[tuple[str, str, Mapping[str, Any]]], advice: str
) -> None:
    """Raise :class:`MixedSettingsError` where labels cannot be trained on together.

    Parameters
    ----------
    labels
        Engine, hash of the settings, and the settings as far as they are known, of each label.
    advice
        What to do, after the place where the labels are.
    """
    groups: dict[tuple[str, str], tuple[int, Mapping[str, Any]]] = {}
    for engine, settings_hash, settings in labels:
        n = groups.get((engine, settings_hash), (0, {}))[0]
        groups[engine, settings_hash] = (n + 1, settings)
    if len(groups) < 2:
        return
    known = [settings for _, settings in groups.values()]
    names = sorted({name for settings in known for name in settings})
    differing = [name for name in names if len({str(s.get(name)) for s in known}) > 1]
    lines = []
    for (engine, settings_hash), (n, settings) in groups.items():
        told = ", ".join(f"{name} = {settings.get(name)}" for name in differing)
        lines.append(f"  {n} of {engine}, settings_hash {settings_hash[:12]}: {told}".rstrip(": "))
    raise MixedSettingsError(
        f"{advice}. Energies of different engines or settings have different zeros, and a model "
        "fitted to them together learns the difference as if it were physics; found\n"
        + "\n".join(lines)
    )


def write_frames(
    frames: Sequence[Atoms], path: Path, facts: Mapping[str, Any] | None = None
) -> list[Path]:
    """Write labelled frames as extended XYZ, as an ASE database, or both into a folder.

    Parameters
    ----------
    frames
        As :func:`labelled_frame` gives them.
    path
        ``….extxyz`` or ``….xyz``, ``….db``, or else a folder.
    facts
        Metadata of the database.

    Returns
    -------
    list of Path
        The files, the database last.
    """
    if path.suffix in {".extxyz", ".xyz"}:
        with write_atomically(path) as temporary:
            write(temporary, list(frames), format="extxyz")
        return [path]
    if path.suffix != ".db":
        return [
            *write_frames(frames, path / _EXTXYZ),
            *write_frames(frames, path / _DATABASE, facts),
        ]
    with write_atomically(path) as temporary:
        database = connect(temporary, type="db", use_lock_file=False)
        database.metadata = {"title": "DFT labels", **(facts or {})}
        with database:
            for atoms in frames:
                database.write(atoms, _searchable(atoms.info), _unsearchable(atoms))
    return [path]


def _searchable(info: Mapping[str, Any]) -> dict[str, Any]:
    """What ASE takes as key-value pairs; the rest is kept as data alone."""
    return dict(_admissible(info))


def _admissible(info: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in info.items():
        try:
            check({key: value})
        except ValueError:  # a reserved name, a list, or a text that looks like a number
            continue
        yield key, value


def _unsearchable(atoms: Atoms) -> dict[str, Any]:
    arrays = {name: array for name, array in atoms.arrays.items() if name not in _COLUMNS}
    # ASE's encoder takes arrays and plain numbers, but not NumPy's scalars
    info = {k: v.item() if isinstance(v, np.generic) else v for k, v in atoms.info.items()}
    return {"info": info, "arrays": arrays}
