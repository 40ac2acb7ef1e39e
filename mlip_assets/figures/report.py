"""The report on a model: comparison, crystal, pairs, dynamics, uncertainty, learning curve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np

from mlip_assets.figures.canvas import COLOURS, canvas, png, table
from mlip_assets.figures.model import named_errors

if TYPE_CHECKING:
    from mlip_assets.evaluation import ModelReport

_COLOUR_OF = {"model": COLOURS[0], "surrogate": COLOURS[4], "labels": COLOURS[2]}
#: The errors that are drawn, and their names.
_ERRORS = {
    "force_rmse_meV_per_A": "force RMSE / meV/Å",
    "energy_rmse_meV_per_atom": "energy RMSE / meV/atom",
}
#: Energies above this times the depth of the curve are cut off.
WALL = 2.0


def report_pictures(report: ModelReport) -> dict[str, bytes]:
    """PNG by name; a part that found nothing has no picture."""
    pictures = {"pair_curves": _pair_curves(report), "errors": _errors(report)}
    if any(crystal.equation_of_state for crystal in report.crystals.values()):
        pictures["crystal"] = _crystal(report)
    if any(trial.distribution for trial in report.stability_tests):
        pictures["radial_distribution"] = _distributions(report)
    if report.uncertainty and report.uncertainty["scale"] is not None:
        pictures["uncertainty"] = _calibration(report.uncertainty)
    if len(report.learning_curve) > 1:
        pictures["learning_curve"] = _learning_curve(report)
    return pictures


def comparison_table(report: ModelReport) -> dg.MetadataValue:
    """Errors on the held-out labels: the model, what was there before, and its own by group."""
    errors = report.to_dataframe("errors")
    groups = ": " + errors["group"] + errors["grouped_by"].map({"temperature_K": " K"}).fillna("")
    names = errors["predictor"] + groups.where(errors["group"] != "all", "")
    return table(named_errors(errors, "of", names))


def crystal_table(report: ModelReport) -> dg.MetadataValue:
    """What the crystal is by the model and by the surrogate."""
    return table(report.to_dataframe("crystals"))


def trial_table(report: ModelReport) -> dg.MetadataValue:
    """How the dynamics ended at every temperature."""
    return table(report.to_dataframe("stability_tests"))


def uncertainty_table(report: ModelReport) -> dg.MetadataValue:
    """Calibration of the spread of the committee; empty without one."""
    known = report.uncertainty or {}
    row = {key: value for key, value in known.items() if not isinstance(value, list)}
    return table([row] if row else [])


def learning_table(report: ModelReport) -> dg.MetadataValue:
    """The models of the campaign's rounds on the labels that are held out now."""
    return table(report.to_dataframe("learning_curve"))


def _learning_curve(report: ModelReport) -> bytes:
    """Errors on the labels held out now against DFT labels, with those of the bare surrogate."""
    figure, axes = canvas(1, 2, 4.6, 3.2)
    for axis, (key, title) in zip(axes, _ERRORS.items(), strict=True):
        points = [p for p in report.learning_curve if getattr(p, key) is not None]
        axis.plot(
            [p.n_labels for p in points],
            [getattr(p, key) for p in points],
            "o-",
            color=_COLOUR_OF["model"],
            label="model in use",
        )
        for point in points:
            axis.annotate(
                f"{point.round}",
                (point.n_labels, getattr(point, key)),
                textcoords="offset points",
                xytext=(4, 4),
            )
        surrogate = report.held_out["surrogate"][key]
        if surrogate is not None:
            axis.axhline(surrogate, ls="--", color=_COLOUR_OF["surrogate"], label="surrogate")
        axis.set(xlabel="DFT labels", ylabel=title, yscale="log")
    axes[0].legend(frameon=False)
    figure.suptitle("rounds of the campaign, all on the labels held out now")
    return png(figure)


def _calibration(uncertainty: dict[str, Any]) -> bytes:
    """Error of each frame against its calibrated spread; on the line they are equal."""
    figure, (axis,) = canvas(1, 1, 4.6, 4.2)
    predicted = 1e3 * uncertainty["scale"] * np.array(uncertainty["spreads_eV_per_A"])
    errors = 1e3 * np.array(uncertainty["errors_eV_per_A"])
    ends = np.concatenate([predicted, errors])
    line = np.array([ends.min() / 1.5, ends.max() * 1.5])
    axis.fill_between(line, line, 2 * line, color="0.9", lw=0, label="up to twice the prediction")
    axis.loglog(line, line, "k:", lw=0.8)
    axis.loglog(predicted, errors, "o", ms=5, color=_COLOUR_OF["model"])
    axis.set(
        xlim=line,
        ylim=line,
        xlabel=f"{uncertainty['scale']:.2g} × spread of the committee / meV/Å",
        ylabel="force RMSE of the model / meV/Å",
    )
    axis.set_title(f"{uncertainty['n_frames']} {uncertainty['frames']} frames", fontsize=10)
    axis.legend(fontsize=8)
    return png(figure)


