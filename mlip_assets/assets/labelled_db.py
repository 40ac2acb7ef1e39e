"""Asset ``labelled_db``: energies, forces and stresses from density-functional theory."""

import dagster as dg
import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from mlip_assets import figures
from mlip_assets.assets.contract import check, observed, pipeline_asset
from mlip_assets.campaign import Campaign
from mlip_assets.labelling import LabelledDatabase, dimers, label_frames
from mlip_assets.labelling.accounting import EVERY_KTH_FRAME, account_of, binding_problem
from resources.campaigns import CampaignFolder
from resources.compute import ComputeResource
from resources.dft import DftResource
from resources.earlier import EarlierRuns


@pipeline_asset(
    group="learning",
    kinds={"gpaw", "sqlite"},
    io_manager="labels",
    code_version="2",
    pool="dft",
    checks=[
        ("labels_converged", "at least nine in ten frames have a converged label"),
        ("isolated_energies", "every element has its isolated-atom energy at the same settings"),
        ("bound", "binding energies have the sign and the size that matter has"),
    ],
)
def labelled_db(
    context: dg.AssetExecutionContext,
    selected_frames: list[Atoms],
    campaigns: CampaignFolder,
    dft: DftResource,
    compute: ComputeResource,
    earlier: EarlierRuns,
) -> dg.MaterializeResult[LabelledDatabase]:
    """Force-consistent DFT labels from the ledger; only what it lacks is computed.

    A finished label is committed at once and never computed again, in this campaign or another, not
    even one that runs at the same time. A calculation that fails is recorded with its reason, and
    the rest go on. A campaign that selects beyond itself keeps the frames of its earlier runs.
    """
    campaign = campaigns.current(context)
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
        on_told=observed(context),
    )

    account = account_of(database, _frames_explored(context, campaign))
    ever = ledger.spending()
    problem = binding_problem(database)
    missing = sorted(set(campaign.elements) - set(database.isolated_energies))
    return dg.MaterializeResult(
        value=database,
        metadata={
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
            **_known(
                core_hours_expected=database.expected_core_hours,
                frames_explored_per_label=account.frames_explored_per_label,
                **{f"core_hours_saved_against_every_{EVERY_KTH_FRAME}th": account.core_hours_saved},
            ),
            "ledger_of_all_campaigns": {
                "structures": len(ledger),
                "calls_started": ever.n_started,
                "calls_killed_in_flight": ever.n_lost,
                "core_hours": ever.core_hours,
            },
            "isolated_energies_eV": database.isolated_energies,
            "settings": settings.model_dump(),
            "labels": figures.label_table(database),
            "failures": figures.failure_table(database),
            "picture": figures.markdown(figures.label_plot(database)),
        },
        check_results=[
            check(
                "labels_converged",
                10 * len(database.failed) <= len(wanted) + len(kept),
                failed=len(database.failed),
            ),
            check("isolated_energies", not missing, missing=missing),
            check(
                "bound",
                problem is None,
                problem=problem or "none",
                mean_binding_eV_per_atom=_mean(database.binding_energies()),
            ),
        ],
    )


def _frames_explored(context: dg.AssetExecutionContext, campaign: Campaign) -> int:
    """What the trajectory says it holds; what the campaign planned where it says nothing."""
    wanted = dg.AssetRecordsFilter(
        asset_key=dg.AssetKey("surrogate_trajectory"), asset_partitions=[context.partition_key]
    )
    found = context.instance.fetch_materializations(wanted, limit=1).records
    told = found[0].asset_materialization if found else None
    n_frames = told.metadata.get("n_frames") if told else None
    return int(str(n_frames.value)) if n_frames else campaign.n_frames


def _known(**figures_or_none: float | None) -> dict[str, float]:
    return {name: value for name, value in figures_or_none.items() if value is not None}


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else float("nan")
