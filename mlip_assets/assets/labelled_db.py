"""Asset ``labelled_db``: energies, forces and stresses from density-functional theory."""

import dagster as dg
from ase import Atoms

from io_managers.earlier import EarlierRuns
from mlip_assets import figures
from mlip_assets.assets.contract import check, pipeline_asset
from mlip_assets.labelling import LabelledDatabase, label_frames
from resources.campaigns import CampaignFolder
from resources.compute import ComputeResource
from resources.dft import DftResource


@pipeline_asset(
    group="learning",
    kinds={"gpaw", "sqlite"},
    io_manager="labels",
    code_version="2",
    pool="dft",
    checks=[
        ("labels_converged", "at least nine in ten frames have a converged label"),
        ("isolated_energies", "every element has its isolated-atom energy at the same settings"),
        ("bound", "frames lie below their isolated atoms on average"),
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

    A finished label is committed at once and never computed again, in this campaign or another. A
    calculation that fails is recorded with its reason, and the rest go on. A campaign that selects
    beyond itself keeps the frames of its earlier runs.
    """
    campaign = campaigns.load(context.partition_key)
    selected = {atoms.positions.tobytes() for atoms in selected_frames}
    kept = [
        atoms
        for atoms in earlier.own_labelled_frames(campaign)
        if atoms.positions.tobytes() not in selected
    ]
    settings = campaign.labelling
    database = label_frames(
        [*selected_frames, *kept],
        dft.engine(settings),
        dft.ledger(),
        n_workers=compute.workers(),
        budget=settings.budget,
    )

    binding = database.binding_energies()
    missing = sorted(set(campaign.elements) - set(database.isolated_energies))
    return dg.MaterializeResult(
        value=database,
        metadata={
            "n_labelled": len(database.labelled),
            "n_kept_of_earlier_runs": len(kept),
            "n_failed": len(database.failed),
            "n_deferred": len(database.deferred),
            "dft_calls_made": database.n_calculated,
            "dft_calls_saved": database.n_reused,
            "isolated_energies_eV": database.isolated_energies,
            "settings": settings.model_dump(),
            "labels": figures.label_table(database),
            "failures": figures.failure_table(database),
            "picture": figures.markdown(figures.label_plot(database)),
        },
        check_results=[
            check(
                "labels_converged",
                10 * len(database.failed) <= len(selected_frames) + len(kept),
                failed=len(database.failed),
            ),
            check("isolated_energies", not missing, missing=missing),
            check("bound", binding.mean() < 0, mean_binding_eV_per_atom=float(binding.mean())),
        ],
    )
