"""Errors of any potential on labelled frames, with those of a mean predictor for comparison."""

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

#: Groups of a set for which errors are computed -> the key in ``info`` that defines them.
_GROUPINGS = {"by_seed_kind": "seed_kind", "by_temperature": "target_temperature_K"}


@dataclass(frozen=True)
class Properties:
    """Energies, forces and stresses of several frames, from labels or from a model."""

    energies: Floats
    """Per atom, (n_frames,), eV."""
    forces: Floats
    """Of all atoms of all frames, in the order of the frames, (n_atoms, 3), eV/Å."""
    stresses: Floats
    """(n_frames, 3, 3), eV/Å³; NaN for a frame whose label has none."""


def evaluate(
    model: Path | Calculator, frames_by_split: Mapping[str, Sequence[Atoms]]
) -> dict[str, Any]:
    """Errors of a potential on labelled frames.

    Parameters
    ----------
    model
        Any ASE calculator, or a MACE ``.model`` file. The file is unpickled: use files from trusted
        sources only. A file is evaluated in the precision of its weights, on the CPU.
    frames_by_split
        Labelled frames of ``"train"`` and of any other sets, by name. Labels are ``REF_energy`` in
        eV, ``REF_forces`` (n_atoms, 3) in eV/Å and optionally ``REF_stress`` (3, 3) in eV/Å³.

    Returns
    -------
    dict
        ``splits``: ``n_frames`` and the errors of each set. ``by_seed_kind`` and
        ``by_temperature``: the same for each ``info["seed_kind"]`` and each
        ``info["target_temperature_K"]`` of the sets other than ``train`` (``unknown`` where a frame
        has none). ``mean_predictor``: for each set the errors of a constant prediction, the mean
        energy per atom and stress of the training set and zero forces. Errors are RMSE, MAE and the
        99th percentile of the absolute error: of the energy (meV/atom), of the force components
        (meV/Å) and, where a stress is labelled, of its nine components (meV/Å³ and GPa). ``None``
        where there are no labels to compare or an error is not finite.

    Raises
    ------
    KeyError
        There is no set ``"train"``, or a frame has no energy or no forces.
    FileNotFoundError
        The model file does not exist.

    Examples
    --------
    Compare a Lennard-Jones potential with labels by EMT:

    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> from ase.calculators.lj import LennardJones
    >>> from mlip_assets import evaluate
    >>> frames = []
    >>> for number in range(4):
    ...     frame = bulk("Cu", cubic=True)
    ...     frame.rattle(0.1, seed=number)
    ...     frame.calc = EMT()
    ...     frame.info["REF_energy"] = frame.get_potential_energy()
    ...     frame.arrays["REF_forces"] = frame.get_forces()
    ...     frames.append(frame)
    >>> potential = LennardJones(sigma=2.28, epsilon=0.15, rc=6.0)
    >>> metrics = evaluate(potential, {"train": frames[:3], "test": frames[3:]})
    >>> metrics["splits"]["test"]["n_frames"]
    1
    >>> errors, mean_predictor = metrics["splits"]["test"], metrics["mean_predictor"]["test"]
    >>> errors["force_rmse_meV_per_A"] < mean_predictor["force_rmse_meV_per_A"]
    True
    """
    return compute_metrics(frames_by_split, predict(model, frames_by_split))


def predict(
    model: Path | Calculator, frames_by_split: Mapping[str, Sequence[Atoms]]
) -> dict[str, Properties]:
    """Predictions for each set; ``model`` as in :func:`evaluate`."""
    calculator = mace_calculator(model) if isinstance(model, Path) else model
    return {name: predict_with(calculator, frames) for name, frames in frames_by_split.items()}


def predict_with(calculator: Calculator, frames: Sequence[Atoms]) -> Properties:
    """Predictions of an ASE calculator; stresses only of fully periodic frames, otherwise NaN."""
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


def compute_metrics(
    frames_by_split: Mapping[str, Sequence[Atoms]], predicted: Mapping[str, Properties]
) -> dict[str, Any]:
    """The metrics of :func:`evaluate` from given predictions."""
    train = references(frames_by_split["train"])
    mean_energy = train.energies.mean()
    labelled_stress = train.stresses[np.isfinite(train.stresses).all(axis=(1, 2))]
    mean_stress = labelled_stress.mean(axis=0) if len(labelled_stress) else np.zeros((3, 3))
    result: dict[str, Any] = {name: {} for name in ("splits", "mean_predictor", *_GROUPINGS)}
    for name, frames in frames_by_split.items():
        reference = references(frames)
        mean = Properties(
            np.full_like(reference.energies, mean_energy),
            np.zeros_like(reference.forces),
            np.broadcast_to(mean_stress, reference.stresses.shape),
        )
        result["splits"][name] = compute_errors(reference, predicted[name])
        result["mean_predictor"][name] = compute_errors(reference, mean)
        if name != "train":
            for grouping, key in _GROUPINGS.items():
                result[grouping][name] = _errors_by(key, frames, reference, predicted[name])
    return result


def _errors_by(
    key: str, frames: Sequence[Atoms], reference: Properties, predicted: Properties
) -> dict[str, dict[str, Any]]:
    values = [frame.info.get(key, "unknown") for frame in frames]
    labels = np.array([v if isinstance(v, str) else f"{v:g}" for v in values])
    of_atoms = np.repeat(labels, [len(frame) for frame in frames])
    return {
        str(label): compute_errors(
            *(_select(p, labels == label, of_atoms == label) for p in (reference, predicted))
        )
        for label in np.unique(labels)
    }


def _select(
    properties: Properties, frames: NDArray[np.bool_], atoms: NDArray[np.bool_]
) -> Properties:
    return Properties(
        properties.energies[frames], properties.forces[atoms], properties.stresses[frames]
    )


def compute_errors(reference: Properties, predicted: Properties) -> dict[str, Any]:
    """RMSE, MAE and P99 with the keys and units of :func:`evaluate`."""
    stress = (predicted.stresses - reference.stresses)[np.isfinite(reference.stresses)]
    errors = {
        ("energy", "meV_per_atom"): (predicted.energies - reference.energies) * 1e3,
        ("force", "meV_per_A"): (predicted.forces - reference.forces) * 1e3,
        ("stress", "meV_per_A3"): stress * 1e3,
        ("stress", "GPa"): stress / units.GPa,
    }
    found: dict[str, Any] = {"n_frames": len(reference.energies)}
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
    """A finite float for JSON, or None."""
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
