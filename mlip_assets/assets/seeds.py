"""Asset ``seeds``: the structures from which exploration starts."""

import dagster as dg
from ase import Atoms

from mlip_assets import figures
from mlip_assets.assets.contract import check, pipeline_asset
from mlip_assets.dynamics import close_contact
from mlip_assets.structures import build_seeds
from resources.campaigns import CampaignFolder
from resources.earlier import EarlierRuns
from resources.surrogate import SurrogateResource


@pipeline_asset(
    group="exploration",
    kinds={"ase", "xyz"},
    io_manager="structures",
    code_version="1",
    required_info=("seed_name", "seed_kind"),
    checks=[
        ("complete", "every seed the campaign asks for is there, under a name of its own"),
        ("physical", "no two atoms overlap"),
    ],
)
def seeds(
    context: dg.AssetExecutionContext,
    campaigns: CampaignFolder,
    surrogate: SurrogateResource,
    earlier: EarlierRuns,
) -> dg.MaterializeResult[list[Atoms]]:
    """Crystal, strained, vacancy, rattled, liquid-like and gas-phase starting structures.

    Disordered seeds are relaxed by the surrogate. The same campaign gives the same seeds.
    """
    campaign = campaigns.current(context)
    earlier.check(campaign)  # now, and not after hours of exploration
    potential = surrogate.resolve(campaign)
    structures = build_seeds(campaign, calculator=potential.calculator())

    names = [atoms.info["seed_name"] for atoms in structures]
    contacts = [
        name
        for name, atoms in zip(names, structures, strict=True)
        if close_contact(atoms, campaign.guards.min_distance_ratio)
    ]
    return dg.MaterializeResult(
        value=structures,
        metadata={
            "n_seeds": len(structures),
            "campaign_sha256": campaign.fingerprint,
            "seeds": figures.seed_table(structures),
            "picture": figures.markdown(figures.seed_pictures(structures)),
            **potential.metadata(),
        },
        check_results=[
            check("complete", len(set(names)) == campaign.n_seeds, seeds=names),
            check("physical", not contacts, overlapping=contacts),
        ],
    )
