"""Asset ``model_report``: errors and physical tests of the potential, and its promotion."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg

from io_managers.storage import Storage
from mlip_assets import figures
from mlip_assets.assets.contract import MAX_KEY_LENGTH, check, pipeline_asset
from mlip_assets.assets.model import HELD_OUT_NAME
from mlip_assets.campaign import Campaign
from mlip_assets.compute.devices import find_device
from mlip_assets.evaluation import ModelReport, learning_curve, make_report
from mlip_assets.evaluation.stability import MAX_DRIFT_MEV_PER_ATOM_PER_PS
from mlip_assets.labelling import LabelledDatabase
from mlip_assets.release import PromotedModels, decide_promotion
from mlip_assets.release.promotion import ERRORS, LABELS_FOLDER, PROMOTED_FOLDER, REPORT_FOLDER
from mlip_assets.training import HeldOut, TrainedModel
from resources.campaigns import CampaignFolder
from resources.surrogate import SurrogateResource


@pipeline_asset(
    group="learning",
    kinds={"pytorch", "mace"},
    io_manager="report",
    code_version="2",
    pool="gpu",
    checks=[
        ("better_than_mean", "held-out force and energy errors are below the mean predictor's"),
        ("better_than_surrogate", "held-out force errors are below those of the surrogate"),
        ("pair_curves", "energies of two atoms are smooth, and repulsive at short distance"),
        ("stable_at_every_temperature", "no guard stops MD at any temperature of the campaign"),
        (
            "energy_conserved",
            "the energy drift without a thermostat is at most "
            f"{MAX_DRIFT_MEV_PER_ATOM_PER_PS:g} meV/atom/ps",
        ),
        (
            "uncertainty_ranks_errors",
            "errors increase with the spread of the committee; passes without a committee",
        ),
    ],
)
def model_report(
    context: dg.AssetExecutionContext,
    model: TrainedModel,
    labelled_db: LabelledDatabase,
    campaigns: CampaignFolder,
    surrogate: SurrogateResource,
    storage: Storage,
) -> dg.MaterializeResult[ModelReport]:
    """The model compared with the promoted model and the surrogate, and tests of its physics.

    A stable model whose errors on the held-out labels are not larger than those of the promoted
    model is promoted: `exploration.surrogate: own-model` then refers to it. Otherwise the model is
    kept, and the report gives the reason.

    - `model`: the model to test
    - `labelled_db`: labels, of which the held-out ones give the errors
    """
    campaign = campaigns.begin_or_resume_round(context)
    device = find_device(campaign.training.device, "training.device")
    folder = Path(str(storage.working_folder(context.partition_key, PROMOTED_FOLDER)))
    held_out = HeldOut.open(folder.parent / HELD_OUT_NAME)
    models = PromotedModels(folder)
    with models.locked():
        best, promotion = models.in_use() if models.name else (None, None)
        report = make_report(
            model,
            labelled_db.labelled,
            labelled_db.isolated_energies,
            held_out=held_out,
            surrogate=surrogate.resolve(campaigns.load(campaign.name)).calculator(),
            promoted=best,
            temperatures_K=campaign.exploration.temperatures_K,
            timestep_fs=campaign.exploration.timestep_fs,
            stability_steps=campaign.training.stability_steps,
            seed=campaign.random_seed,
            device=device,
        )
        verdict = decide_promotion(
            report.held_out,
            baseline_ratio=promotion.error_ratio_to_best if promotion else 1.0,
            is_stable=report.is_stable,
        )
        in_use = model if verdict.promoted else best
        found: dict[str, Any] = {
            "n_labels": len(labelled_db.labelled),
            "model": in_use and models.folder_of(in_use).name,
        }
        if best is None or best.weights_sha256 != model.weights_sha256:  # else it is on record
            found |= {"error_ratio": verdict.ratio, "promoted": verdict.promoted}
        campaigns.record(campaign, **found)
        own = models.folder_of(model)
        curve = learning_curve(
            campaigns.rounds(campaign.name).rounds,
            lambda name: (model if name == own.name else models.open(name)).calculator(device),
            labelled_db.labelled,
            held_out,
        )
        report = replace(report, promotion=verdict, learning_curve=curve)
        report = replace(report, pictures=figures.report_pictures(report))
        if verdict.promoted:
            report.save(own / REPORT_FOLDER)
            labelled_db.save(own / LABELS_FOLDER)
            models.promote(model, verdict)
    campaigns.record(campaign, finished=True)
    return dg.MaterializeResult(
        value=report, metadata=_metadata(report, campaign), check_results=list(_checks(report))
    )


def _metadata(report: ModelReport, campaign: Campaign) -> dict[str, Any]:
    assert report.promotion
    crystal = report.crystals.get("model")
    volumes = crystal.equation_of_state if crystal else None
    uncertainty = report.uncertainty or {}
    picture, *others = sorted(report.pictures, key=lambda name: name != "errors")
    return {
        "picture": figures.markdown(report.pictures[picture]),
        **{f"picture_{name}": figures.markdown(report.pictures[name]) for name in others},
        "round": campaign.round,
        "promoted": report.promotion.promoted,
        "promotion_reason": report.promotion.reason,
        **{
            _short(f"{name}_{key}"): found[key]
            for name, found in report.held_out.items()
            for key in ERRORS
            if found[key] is not None
        },
        **({"bulk_modulus_GPa": volumes.bulk_modulus_GPa} if volumes else {}),
        **{
            f"uncertainty_{key}": uncertainty[key]
            for key in ("scale", "spearman", "within_1", "within_2")
            if uncertainty.get(key) is not None
        },
        "weights_sha256": report.weights_sha256,
        "errors": figures.comparison_table(report),
        "learning_curve": figures.learning_table(report),
        "crystal": figures.crystal_table(report),
        "dynamics": figures.trial_table(report),
        "uncertainty": figures.uncertainty_table(report),
    }


def _short(key: str) -> str:
    """The key, without "rmse" if it does not fit the key column of the UI otherwise."""
    return key if len(key) <= MAX_KEY_LENGTH else key.replace("_rmse", "")


def _checks(report: ModelReport) -> Iterator[dg.AssetCheckResult]:
    ours, naive, bare = (report.held_out[name] for name in ("model", "mean_predictor", "surrogate"))
    force = "force_rmse_meV_per_A"
    yield check(
        "better_than_mean",
        all(_below(ours[key], naive[key]) for key in ERRORS),
        force_rmse_meV_per_A=ours[force] or "",
        mean_predictor_meV_per_A=naive[force],
    )
    yield check(
        "better_than_surrogate",
        _below(ours[force], bare[force]),
        force_rmse_meV_per_A=ours[force] or "",
        surrogate_meV_per_A=bare[force] or "",
    )
    yield check(
        "pair_curves",
        all(curve.is_repulsive and curve.is_smooth for curve in report.pair_curves),
        not_repulsive=[c.pair for c in report.pair_curves if not c.is_repulsive],
        not_smooth=[c.pair for c in report.pair_curves if not c.is_smooth],
    )
    yield check(
        "stable_at_every_temperature",
        report.is_stable,
        stopped_by={
            f"{t.temperature_K:g} K": t.stopped_by for t in report.stability_tests if t.stopped_by
        },
    )
    yield check(
        "energy_conserved",
        all(trial.conserves_energy for trial in report.stability_tests),
        drift_meV_per_atom_per_ps=[t.drift_meV_per_atom_per_ps for t in report.stability_tests],
        standard_error=[t.drift_error_meV_per_atom_per_ps for t in report.stability_tests],
    )
    uncertainty = report.uncertainty or {}
    spearman = uncertainty.get("spearman")
    yield check(
        "uncertainty_ranks_errors",
        spearman is None or spearman > 0,
        spearman="" if spearman is None else spearman,
        n_frames=uncertainty.get("n_frames", 0),
    )


def _below(error: float | None, other: float | None) -> bool:
    """Whether an error is finite and below the other; any finite error is below None."""
    return error is not None and (other is None or error < other)