def _errors(report: ModelReport) -> bytes:
    """Held-out RMSE of energies and forces beside those of the others."""
    figure, axes = canvas(1, 2, 4.6, 3.2)
    for axis, (key, title) in zip(axes, _ERRORS.items(), strict=True):
        known = {name: e[key] for name, e in report.held_out.items() if e[key] is not None}
        names = list(known)
        colours = [_COLOUR_OF.get(name, "#999999") for name in names]
        bars = axis.barh([name.replace("_", " ") for name in names], known.values(), color=colours)
        axis.bar_label(bars, fmt="%.3g", padding=3, fontsize=8)
        axis.set(xlabel=f"{title}, held-out labels")
        axis.margins(x=0.15)
        axis.invert_yaxis()
    return png(figure)


def _crystal(report: ModelReport) -> bytes:
    """Energy and pressure against volume, with the labels that lie near."""
    figure, (left, right) = canvas(1, 2, 4.6, 3.6)
    for name, crystal in report.crystals.items():
        curve = crystal.equation_of_state
        if curve is None:
            continue
        above = 1e3 * (np.array(curve.energies_eV_per_atom) - curve.energy_eV_per_atom)
        label = f"{name}: {curve.bulk_modulus_GPa:.0f} GPa"
        left.plot(curve.volumes_A3_per_atom, above, ".-", color=_COLOUR_OF[name], label=label)
        left.axvline(curve.volume_A3_per_atom, color=_COLOUR_OF[name], ls=":", lw=0.8)
    left.set(xlabel="volume / Å³ per atom", ylabel="energy above the minimum / meV per atom")
    left.set_title(f"equation of state of {report.crystal_formula}", fontsize=10)
    left.legend(fontsize=8)
    volumes = [point.volume_A3_per_atom for point in report.labelled_points]
    for name, key, marker in (
        ("labels", "pressure_GPa", "o"),
        ("model", "model_pressure_GPa", "x"),
    ):
        pressures = [getattr(point, key) for point in report.labelled_points]
        right.plot(volumes, pressures, marker, ms=4, color=_COLOUR_OF[name], label=name)
    right.set(xlabel="volume / Å³ per atom", ylabel="pressure / GPa")
    right.set_title(f"{len(volumes)} labelled crystalline frames", fontsize=10)
    if volumes:
        right.legend(fontsize=8)
    return png(figure)


def _pair_curves(report: ModelReport) -> bytes:
    """Two atoms of every pair of elements; shaded, where they must repel."""
    columns = min(len(report.pair_curves), 3)
    figure, axes = canvas(-(-len(report.pair_curves) // columns), columns, 3.6, 2.8)
    for axis in axes[len(report.pair_curves) :]:
        axis.set_axis_off()
    for axis, curve in zip(axes, report.pair_curves, strict=False):
        axis.plot(curve.distances_A, curve.energies_eV, color=_COLOUR_OF["model"])
        axis.axvspan(curve.distances_A[0], curve.core_A, color="0.9", lw=0)
        axis.axhline(0, color="0.5", lw=0.6)
        depth = max(-curve.binding_energy_eV, 0.5)
        axis.set_ylim(-1.3 * depth, WALL * depth)
        axis.set(xlabel="distance / Å", ylabel="energy / eV")
        axis.set_title(
            f"{curve.pair}: {curve.binding_energy_eV:.2f} eV at {curve.bond_length_A:.2f} Å",
            fontsize=9,
        )
    return png(figure)


def _distributions(report: ModelReport) -> bytes:
    """Radial distributions at every temperature, of the model and of the surrogate."""
    shown = [trial for trial in report.stability_tests if trial.distribution]
    columns = min(len(shown), 3)
    figure, axes = canvas(-(-len(shown) // columns), columns, 3.6, 2.6)
    for axis in axes[len(shown) :]:
        axis.set_axis_off()
    for axis, trial in zip(axes, shown, strict=False):
        for name, values in (
            ("model", trial.distribution),
            ("surrogate", trial.reference_distribution),
        ):
            if values:
                axis.plot(trial.distances_A, values, lw=1, color=_COLOUR_OF[name], label=name)
        axis.set(xlabel="distance / Å", ylabel="g(r)")
        axis.set_title(f"{trial.temperature_K:g} K", fontsize=9)
        axis.legend(fontsize=7)
    return png(figure)
