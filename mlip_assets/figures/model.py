"""A trained model: its errors and how its training went."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
import numpy as np

from mlip_assets.figures.canvas import canvas, png, table

if TYPE_CHECKING:
    import pandas as pd

    from mlip_assets.training import TrainedModel

#: Title of a panel of the training curve -> the lines in it, by their names in the curve.
_CURVES = {
    "loss": {"train_loss": "training", "valid_loss": "validation"},
    "force RMSE / meV/Å": {
        "force_rmse_meV_per_A": "validation",
        "replay_force_rmse_meV_per_A": "replay",
    },
    "energy RMSE / meV/atom": {
        "energy_rmse_meV_per_atom": "validation",
        "replay_energy_rmse_meV_per_atom": "replay",
    },
}


def parity_plot(trained: TrainedModel) -> bytes:
    """Predicted against labelled energies and forces of every split, with the held-out errors."""
    figure, axes = canvas(1, 2, 4.6, 4.2)
    errors = trained.metrics["splits"]
    panels = (
        ("energy", "eV/atom", "energy_rmse_meV_per_atom", "meV/atom"),
        ("forces", "eV/Å", "force_rmse_meV_per_A", "meV/Å"),
    )
    for axis, (quantity, unit, error, error_unit) in zip(axes, panels, strict=True):
        everything = []
        for split, marker in zip(errors, "o^s", strict=True):
            reference, predicted = (
                trained.parity[f"{split}_{quantity}_{of}"].ravel()
                for of in ("reference", "predicted")
            )
            everything += [reference, predicted]
            label = f"{split}: RMSE {errors[split][error]:.1f} {error_unit}"
            axis.plot(reference, predicted, marker, ms=3, alpha=0.6, lw=0, label=label)
        limits = np.concatenate(everything).min(), np.concatenate(everything).max()
        axis.plot(limits, limits, "k:", lw=0.8)
        axis.set_title(
            f"held-out {quantity}: RMSE {errors['test'][error]:.1f} {error_unit}", fontsize=10
        )
        axis.set(xlabel=f"DFT {quantity} / {unit}", ylabel=f"MACE {quantity} / {unit}")
        axis.legend(fontsize=7)
    return png(figure)


def error_table(trained: TrainedModel) -> dg.MetadataValue:
    """Errors by split, beside those of the mean predictor, and by kind of seed on the test set."""
    errors = trained.to_dataframe()
    of_kinds = (errors["grouped_by"] == "seed_kind") & (errors["split"] == "test")
    shown = errors[(errors["grouped_by"] == "none") | of_kinds]
    of_all = shown["predictor"].map({"model": "", "mean_predictor": ": mean predictor"})
    parts = of_all.where(shown["group"] == "all", ": " + shown["group"])
    return table(named_errors(shown, "set", shown["split"] + parts))


def named_errors(errors: pd.DataFrame, column: str, names: pd.Series) -> pd.DataFrame:
    """The errors with one column of names in front, in place of several."""
    values = errors.loc[:, "n_frames":]
    values.insert(0, column, names)
    return values


def training_curve(trained: TrainedModel) -> bytes:
    """Losses and validation errors against the epoch; shaded, stage two, whose loss is another."""
    training = trained.metrics["training"]
    curve = training["curve"]
    figure, axes = canvas(1, 3, 3.4, 2.8)
    for axis, (title, lines) in zip(axes, _CURVES.items(), strict=True):
        for name, label in lines.items():
            if name in curve:
                values = np.array(curve[name], dtype=float)
                axis.plot(curve["epoch"], values, ".-", ms=3, lw=1, label=label)
        axis.axvspan(training["stage_two_epoch"] - 0.5, curve["epoch"][-1] + 0.5, color="0.9", lw=0)
        axis.set(xlabel="epoch", ylabel=title, yscale="log")
        axis.legend(fontsize=7)
    ended = "stopped early" if training["stopped_early"] else "all of them"
    axes[1].set_title(f"{training['epochs']} epochs, {ended}; shaded: stage two", fontsize=9)
    return png(figure)
