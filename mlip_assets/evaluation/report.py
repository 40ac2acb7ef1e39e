"""The report on a trained model: errors compared with those of others, and physical properties."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from mlip_assets.common.files import write_atomically, write_text
from mlip_assets.evaluation.elasticity import EquationOfState, Stiffness
from mlip_assets.evaluation.learning_curve import LearningPoint
from mlip_assets.evaluation.pair_curves import PairCurve
from mlip_assets.evaluation.phonons import GammaPhonons
from mlip_assets.evaluation.stability import StabilityTest

if TYPE_CHECKING:
    import pandas as pd

REPORT_NAME = "report.json"

#: Attribute -> its key in the stored records, where they differ.
_STORED_KEYS = {"stability_tests": "trials", "error_ratio_to_best": "standing"}

ReportTable = Literal["learning_curve", "errors", "crystals", "stability_tests"]
Row = dict[str, Any]


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

        return pd.DataFrame(_rows(self, table))

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


def _rows(report: ModelReport, table: ReportTable) -> list[Row]:
    rows: dict[ReportTable, Callable[[ModelReport], list[Row]]] = {
        "learning_curve": lambda report: [asdict(point) for point in report.learning_curve],
        "errors": _error_rows,
        "crystals": lambda report: [_crystal_row(*named) for named in report.crystals.items()],
        "stability_tests": _stability_rows,
    }
    if table not in rows:
        raise ValueError(f"table: '{table}' is not one of {', '.join(rows)}")
    return rows[table](report)


def _error_rows(report: ModelReport) -> list[Row]:
    rows = [("none", name, "all", errors) for name, errors in report.held_out.items()]
    for grouped_by, groups in (
        ("seed_kind", report.by_seed_kind),
        ("temperature_K", report.by_temperature),
    ):
        rows += [(grouped_by, "model", group, errors) for group, errors in groups.items()]
    return [
        {"predictor": predictor, "grouped_by": grouped_by, "group": group, **errors}
        for grouped_by, predictor, group, errors in rows
    ]


def _crystal_row(name: str, crystal: Crystal) -> Row:
    curve, stiffness, phonons = crystal.equation_of_state, crystal.stiffness, crystal.phonons
    cubic = (stiffness and stiffness.cubic_GPa) or {}
    return {
        "predictor": name,
        "volume_A3_per_atom": curve and curve.volume_A3_per_atom,
        "bulk_modulus_GPa": curve and curve.bulk_modulus_GPa,
        "shear_modulus_GPa": stiffness and stiffness.shear_modulus_GPa,
        **{f"{constant}_GPa": cubic.get(constant) for constant in ("C11", "C12", "C44")},
        "highest_frequency_per_cm": phonons and phonons.frequencies_per_cm[-1],
        "imaginary_modes": phonons and phonons.n_imaginary,
        "flaw": crystal.flaw or "",
    }


def _stability_rows(report: ModelReport) -> list[Row]:
    return [
        {
            "temperature_K": test.temperature_K,
            "steps": test.n_steps,
            "stopped_by": test.stopped_by or "",
            "drift_meV_per_atom_per_ps": test.drift_meV_per_atom_per_ps,
            "drift_error_meV_per_atom_per_ps": test.drift_error_meV_per_atom_per_ps,
            "rdf_difference_from_surrogate": test.rdf_difference,
        }
        for test in report.stability_tests
    ]
