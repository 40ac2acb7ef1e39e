"""The labels of one campaign: frames with energies, forces and stresses, and the failures."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from ase import Atoms, units
from ase.db import connect
from ase.db.core import check
from ase.io import write
from numpy.typing import NDArray

from mlip_assets.common.files import write_atomically
from mlip_assets.labelling.engines.engine import Calculation

if TYPE_CHECKING:
    import pandas as pd

_DATABASE, _EXTXYZ = "labels.db", "labels.extxyz"
_FRAMES = {"labelled", "isolated"}
#: Arrays that ASE's database stores in separate columns.
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
    """Labels of different engines or settings, which must not be used together for training."""


@dataclass(frozen=True)
class Failure:
    """A frame without a label.

    Attributes
    ----------
    frame_id
        Of the frame.
    label_key
        Key in the ledger; empty if the frame was not computed.
    reason
        Why there is no label.
    attempts
        Number of calculations of the frame.
    kind
        Outcome of the calculation, or the gate that rejected the frame.
    """

    frame_id: int
    label_key: str
    reason: str
    attempts: int
    kind: str = "error"


@dataclass(frozen=True)
class LabelledDatabase:
    """Labels of frames, in their order, with failures and cost.

    Attributes
    ----------
    labelled
        Frames with ``info["REF_energy"]`` (free energy, eV), ``arrays["REF_forces"]`` (eV/Å),
        ``info["REF_stress"]`` ((3, 3), eV/Å³, fully periodic frames only), ``label_key``,
        ``engine``, ``settings_hash``, ``config_type``, and their previous ``info``.
    isolated
        The isolated atoms at the same settings, in the same form, with ``config_type``
        IsolatedAtom.
    failed
        Frames without a usable label.
    deferred
        ``frame_id`` of the frames that were not computed because the budget was used up.
    n_calculated
        DFT calls made, further attempts and isolated atoms included.
    n_reused
        DFT calls avoided: frames and isolated atoms whose label was in the ledger or is that of
        an equal frame.
    n_duplicates
        Frames that equal an earlier frame of the same call.
    core_hours_spent, core_hours_reused
        Core-hours of the calls made, and of the reused labels.
    expected_core_hours
        Core-hours of the calls, estimated before they were made; None if the ledger has too few
        timings.
    wall_s
        Wall time of the call, s.
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
        """Free energy of the isolated atom of each element, eV."""
        return {atom.get_chemical_formula(): atom.info["REF_energy"] for atom in self.isolated}

    def binding_energies(self) -> NDArray[np.float64]:
        """Energy relative to the isolated atoms, eV/atom, negative if bound; ``(n_labelled,)``.

        Not a number if the isolated atom of one of the elements has no label.
        """
        isolated = self.isolated_energies
        values = [
            (atoms.info["REF_energy"] - sum(isolated.get(s, np.nan) for s in atoms.symbols))
            / len(atoms)
            for atoms in self.labelled
        ]
        return np.asarray(values, dtype=np.float64)

    def to_dataframe(self) -> pd.DataFrame:
        """One row per labelled frame; the pressure is missing where there is no stress.

        ``pd.DataFrame(database.failed)`` is the table of the frames without a label.
        """
        import pandas as pd

        rows = [
            {
                "frame_id": atoms.info.get("frame_id"),
                "seed_name": atoms.info.get("seed_name"),
                "seed_kind": atoms.info.get("seed_kind"),
                "formula": atoms.get_chemical_formula(),
                "n_atoms": len(atoms),
                "energy_eV": atoms.info["REF_energy"],
                "binding_energy_eV_per_atom": binding_energy,
                "max_force_eV_per_A": np.linalg.norm(atoms.arrays["REF_forces"], axis=1).max(),
                "pressure_GPa": -np.trace(atoms.info["REF_stress"]) / 3 / units.GPa
                if "REF_stress" in atoms.info
                else np.nan,
                "label_key": atoms.info["label_key"],
            }
            for atoms, binding_energy in zip(self.labelled, self.binding_energies(), strict=True)
        ]
        return pd.DataFrame(rows).astype({"frame_id": "Int64"} if rows else {})

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``labels.extxyz`` (MACE's keys) and then ``labels.db`` (ASE SQLite).

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
        """Read the files that :meth:`save` wrote.

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
        frames = []
        for row in database.select():
            atoms = row.toatoms()
            atoms.info = dict(row.data["info"])
            for name, array in row.data["arrays"].items():
                atoms.set_array(name, array)
            frames.append(atoms)
        n_isolated = facts.pop("n_isolated")
        facts["failed"] = [Failure(**failure) for failure in facts["failed"]]
        del facts["title"]
        return cls(labelled=frames[n_isolated:], isolated=frames[:n_isolated], **facts)


def labelled_frame(atoms: Atoms, calculation: Calculation, **facts: str) -> Atoms:
    """A copy of ``atoms`` with a label under MACE's keys, and ``facts`` in its ``info``."""
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
    """Raise :class:`MixedSettingsError` if labels differ in engine or settings.

    Parameters
    ----------
    labels
        Engine, hash of the settings, and the settings if known, of each label.
    advice
        The beginning of the message: where the labels are, and what to do.
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
        values = ", ".join(f"{name} = {settings.get(name)}" for name in differing)
        lines.append(
            f"  {n} of {engine}, settings_hash {settings_hash[:12]}: {values}".rstrip(": ")
        )
    raise MixedSettingsError(
        f"{advice}. Energies of different engines or settings have different zeros, so a model "
        "fitted to them together has systematic errors; found\n" + "\n".join(lines)
    )


def write_frames(
    frames: Sequence[Atoms], path: Path, facts: Mapping[str, Any] | None = None
) -> list[Path]:
    """Write labelled frames as extended XYZ, as an ASE database, or both into a folder.

    Parameters
    ----------
    frames
        From :func:`labelled_frame`.
    path
        ``….extxyz`` or ``….xyz``, ``….db``; any other name is a folder.
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
                database.write(atoms, _key_value_pairs(atoms.info), _data(atoms))
    return [path]


def _key_value_pairs(info: Mapping[str, Any]) -> dict[str, Any]:
    """The values that ASE accepts as searchable key-value pairs."""

    def is_accepted(key: str, value: Any) -> bool:
        try:
            check({key: value})
        except ValueError:  # a reserved name, a list, or a text that looks like a number
            return False
        return True

    return {key: value for key, value in info.items() if is_accepted(key, value)}


def _data(atoms: Atoms) -> dict[str, Any]:
    """All of ``info``, and the arrays without a column, which are not searchable."""
    arrays = {name: array for name, array in atoms.arrays.items() if name not in _COLUMNS}
    # ASE's encoder takes arrays and plain numbers, but not NumPy's scalars
    info = {k: v.item() if isinstance(v, np.generic) else v for k, v in atoms.info.items()}
    return {"info": info, "arrays": arrays}
