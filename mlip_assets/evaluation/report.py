"""The report on a trained model: errors beside others', and physics that no error shows."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator

from mlip_assets.common.files import write_atomically, write_text
from mlip_assets.common.progress import Progress
from mlip_assets.evaluation.elasticity import (
    CrystalError,
    EquationOfState,
    Stiffness,
    equation_of_state,
    relaxed,
    stiffness,
)
from mlip_assets.evaluation.learning_curve import LearningPoint
from mlip_assets.evaluation.pair_curves import PairCurve, free_energy, pair_curves
from mlip_assets.evaluation.phonons import GammaPhonons, gamma_phonons
from mlip_assets.evaluation.trials import Trial, run_trials
from mlip_assets.training.errors import Properties, errors_of, predict_with, references
from mlip_assets.training.held_out import HeldOut
from mlip_assets.training.labels import dataset_sha256, formation_energy, structure_sha256
from mlip_assets.training.model import TrainedModel

_log = logging.getLogger(__name__)

REPORT_NAME = "report.json"
#: Kinds of seed whose frames lie near the curve of the crystal.
CRYSTALLINE = ("crystal", "strained", "rattled")
#: How far from the volume at rest labels are shown: linear strains of 5 % lie within.
LABEL_VOLUME_RANGE = 0.2

T = TypeVar("T")


@dataclass(frozen=True)
class LabelledPoint:
    """A labelled frame near the crystal's volume: what it costs to compress, label and model."""

    volume_A3_per_atom: float
    energy_eV_per_atom: float
    model_energy_eV_per_atom: float
    pressure_GPa: float
    model_pressure_GPa: float


@dataclass(frozen=True)
class Crystal:
    """The lowest labelled crystal by one potential; None with a flaw where it has no such thing."""

    equation_of_state: EquationOfState | None
    stiffness: Stiffness | None
    phonons: GammaPhonons | None
    flaw: str | None


@dataclass(frozen=True)
class Promotion:
    """Whether a model replaces the promoted one, and why."""

    promoted: bool
    reason: str
    ratio: float | None
    """Geometric mean of the ratios of the force and the energy RMSE to those it was judged by."""
    standing: float
    """Of the promoted model: its errors over the lowest of the campaign, never below 1."""


