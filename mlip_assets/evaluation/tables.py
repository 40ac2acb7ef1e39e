"""The tables of a report, as rows with units in the names of the values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from mlip_assets.evaluation.report import Crystal, ModelReport

ReportTable = Literal["learning_curve", "errors", "crystals", "stability_tests"]
Row = dict[str, Any]


def report_rows(report: ModelReport, table: ReportTable) -> list[Row]:
    """Rows of one table; see :meth:`mlip_assets.evaluation.ModelReport.to_dataframe`."""
    rows: dict[ReportTable, Callable[[ModelReport], list[Row]]] = {
        "learning_curve": lambda report: [asdict(point) for point in report.learning_curve],
        "errors": _errors,
        "crystals": lambda report: [_crystal(*named) for named in report.crystals.items()],
        "stability_tests": _stability_tests,
    }
    if table not in rows:
        raise ValueError(f"table: '{table}' is not one of {', '.join(rows)}")
    return rows[table](report)


def _errors(report: ModelReport) -> list[Row]:
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


def _crystal(name: str, crystal: Crystal) -> Row:
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


def _stability_tests(report: ModelReport) -> list[Row]:
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
