"""Asset ``model``: the trained MACE potential."""

from pathlib import Path

import dagster as dg

from io_managers.storage import Storage
from mlip_assets import figures
from mlip_assets.assets.contract import check, observed, pipeline_asset
from mlip_assets.compute.devices import find_device
from mlip_assets.labelling import LabelledDatabase
from mlip_assets.training import TrainedModel, fit_mace
from resources.campaigns import CampaignFolder
from resources.mace import MaceResource

#: File in the folder of a campaign: the frames that none of its trainings uses.
HELD_OUT_NAME = "held_out.json"


@pipeline_asset(
    group="learning",
    kinds={"pytorch", "mace"},
    io_manager="model",
    code_version="3",
    pool="gpu",
    checks=[
        ("better_than_mean", "held-out force and energy errors are below the mean predictor's"),
    ],
)
def model(
    context: dg.AssetExecutionContext,
    labelled_db: LabelledDatabase,
    campaigns: CampaignFolder,
    mace: MaceResource,
    storage: Storage,
) -> dg.MaterializeResult[TrainedModel]:
    """MACE trained on the labels by the trainer of mace-torch, evaluated on held-out frames.

    Test frames are no near-duplicates of training frames, and no later round trains on them. An
    interrupted training is resumed; if a batch does not fit into the GPU, half of it is used. The
    spread of the committee, whose members train on parts of the labels, estimates the error.

    - `labelled_db`: labels and isolated-atom energies
    """
    campaign = campaigns.begin_or_resume_round(context)
    work = Path(str(storage.working_folder(context.partition_key, "model_training")))
    tuned = None
    if campaign.training.start_from == "surrogate":
        tuned = mace.foundation_model(campaign, work / "surrogate.model")
    trained = fit_mace(
        labelled_db.labelled,
        labelled_db.isolated_energies,
        campaign.training,
        work_dir=work,
        seed=campaign.random_seed,
        foundation_model=tuned,
        device=find_device(campaign.training.device, "training.device"),
        held_out_file=work.parent / HELD_OUT_NAME,
        gates=campaign.labelling.gates,
        on_progress=observed(context),
    )

    test = trained.metrics["splits"]["test"]
    naive = trained.metrics["mean_predictor"]["test"]
    training = {key: value for key, value in trained.metrics["training"].items() if key != "curve"}
    errors = {f"test_{name}": value for name, value in test.items() if value is not None}
    return dg.MaterializeResult(
        value=trained,
        metadata={
            "picture": figures.markdown(figures.parity_plot(trained)),
            "curve": figures.markdown(figures.training_curve(trained)),
            **errors,
            "naive_force_rmse_meV_per_A": naive["force_rmse_meV_per_A"],
            "naive_energy_rmse_meV_per_atom": naive["energy_rmse_meV_per_atom"],
            "committee": 1 + len(trained.members),
            "n_left_out": trained.metrics["n_left_out"],
            **training,
            "started_from": trained.start_from,
            "weights_sha256": trained.weights_sha256,
            "dataset_sha256": trained.dataset_sha256,
            "errors": figures.error_table(trained),
        },
        check_results=[
            check(
                "better_than_mean",
                all(
                    test[name] < naive[name]
                    for name in ("force_rmse_meV_per_A", "energy_rmse_meV_per_atom")
                ),
                force_rmse_meV_per_A=test["force_rmse_meV_per_A"],
                mean_predictor_meV_per_A=naive["force_rmse_meV_per_A"],
            ),
        ],
    )