@dataclass(frozen=True)
class ModelReport:
    """All that was found out about a trained model."""

    weights_sha256: str
    dataset_sha256: str
    held_out: dict[str, dict[str, Any]]
    """Errors on the same held-out labels, of ``model``, ``promoted`` (the campaign's best before
    it, if any), ``surrogate`` and ``mean_predictor``."""
    by_seed_kind: dict[str, dict[str, Any]]
    by_temperature: dict[str, dict[str, Any]]
    crystals: dict[str, Crystal]
    """By ``model`` and by ``surrogate``; empty where no label is of a crystal."""
    crystal_formula: str | None
    labelled_points: list[LabelledPoint]
    pair_curves: list[PairCurve]
    trials: list[Trial]
    uncertainty: dict[str, Any] | None = None
    """:class:`~mlip_assets.training.Calibration` of its committee, if it has one."""
    promotion: Promotion | None = None
    learning_curve: list[LearningPoint] = field(default_factory=list)
    """Of the campaign's rounds until now."""
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    """PNG by name."""

    @property
    def is_stable(self) -> bool:
        """Whether the dynamics broke no guard at any temperature."""
        return all(trial.stopped_by is None for trial in self.trials)

    def save(self, folder: Path) -> None:
        """Write the pictures and, last, ``report.json``, which commits them."""
        (folder / REPORT_NAME).unlink(missing_ok=True)
        for old in folder.glob("*.png"):
            old.unlink()
        for name, png in self.pictures.items():
            with write_atomically(folder / f"{name}.png") as aside:
                aside.write_bytes(png)
        record = {k: v for k, v in asdict(self).items() if k != "pictures"}
        write_text(folder / REPORT_NAME, json.dumps(_plain(record), indent=1) + "\n")

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises
        ------
        FileNotFoundError
            The folder holds no committed report.
        """
        record = json.loads((folder / REPORT_NAME).read_text(encoding="utf-8"))
        promotion = record.pop("promotion")
        return cls(
            **record
            | {
                "crystals": {name: _crystal(c) for name, c in record["crystals"].items()},
                "labelled_points": [LabelledPoint(**p) for p in record["labelled_points"]],
                "pair_curves": [PairCurve(**_tuples(p)) for p in record["pair_curves"]],
                "trials": [Trial(**_tuples(t)) for t in record["trials"]],
                "promotion": Promotion(**promotion) if promotion else None,
                "learning_curve": [LearningPoint(**p) for p in record.get("learning_curve", [])],
                "pictures": {path.stem: path.read_bytes() for path in sorted(folder.glob("*.png"))},
            }
        )


def report_on(
    model: TrainedModel,
    labelled: Sequence[Atoms],
    isolated_energies: Mapping[str, float],
    *,
    held_out: HeldOut,
    surrogate: Calculator,
    promoted: TrainedModel | None,
    temperatures_K: Sequence[float],
    timestep_fs: float,
    trial_steps: int,
    seed: int,
    device: str = "cpu",
) -> ModelReport:
    """Compare a model with what there was before it, and look at the physics it has learnt.

    Parameters
    ----------
    model
        What :func:`mlip_assets.training.fit_mace` returned for these labels.
    labelled, isolated_energies
        The labels it was trained on.
    held_out
        What the campaign holds out.
    surrogate
        The bare surrogate. Its energies are compared above its own free atoms.
    promoted
        The campaign's best model until now, if any; one that lacks an element of the labels is
        not compared.
    temperatures_K, timestep_fs
        Of the campaign's exploration.
    trial_steps
        Of the dynamics at each temperature; half as many follow without a thermostat.
    seed
        Of the velocities.
    device
        ``cpu``, ``cuda`` or ``cuda:1``.

    Raises
    ------
    ValueError
        The model was not trained on these labels, or none of them is held out.
    """
    if model.dataset_sha256 != dataset_sha256(labelled, isolated_energies):
        raise ValueError(
            "the labels are not those the model was trained on; materialize model again"
        )
    frames = [frame for frame in labelled if structure_sha256(frame) in held_out.test]
    if not frames:
        raise ValueError("none of the labels is held out; materialize model again")
    progress = Progress("report", 5, "parts")
    others = {"surrogate": _above_free_atoms(surrogate, frames, isolated_energies)}
    elements = [symbol for symbol in model.elements if symbol in isolated_energies]
    if promoted is not None and set(elements) <= set(promoted.elements):
        others["promoted"] = predict_with(promoted.calculator(device), frames)
    known = references(frames)
    progress.advance()
    precise = model.calculator(device, dtype="float64")
    lowest = _lowest_crystal(labelled, isolated_energies)
    crystals, start = {}, min(labelled, key=lambda a: formation_energy(a, isolated_energies))
    if lowest is not None:
        for name, calculator in (("surrogate", surrogate), ("model", precise)):
            crystals[name], start = _crystal_of(lowest, calculator)
    progress.advance()
    points = _labelled_points(labelled, lowest, crystals, precise)
    progress.advance()
    curves = pair_curves(precise, elements)
    progress.advance()
    trials = run_trials(
        start,
        model.calculator(device),
        surrogate,
        temperatures_K=temperatures_K,
        timestep_fs=timestep_fs,
        n_steps=trial_steps,
        seed=seed,
    )
    progress.advance()
    return ModelReport(
        weights_sha256=model.weights_sha256,
        dataset_sha256=model.dataset_sha256,
        held_out={
            "model": model.metrics["splits"]["test"],
            **{name: errors_of(known, predicted) for name, predicted in others.items()},
            "mean_predictor": model.metrics["mean_predictor"]["test"],
        },
        by_seed_kind=model.metrics["by_seed_kind"]["test"],
        by_temperature=model.metrics["by_temperature"]["test"],
        crystals=crystals,
        crystal_formula=lowest.get_chemical_formula("metal") if lowest is not None else None,
        labelled_points=points,
        pair_curves=curves,
        trials=trials,
        uncertainty=model.metrics.get("uncertainty"),
    )


def _above_free_atoms(
    calculator: Calculator, frames: Sequence[Atoms], isolated_energies: Mapping[str, float]
) -> Properties:
    """Predictions with the energies moved from the calculator's free atoms to the labels'."""
    predicted = predict_with(calculator, frames)
    try:
        shift = {s: e - free_energy(calculator, s) for s, e in isolated_energies.items()}
    except (ValueError, RuntimeError) as error:  # what needs neighbours or a cell has no free atom
        _log.warning("report: the surrogate has no free atoms (%s); its energies stay out", error)
        shift = dict.fromkeys(isolated_energies, np.nan)
    shifts = [np.mean([shift[symbol] for symbol in frame.symbols]) for frame in frames]
    return Properties(predicted.energies + np.array(shifts), predicted.forces, predicted.stresses)


def _lowest_crystal(
    labelled: Sequence[Atoms], isolated_energies: Mapping[str, float]
) -> Atoms | None:
    """The most strongly bound periodic frame, of those that began as a crystal if there are any."""
    periodic = [frame for frame in labelled if frame.pbc.all()]
    crystals = [frame for frame in periodic if frame.info.get("seed_kind") == "crystal"]
    return min(
        crystals or periodic,
        key=lambda frame: formation_energy(frame, isolated_energies),
        default=None,
    )


def _crystal_of(frame: Atoms, calculator: Calculator) -> tuple[Crystal, Atoms]:
    """The crystal's properties, and the structure at rest, or the frame where it finds no rest."""
    flaws: list[str] = []

    def attempt(measure: Callable[[Atoms, Calculator], T], atoms: Atoms) -> T | None:
        try:
            return measure(atoms, calculator)
        except CrystalError as error:
            flaws.append(str(error))
            return None

    at_rest = attempt(relaxed, frame)
    if at_rest is None:
        return Crystal(None, None, None, flaws[0]), frame
    crystal = Crystal(
        attempt(equation_of_state, at_rest),
        attempt(stiffness, at_rest),
        attempt(gamma_phonons, at_rest),
        "; ".join(flaws) or None,
    )
    return crystal, at_rest


