"""Errors of a potential, computed from its predictions alone and set beside a mean predictor's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Properties:
    """Energies, forces and stresses of several frames, from labels or from a model."""

    energies: Floats
    """Per atom, (n_frames,), eV."""
    forces: Floats
    """All frames one after the other, (n_atoms, 3), eV/Å."""
    stresses: Floats
    """(n_frames, 3, 3), eV/Å³; NaN for a frame whose label has none."""


def evaluate(model_file: Path, frames_by_split: Mapping[str, Sequence[Atoms]]) -> dict[str, Any]:
    """Errors of a MACE model on labelled frames.

    Parameters
    ----------
    model_file
        A ``.model`` file. It is unpickled: only from a source you trust.
    frames_by_split
        Labelled frames under ``"train"`` and the names of any further sets.

    Returns
    -------
    dict
        ``splits``: for each set ``n_frames`` and the errors; ``by_seed_kind``: the same for each
        ``info["seed_kind"]`` of the sets other than ``train``; ``mean_predictor``: for each set
        the errors of a model that knows only the training set's means (energy per atom, stress;
        forces zero). Errors are RMSE and MAE of the energy (meV/atom), of the force components
        (meV/Å) and of the nine stress components (meV/Å³ and GPa) where a stress is labelled;
        ``None`` where nothing could be compared.
    """
    return metrics_of(frames_by_split, predict(model_file, frames_by_split))


def predict(
    model_file: Path, frames_by_split: Mapping[str, Sequence[Atoms]]
) -> dict[str, Properties]:
    """What the model says of each set, in the model's own precision, on the CPU."""
    from mace.calculators import MACECalculator

    calculator = MACECalculator(model_paths=str(model_file), device="cpu")
    return {
        name: _collect([_predicted(calculator, frame) for frame in frames])
        for name, frames in frames_by_split.items()
    }


def references(frames: Sequence[Atoms]) -> Properties:
    """The labels of the frames."""
    unknown = np.full((3, 3), np.nan)
    return _collect(
        [
            (
                frame.info["REF_energy"] / len(frame),
                frame.arrays["REF_forces"],
                np.asarray(frame.info.get("REF_stress", unknown)),
            )
            for frame in frames
        ]
    )


def metrics_of(
    frames_by_split: Mapping[str, Sequence[Atoms]], predicted: Mapping[str, Properties]
) -> dict[str, Any]:
    """See :func:`evaluate`, for predictions already made."""
    train = references(frames_by_split["train"])
    mean_energy = train.energies.mean()
    labelled_stress = train.stresses[np.isfinite(train.stresses).all(axis=(1, 2))]
    mean_stress = labelled_stress.mean(axis=0) if len(labelled_stress) else np.zeros((3, 3))
    result: dict[str, Any] = {"splits": {}, "by_seed_kind": {}, "mean_predictor": {}}
    for name, frames in frames_by_split.items():
        known = references(frames)
        naive = Properties(
            np.full_like(known.energies, mean_energy),
            np.zeros_like(known.forces),
            np.broadcast_to(mean_stress, known.stresses.shape),
        )
        result["splits"][name] = _errors(known, predicted[name])
        result["mean_predictor"][name] = _errors(known, naive)
        if name != "train":
            result["by_seed_kind"][name] = _errors_by_kind(frames, known, predicted[name])
    return result


def _errors_by_kind(
    frames: Sequence[Atoms], known: Properties, predicted: Properties
) -> dict[str, dict[str, Any]]:
    kinds = np.array([str(frame.info.get("seed_kind", "unknown")) for frame in frames])
    atom_kinds = np.repeat(kinds, [len(frame) for frame in frames])
    return {
        str(kind): _errors(
            *(_select(p, kinds == kind, atom_kinds == kind) for p in (known, predicted))
        )
        for kind in np.unique(kinds)
    }


def _select(
    properties: Properties, frames: NDArray[np.bool_], atoms: NDArray[np.bool_]
) -> Properties:
    return Properties(
        properties.energies[frames], properties.forces[atoms], properties.stresses[frames]
    )


def _errors(known: Properties, predicted: Properties) -> dict[str, Any]:
    energy = (predicted.energies - known.energies) * 1e3
    force = (predicted.forces - known.forces) * 1e3
    stress = predicted.stresses - known.stresses
    stress = stress[np.isfinite(known.stresses)]
    return {
        "n_frames": len(energy),
        "energy_rmse_meV_per_atom": _rmse(energy),
        "energy_mae_meV_per_atom": _mae(energy),
        "force_rmse_meV_per_A": _rmse(force),
        "force_mae_meV_per_A": _mae(force),
        "stress_rmse_meV_per_A3": _rmse(stress * 1e3),
        "stress_mae_meV_per_A3": _mae(stress * 1e3),
        "stress_rmse_GPa": _rmse(stress / units.GPa),
        "stress_mae_GPa": _mae(stress / units.GPa),
    }


def _rmse(error: Floats) -> float | None:
    return _number(np.sqrt(np.mean(error**2))) if error.size else None


def _mae(error: Floats) -> float | None:
    return _number(np.mean(np.abs(error))) if error.size else None


def _number(value: np.floating[Any]) -> float | None:
    """A float that JSON can hold."""
    return float(value) if np.isfinite(value) else None


def _predicted(calculator: Any, frame: Atoms) -> tuple[float, Floats, Floats]:
    atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
    calculator.calculate(atoms)
    results = calculator.results
    xx, yy, zz, yz, xz, xy = results["stress"]
    stress = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    return float(results["energy"]) / len(atoms), np.asarray(results["forces"]), stress


def _collect(frames: Sequence[tuple[float, Floats, Floats]]) -> Properties:
    energies, forces, stresses = zip(*frames, strict=True)
    return Properties(
        np.array(energies, dtype=np.float64),
        np.concatenate(forces).astype(np.float64),
        np.array(stresses, dtype=np.float64),
    )
