"""Asset ``labelled_db``: energies, forces and stresses from density-functional theory."""

import dagster as dg
import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from mlip_assets import figures
from mlip_assets.assets.contract import check, observed, pipeline_asset
from mlip_assets.campaign import Campaign
from mlip_assets.labelling import LabelledDatabase, dimers, label_frames
from mlip_assets.labelling.accounting import EVERY_NTH_FRAME, binding_problem, labelling_cost
from resources.campaigns import CampaignFolder
from resources.compute import ComputeResource
from resources.dft import DftResource
from resources.earlier import EarlierResults


@pipeline_asset(
    group="learning",
    kinds={"dft", "sqlite"},
    io_manager="labels",
    code_version="2",
    pool="dft",
    blocking_checks=[
        ("isolated_energies", "every element has its isolated-atom energy at the same settings"),
        ("binding_energy_plausible", "binding energies have the sign and size of bound matter"),
    ],
    checks=[("labels_converged", "at least nine in ten frames have a converged label")],
)
def labelled_db(
    context: dg.AssetExecutionContext,
    selected_frames: list[Atoms],
    campaigns: CampaignFolder,
    dft: DftResource,
    compute: ComputeResource,
    earlier: EarlierResults,
) -> dg.MaterializeResult[LabelledDatabase]:
    """DFT energies, forces and stresses from the ledger of labels, which computes the missing ones.

    A finished label is stored immediately and is never computed again, by any campaign. A failed
    calculation is recorded with its reason, and the others continue. A refresh keeps the labels of
    the earlier rounds.

    - `selected_frames`: frames to label, with the dimers of the campaign and isolated atoms
    """
    campaign = campaigns.begin_or_resume_round(context)
    settings = campaign.labelling
    wanted = [*selected_frames, *dimers(campaign.elements, settings.dimers)]
    positions = {atoms.positions.tobytes() for atoms in wanted}
    kept = [
        atoms
        for atoms in earlier.own_labelled_frames(campaign)
        if atoms.positions.tobytes() not in positions
    ]
    ledger = dft.ledger()
    database = label_frames(
        [*wanted, *kept],
        dft.engine(settings, campaign.elements),
        ledger,
        compute=compute.processes(),
        budget=settings.budget_calls,
        budget_core_hours=settings.budget_core_hours,
        gates=settings.gates,
        on_progress=observed(context),
    )

    account = labelling_cost(database, _frames_explored(context, campaign))
    spending = ledger.spending()
    problem = binding_problem(database)
    missing = sorted(set(campaign.elements) - set(database.isolated_energies))
    return dg.MaterializeResult(
        value=database,
        metadata={
            "picture": figures.markdown(figures.label_plot(database)),
            "n_labelled": len(database.labelled),
            "n_kept_of_earlier_runs": len(kept),
            "n_failed": len(database.failed),
            "n_deferred": len(database.deferred),
            "failed_by_reason": account.failed,
            "dft_calls_made": account.n_made,
            "dft_calls_saved": account.n_reused,
            "n_duplicates": account.n_duplicates,
            "core_hours_spent": account.core_hours_spent,
            "core_hours_reused": account.core_hours_reused,
            **_without_none(
                core_hours_expected=database.expected_core_hours,
                frames_explored_per_label=account.frames_explored_per_label,
                **{f"core_hours_saved_vs_every_{EVERY_NTH_FRAME}th": account.core_hours_saved},
            ),
            "ledger_of_all_campaigns": {
                "structures": len(ledger),
                "calls_started": spending.n_started,
                "calls_killed_in_flight": spending.n_lost,
                "core_hours": spending.core_hours,
            },
            "isolated_energies_eV": database.isolated_energies,
            "settings": dg.MetadataValue.json(settings.model_dump()),
            "labels": figures.label_table(database),
            "failures": figures.failure_table(database),
        },
        check_results=[
            check(
                "labels_converged",
                10 * len(database.failed) <= len(wanted) + len(kept),
                failed=len(database.failed),
            ),
            check("isolated_energies", not missing, missing=missing),
            check(
                "binding_energy_plausible",
                problem is None,
                problem=problem or "none",
                mean_binding_eV_per_atom=_mean(database.binding_energies()),
            ),
        ],
    )


def _frames_explored(context: dg.AssetExecutionContext, campaign: Campaign) -> int:
    """Number of frames of the trajectory, or, if its metadata lack it, the planned number."""
    wanted = dg.AssetRecordsFilter(
        asset_key=dg.AssetKey("surrogate_trajectory"), asset_partitions=[context.partition_key]
    )
    found = context.instance.fetch_materializations(wanted, limit=1).records
    materialization = found[0].asset_materialization if found else None
    n_frames = materialization.metadata.get("n_frames") if materialization else None
    return int(str(n_frames.value)) if n_frames else campaign.n_frames


def _without_none(**values: float | None) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else float("nan")