def _labelled_points(
    labelled: Sequence[Atoms],
    lowest: Atoms | None,
    crystals: Mapping[str, Crystal],
    calculator: Calculator,
) -> list[LabelledPoint]:
    """Labels of crystalline frames of the crystal's composition, within a fifth of its volume."""
    curve = crystals["model"].equation_of_state if crystals else None
    if curve is None or lowest is None:
        return []
    formula = lowest.symbols.formula.reduce()[0]
    near = [
        frame
        for frame in labelled
        if "REF_stress" in frame.info
        and frame.info.get("seed_kind") in CRYSTALLINE
        and frame.symbols.formula.reduce()[0] == formula
        and abs(frame.get_volume() / len(frame) / curve.volume_A3_per_atom - 1)
        <= LABEL_VOLUME_RANGE
    ]
    if not near:
        return []
    known, predicted = references(near), predict_with(calculator, near)
    pressures, model_pressures = (
        -np.trace(properties.stresses, axis1=1, axis2=2) / 3 / units.GPa
        for properties in (known, predicted)
    )
    return [
        LabelledPoint(*map(float, row))
        for row in zip(
            [frame.get_volume() / len(frame) for frame in near],
            known.energies,
            predicted.energies,
            pressures,
            model_pressures,
            strict=True,
        )
    ]


def _crystal(record: dict[str, Any]) -> Crystal:
    kinds = {
        "equation_of_state": EquationOfState,
        "stiffness": Stiffness,
        "phonons": GammaPhonons,
    }
    return Crystal(
        **{
            name: kind(**_tuples(record[name])) if record[name] else None
            for name, kind in kinds.items()
        },
        flaw=record["flaw"],
    )


def _tuples(record: dict[str, Any]) -> dict[str, Any]:
    """JSON's lists as the tuples they were."""
    return {k: _tuple(v) if isinstance(v, list) else v for k, v in record.items()}


def _tuple(values: list[Any]) -> tuple[Any, ...]:
    return tuple(_tuple(v) if isinstance(v, list) else v for v in values)


def _plain(value: Any) -> Any:
    """What JSON can hold: a number that is not finite becomes null."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
