"""Asset ``seeds``: the initial structures of the exploration."""

import dagster as dg
from ase import Atoms

from mlip_assets import figures
from mlip_assets.assets.contract import check, pipeline_asset
from mlip_assets.dynamics import close_contact
from mlip_assets.structures import build_seeds
from resources.campaigns import CampaignFolder
from resources.earlier import EarlierResults
from resources.surrogate import SurrogateResource


@pipeline_asset(
    group="exploration",
    kinds={"ase", "xyz"},
    io_manager="structures",
    code_version="1",
    required_info=("seed_name", "seed_kind"),
    blocking_checks=[("complete", "one seed of each kind and size in the campaign, unique names")],
    checks=[("physical", "no two atoms overlap")],
)
def seeds(
    context: dg.AssetExecutionContext,
    campaigns: CampaignFolder,
    surrogate: SurrogateResource,
    earlier: EarlierResults,
) -> dg.MaterializeResult[list[Atoms]]:
    """Initial structures: crystals, strained, defective, disordered and isolated ones.

    The surrogate relaxes disordered seeds. The same campaign gives the same seeds.
    """
    campaign = campaigns.begin_or_resume_round(context)
    earlier.check(campaign)  # before hours of exploration
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
            "picture": figures.markdown(figures.seed_pictures(structures)),
            "n_seeds": len(structures),
            **potential.metadata(),
            "campaign_sha256": campaign.fingerprint,
            "seeds": figures.seed_table(structures),
        },
        check_results=[
            check("complete", len(set(names)) == campaign.n_seeds, seeds=names),
            check("physical", not contacts, overlapping=contacts),
        ],
    )
