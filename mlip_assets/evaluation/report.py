"""The report on a trained model: errors compared with those of others, and physical properties."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

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
    relax,
    stiffness,
)
from mlip_assets.evaluation.learning_curve import LearningPoint
from mlip_assets.evaluation.pair_curves import PairCurve, isolated_atom_energy, pair_curves
from mlip_assets.evaluation.phonons import GammaPhonons, gamma_phonons
from mlip_assets.evaluation.stability import StabilityTest, run_stability_tests
from mlip_assets.evaluation.tables import ReportTable, report_rows
from mlip_assets.training.errors import Properties, compute_errors, predict_with, references
from mlip_assets.training.labels import dataset_sha256, formation_energy, structure_sha256
from mlip_assets.training.model import TrainedModel
from mlip_assets.training.splits import HeldOut

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger(__name__)

REPORT_NAME = "report.json"
#: Kinds of seeds whose frames are near the equation of state of the crystal.
CRYSTALLINE = ("crystal", "strained", "rattled")
#: Largest relative difference from the equilibrium volume of the labels shown: linear strains of 5 %
#: are within it.
LABEL_VOLUME_RANGE = 0.2

#: Attribute -> its key in the stored records, where they differ.
_STORED_KEYS = {"stability_tests": "trials", "error_ratio_to_best": "standing"}

T = TypeVar("T")


@dataclass(frozen=True)
class LabelledPoint:
    """Energy and pressure of a labelled frame near the equilibrium volume, by label and by model."""

    volume_A3_per_atom: float
    energy_eV_per_atom: float
    model_energy_eV_per_atom: float
    pressure_GPa: float
    model_pressure_GPa: float


@dataclass(frozen=True)
class Crystal:
    """The lowest labelled crystal with one potential; None, with a flaw, for what is not defined."""

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
    """Geometric mean of the ratios of force and energy RMSE to those of the baseline."""
    error_ratio_to_best: float
    """Errors of the promoted model relative to the best model of the campaign; at least 1."""

    def to_record(self) -> dict[str, Any]:
        """For JSON; the error ratio has the key ``standing``."""
        return {_STORED_KEYS.get(name, name): value for name, value in asdict(self).items()}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_record`."""
        return cls(**_attributes(record))


@dataclass(frozen=True)
class ModelReport:
    """Errors and physical properties of a trained model."""

    weights_sha256: str
    dataset_sha256: str
    held_out: dict[str, dict[str, Any]]
    """Errors on the same held-out labels, of ``model``, ``promoted`` (the earlier best model of the
    campaign, if any), ``surrogate`` and ``mean_predictor``."""
    by_seed_kind: dict[str, dict[str, Any]]
    by_temperature: dict[str, dict[str, Any]]
    crystals: dict[str, Crystal]
    """With ``model`` and with ``surrogate``; empty where no label is of a crystal."""
    crystal_formula: str | None
    labelled_points: list[LabelledPoint]
    pair_curves: list[PairCurve]
    stability_tests: list[StabilityTest]
    uncertainty: dict[str, Any] | None = None
    """:class:`~mlip_assets.training.Calibration` of its committee, if it has one."""
    promotion: Promotion | None = None
    learning_curve: list[LearningPoint] = field(default_factory=list)
    """Of the rounds of the campaign until now."""
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    """PNG by name."""

    @property
    def is_stable(self) -> bool:
        """Whether no guard stopped the dynamics at any temperature."""
        return all(test.stopped_by is None for test in self.stability_tests)

    def to_dataframe(self, table: ReportTable = "learning_curve") -> pd.DataFrame:
        """One of the tables of the report.

        Parameters
        ----------
        table
            ``learning_curve``: one row per round, errors against the number of labels.
            ``errors``: of each predictor on the held-out labels; of the model also ``grouped_by``
            ``seed_kind`` and ``temperature_K``. ``crystals``: properties of the crystal, one row per
            predictor. ``stability_tests``: one row per temperature.

        Raises
        ------
        ValueError
            There is no such table.
        """
        import pandas as pd

        return pd.DataFrame(report_rows(self, table))

    def save(self, folder: Path) -> None:
        """Write the pictures and, last, ``report.json``, which commits them."""
        (folder / REPORT_NAME).unlink(missing_ok=True)
        for old in folder.glob("*.png"):
            old.unlink()
        for name, png in self.pictures.items():
            with write_atomically(folder / f"{name}.png") as aside:
                aside.write_bytes(png)
        record = {_STORED_KEYS.get(k, k): v for k, v in asdict(self).items() if k != "pictures"}
        record["promotion"] = self.promotion and self.promotion.to_record()
        write_text(folder / REPORT_NAME, json.dumps(_plain(record), indent=1) + "\n")

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read the files of :meth:`save`.

        Raises
        ------
        FileNotFoundError
            The folder contains no committed report.
        """
        record = _attributes(json.loads((folder / REPORT_NAME).read_text(encoding="utf-8")))
        promotion = record["promotion"]
        return cls(
            **record
            | {
                "crystals": {name: _crystal(c) for name, c in record["crystals"].items()},
                "labelled_points": [LabelledPoint(**p) for p in record["labelled_points"]],
                "pair_curves": [PairCurve(**_tuples(p)) for p in record["pair_curves"]],
                "stability_tests": [StabilityTest(**_tuples(t)) for t in record["stability_tests"]],
                "promotion": Promotion.from_record(promotion) if promotion else None,
                "learning_curve": [LearningPoint(**p) for p in record.get("learning_curve", [])],
                "pictures": {path.stem: path.read_bytes() for path in sorted(folder.glob("*.png"))},
            }
        )


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


def _attributes(record: Mapping[str, Any]) -> dict[str, Any]:
    """A stored record by the names of the attributes."""
    names = {key: name for name, key in _STORED_KEYS.items()}
    return {names.get(key, key): value for key, value in record.items()}


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
    """The record with lists as tuples, which JSON does not have."""
    return {k: _tuple(v) if isinstance(v, list) else v for k, v in record.items()}


def _tuple(values: list[Any]) -> tuple[Any, ...]:
    return tuple(_tuple(v) if isinstance(v, list) else v for v in values)


def _plain(value: Any) -> Any:
    """The value for JSON; a number that is not finite becomes null."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
