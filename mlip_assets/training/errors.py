"""Errors of a potential, computed from its predictions alone and set beside a mean predictor's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from numpy.typing import NDArray

from mlip_assets.surrogates.mace_calculator import mace_calculator

Floats = NDArray[np.float64]

#: What the errors of a set are broken down by -> the key in ``info``.
_GROUPINGS = {"by_seed_kind": "seed_kind", "by_temperature": "target_temperature_K"}


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
        ``splits``: for each set ``n_frames`` and the errors; ``by_seed_kind`` and
        ``by_temperature``: the same for each ``info["seed_kind"]`` and each
        ``info["target_temperature_K"]`` (``unknown`` where a frame has none) of the sets other than
        ``train``; ``mean_predictor``: for each set the errors of a model that knows only the
        training set's means (energy per atom, stress; forces zero). Errors are RMSE, MAE and the
        99th percentile of the absolute error, of the energy (meV/atom), of the force components
        (meV/Å) and of the nine stress components (meV/Å³ and GPa) where a stress is labelled;
        ``None`` where nothing could be compared.
    """
    return metrics_of(frames_by_split, predict(model_file, frames_by_split))


def predict(
    model_file: Path, frames_by_split: Mapping[str, Sequence[Atoms]]
) -> dict[str, Properties]:
    """What the model says of each set, in the model's own precision, on the CPU."""
    calculator = mace_calculator(model_file)
    return {name: predict_with(calculator, frames) for name, frames in frames_by_split.items()}


def predict_with(calculator: Calculator, frames: Sequence[Atoms]) -> Properties:
    """What any ASE calculator says of the frames; stresses of fully periodic ones, else NaN."""
    return _collect([_predicted(calculator, frame) for frame in frames])


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
    result: dict[str, Any] = {name: {} for name in ("splits", "mean_predictor", *_GROUPINGS)}
    for name, frames in frames_by_split.items():
        known = references(frames)
        naive = Properties(
            np.full_like(known.energies, mean_energy),
            np.zeros_like(known.forces),
            np.broadcast_to(mean_stress, known.stresses.shape),
        )
        result["splits"][name] = errors_of(known, predicted[name])
        result["mean_predictor"][name] = errors_of(known, naive)
        if name != "train":
            for grouping, key in _GROUPINGS.items():
                result[grouping][name] = _errors_by(key, frames, known, predicted[name])
    return result


def _errors_by(
    key: str, frames: Sequence[Atoms], known: Properties, predicted: Properties
) -> dict[str, dict[str, Any]]:
    values = [frame.info.get(key, "unknown") for frame in frames]
    labels = np.array([v if isinstance(v, str) else f"{v:g}" for v in values])
    of_atoms = np.repeat(labels, [len(frame) for frame in frames])
    return {
        str(label): errors_of(
            *(_select(p, labels == label, of_atoms == label) for p in (known, predicted))
        )
        for label in np.unique(labels)
    }


def _select(
    properties: Properties, frames: NDArray[np.bool_], atoms: NDArray[np.bool_]
) -> Properties:
    return Properties(
        properties.energies[frames], properties.forces[atoms], properties.stresses[frames]
    )


def errors_of(known: Properties, predicted: Properties) -> dict[str, Any]:
    """RMSE, MAE and P99 as :func:`evaluate` describes them."""
    stress = (predicted.stresses - known.stresses)[np.isfinite(known.stresses)]
    errors = {
        ("energy", "meV_per_atom"): (predicted.energies - known.energies) * 1e3,
        ("force", "meV_per_A"): (predicted.forces - known.forces) * 1e3,
        ("stress", "meV_per_A3"): stress * 1e3,
        ("stress", "GPa"): stress / units.GPa,
    }
    found: dict[str, Any] = {"n_frames": len(known.energies)}
    for (quantity, unit), error in errors.items():
        for name, measure in _MEASURES.items():
            value = _number(measure(np.abs(error))) if error.size else None
            found[f"{quantity}_{name}_{unit}"] = value
    return found


_MEASURES: dict[str, Callable[[Floats], np.floating[Any]]] = {
    "rmse": lambda error: np.sqrt(np.mean(error**2)),
    "mae": np.mean,
    "p99": lambda error: np.percentile(error, 99),
}


def _number(value: np.floating[Any]) -> float | None:
    """A float that JSON can hold."""
    return float(value) if np.isfinite(value) else None


def _predicted(calculator: Calculator, frame: Atoms) -> tuple[float, Floats, Floats]:
    atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
    atoms.calc = calculator
    stress = atoms.get_stress(voigt=False) if atoms.pbc.all() else np.full((3, 3), np.nan)
    return float(atoms.get_potential_energy()) / len(atoms), atoms.get_forces(), stress


def _collect(frames: Sequence[tuple[float, Floats, Floats]]) -> Properties:
    energies, forces, stresses = zip(*frames, strict=True)
    return Properties(
        np.array(energies, dtype=np.float64),
        np.concatenate(forces).astype(np.float64),
        np.array(stresses, dtype=np.float64),
    )
