"""What a run prints at its end: the results that matter, the files, and what failed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlip_assets.assets import LINEAGE_PATH

if TYPE_CHECKING:
    import dagster as dg


def run_summary(name: str, result: dg.ExecuteInProcessResult, wall_s: float) -> str:
    """Results of a run by asset, the files it wrote, and the checks that did not pass.

    Parameters
    ----------
    name
        Of the campaign.
    result
        Of the run.
    wall_s
        Duration of the run, s.
    """
    metadata = _metadata(result)
    lines = ["", f"── {name} ─ {wall_s / 60:.1f} min " + "─" * 50]
    lines += [f"{label:<18}{text}" for label, text in _results(metadata)]
    lines += [f"{asset:<22}{short_path(values['path'])}" for asset, values in metadata.items()]
    lines += [
        f"CHECK NOT PASSED  {check.asset_key.path[-1]}.{check.check_name}"
        for check in result.get_asset_check_evaluations()
        if not check.passed
    ]
    lines.append(f"view the results  mlip ui, then open http://127.0.0.1:3000{LINEAGE_PATH}")
    return "\n".join(lines)


def failure_message(result: dg.ExecuteInProcessResult) -> str:
    """One line for each step that failed."""
    lines = []
    for event in result.filter_events(lambda event: event.is_step_failure):
        data = event.step_failure_data
        failure = data.user_failure_data
        message = failure.description if failure else data.error and data.error.to_string()
        blocking = [
            check.check_name
            for check in result.get_asset_check_evaluations()
            if check.blocking and not check.passed and event.step_key in check.asset_key.path
        ]
        if blocking:
            message = (
                f"blocking check {', '.join(blocking)} not passed; no later asset was computed "
                "(the UI shows the values)"
            )
        lines.append(f"error: {event.step_key}: {message}")
    return "\n".join(lines) or "error: the run failed; the UI shows its log"


def short_path(path: str) -> str:
    """The path relative to the working folder, if it is inside."""
    return os.path.relpath(path) if Path(path).is_relative_to(Path.cwd()) else path


def _metadata(result: dg.ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
    """Asset name -> its metadata, for each asset that the run has materialized."""
    found = {}
    for event in result.get_asset_materialization_events():
        materialization = event.step_materialization_data.materialization
        found[materialization.asset_key.path[-1]] = {
            key: value.value for key, value in materialization.metadata.items()
        }
    return found


def _results(metadata: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """A label and a sentence for each result that the run has."""
    if trajectory := metadata.get("surrogate_trajectory"):
        yield (
            "frames explored",
            f"{trajectory['n_frames']} in {trajectory['n_walkers']} walkers "
            f"({trajectory['n_walkers_stopped']} stopped by a guard), "
            f"surrogate {trajectory['surrogate']} on {trajectory['device']} by "
            f"{trajectory['md_backend']}",
        )
    if "covered_fraction" in (clusters := metadata.get("clusters", {})):
        yield (
            "covered already",
            f"{100 * clusters['covered_fraction']:.0f} % of the frames by labels of earlier rounds; "
            f"{clusters['n_frames_far_from_labels']} frames are not covered, the model is "
            f"uncertain about {clusters['n_frames_uncertain']}",
        )
    if selected := metadata.get("selected_frames"):
        yield (
            "frames selected",
            f"{selected['n_selected']}; coverage {selected['coverage']:.2f}, random selection "
            f"{selected['coverage_random_mean']:.2f} ± {selected['coverage_random_sd']:.2f}",
        )
    if labels := metadata.get("labelled_db"):
        yield (
            "DFT calls",
            f"{labels['dft_calls_made']} made, {labels['dft_calls_saved']} saved; "
            f"{labels['n_failed']} failed, {labels['n_deferred']} deferred; "
            f"{labels['core_hours_spent']:.2g} core-hours",
        )
    if model := metadata.get("model"):
        yield (
            "test errors",
            f"forces {model['test_force_rmse_meV_per_A']:.0f} meV/Å (mean predictor "
            f"{model['naive_force_rmse_meV_per_A']:.0f}), energy "
            f"{model['test_energy_rmse_meV_per_atom']:.1f} meV/atom "
            f"({model['naive_energy_rmse_meV_per_atom']:.1f})",
        )
    if report := metadata.get("model_report"):
        yield "promoted" if report["promoted"] else "not promoted", report["promotion_reason"]
