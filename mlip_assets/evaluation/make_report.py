"""Computation of the report on a trained model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator

from mlip_assets.common.progress import Progress
from mlip_assets.evaluation.elasticity import (
    CrystalError,
    equation_of_state,
    relax,
    stiffness,
)
from mlip_assets.evaluation.pair_curves import isolated_atom_energy, pair_curves
from mlip_assets.evaluation.phonons import gamma_phonons
from mlip_assets.evaluation.report import Crystal, LabelledPoint, ModelReport
from mlip_assets.evaluation.stability import run_stability_tests
from mlip_assets.training.errors import Properties, compute_errors, predict_with, references
from mlip_assets.training.labels import dataset_sha256, formation_energy, structure_sha256
from mlip_assets.training.model import TrainedModel
from mlip_assets.training.splits import HeldOut

_log = logging.getLogger(__name__)

#: Kinds of seeds whose frames are near the equation of state of the crystal.
CRYSTALLINE = ("crystal", "strained", "rattled")
#: Largest relative difference from the equilibrium volume of the labels shown: linear strains of 5 %
#: are within it.
LABEL_VOLUME_RANGE = 0.2

T = TypeVar("T")


def make_report(
    model: TrainedModel,
    labelled: Sequence[Atoms],
    isolated_energies: Mapping[str, float],
    *,
    held_out: HeldOut,
    surrogate: Calculator,
    promoted: TrainedModel | None,
    temperatures_K: Sequence[float],
    timestep_fs: float,
    stability_steps: int,
    seed: int,
    device: str = "cpu",
) -> ModelReport:
    """Compare a model with its baselines on held-out labels, and compute physical properties.

    Parameters
    ----------
    model
        The result of :func:`mlip_assets.training.fit_mace` for these labels.
    labelled, isolated_energies
        The labels it was trained on, and the isolated-atom energies, eV.
    held_out
        Record of the campaign's held-out frames.
    surrogate
        The surrogate without fine-tuning, any ASE calculator. Its energies are compared relative to
        its own isolated atoms.
    promoted
        The promoted model of the campaign, if any. A model that does not support all elements of
        the labels is not compared.
    temperatures_K, timestep_fs
        Temperatures and time step of the stability tests, those of the exploration.
    stability_steps
        Steps of the stability test at each temperature; half of it follows without a thermostat.
    seed
        Random seed of the velocities.
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
    baselines = {"surrogate": _relative_to_isolated_atoms(surrogate, frames, isolated_energies)}
    elements = [symbol for symbol in model.elements if symbol in isolated_energies]
    if promoted is not None and set(elements) <= set(promoted.elements):
        baselines["promoted"] = predict_with(promoted.calculator(device), frames)
    labels = references(frames)
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
    tests = run_stability_tests(
        start,
        model.calculator(device),
        surrogate,
        temperatures_K=temperatures_K,
        timestep_fs=timestep_fs,
        n_steps=stability_steps,
        seed=seed,
    )
    progress.advance()
    return ModelReport(
        weights_sha256=model.weights_sha256,
        dataset_sha256=model.dataset_sha256,
        held_out={
            "model": model.metrics["splits"]["test"],
            **{name: compute_errors(labels, predicted) for name, predicted in baselines.items()},
            "mean_predictor": model.metrics["mean_predictor"]["test"],
        },
        by_seed_kind=model.metrics["by_seed_kind"]["test"],
        by_temperature=model.metrics["by_temperature"]["test"],
        crystals=crystals,
        crystal_formula=lowest.get_chemical_formula("metal") if lowest is not None else None,
        labelled_points=points,
        pair_curves=curves,
        stability_tests=tests,
        uncertainty=model.metrics.get("uncertainty"),
    )


def _relative_to_isolated_atoms(
    calculator: Calculator, frames: Sequence[Atoms], isolated_energies: Mapping[str, float]
) -> Properties:
    """Predictions with energies shifted from the calculator's isolated atoms to those of the labels."""
    predicted = predict_with(calculator, frames)
    try:
        shift = {s: e - isolated_atom_energy(calculator, s) for s, e in isolated_energies.items()}
    except (ValueError, RuntimeError) as error:  # the calculator needs neighbours or a cell
        _log.warning(
            "report: the surrogate cannot compute isolated atoms (%s); its energies are not compared",
            error,
        )
        shift = dict.fromkeys(isolated_energies, np.nan)
    shifts = [np.mean([shift[symbol] for symbol in frame.symbols]) for frame in frames]
    return Properties(predicted.energies + np.array(shifts), predicted.forces, predicted.stresses)


def _lowest_crystal(
    labelled: Sequence[Atoms], isolated_energies: Mapping[str, float]
) -> Atoms | None:
    """The most strongly bound periodic frame; of the crystal seeds, if there are any."""
    periodic = [frame for frame in labelled if frame.pbc.all()]
    crystals = [frame for frame in periodic if frame.info.get("seed_kind") == "crystal"]
    return min(
        crystals or periodic,
        key=lambda frame: formation_energy(frame, isolated_energies),
        default=None,
    )


def _crystal_of(frame: Atoms, calculator: Calculator) -> tuple[Crystal, Atoms]:
    """The properties of the crystal, and the relaxed structure, or the frame if it does not relax."""
    flaws: list[str] = []

    def attempt(measure: Callable[[Atoms, Calculator], T], atoms: Atoms) -> T | None:
        try:
            return measure(atoms, calculator)
        except CrystalError as error:
            flaws.append(str(error))
            return None

    relaxed_frame = attempt(relax, frame)
    if relaxed_frame is None:
        return Crystal(None, None, None, flaws[0]), frame
    crystal = Crystal(
        attempt(equation_of_state, relaxed_frame),
        attempt(stiffness, relaxed_frame),
        attempt(gamma_phonons, relaxed_frame),
        "; ".join(flaws) or None,
    )
    return crystal, relaxed_frame


def _labelled_points(
    labelled: Sequence[Atoms],
    lowest: Atoms | None,
    crystals: Mapping[str, Crystal],
    calculator: Calculator,
) -> list[LabelledPoint]:
    """Labels of crystalline frames with the composition of the crystal, within 20 % of its volume."""
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
    labels, predicted = references(near), predict_with(calculator, near)
    pressures, model_pressures = (
        -np.trace(properties.stresses, axis1=1, axis2=2) / 3 / units.GPa
        for properties in (labels, predicted)
    )
    return [
        LabelledPoint(*map(float, row))
        for row in zip(
            [frame.get_volume() / len(frame) for frame in near],
            labels.energies,
            predicted.energies,
            pressures,
            model_pressures,
            strict=True,
        )
    ]
