"""``mlip check`` and ``mlip show``: read a campaign, compute nothing."""

from __future__ import annotations

import os
from pathlib import Path

from mlip_assets.campaign import Campaign
from mlip_assets.cli.project import campaigns_folder, data_folder


def show_campaign(name: str) -> int:
    """Print a campaign with all default values, as YAML with units."""
    print(read_campaign(name)[0].to_yaml(), end="")
    return 0


def check_campaign(name: str) -> int:
    """Print the planned computation of a valid campaign."""
    campaign, _ = read_campaign(name)
    check_earlier_runs(campaign)
    print(plan(campaign))
    return 0


def read_campaign(name: str) -> tuple[Campaign, Path]:
    """Read a campaign by its name in the folder of campaigns, or by the path of its file.

    Raises
    ------
    CampaignError
        There is no such file, it is not valid, or its surrogate lacks an element.
    """
    from mlip_assets.surrogates import load_campaign

    is_path = name.endswith((".yaml", ".yml")) or os.sep in name
    path = Path(name) if is_path else campaigns_folder() / f"{name}.yaml"
    return load_campaign(path), path


def check_earlier_runs(campaign: Campaign) -> None:
    """Check that the results named by ``sampling.exclude_labelled_in`` and ``pca_from`` exist.

    Raises
    ------
    CampaignError
        They do not, or this campaign cannot use them.
    """
    if not campaign.sampling.exclude_labelled_in and campaign.sampling.pca_from is None:
        return  # importing Dagster takes seconds
    from io_managers.storage import Storage
    from resources.earlier import EarlierResults

    EarlierResults(storage=Storage(root=str(data_folder()))).check(campaign)


def plan(campaign: Campaign) -> str:
    """Size of the computation, one line per section of the campaign."""
    from mlip_assets.descriptors import size_message

    exploration, labelling, sampling = (
        campaign.exploration,
        campaign.labelling,
        campaign.sampling,
    )
    n_elements = len(campaign.elements)
    return (
        f"campaign {campaign.name}: {campaign.composition}\n"
        f"  exploration  {campaign.n_walkers} walkers from {campaign.n_seeds} seeds, "
        f"{exploration.ensemble}, {exploration.n_steps} steps of {exploration.timestep_fs:g} fs, "
        f"surrogate {' + '.join(exploration.surrogates)}\n"
        f"  descriptors  {size_message(campaign.descriptors, n_elements)}\n"
        f"  sampling     {sampling.n_samples} of {campaign.n_frames} frames\n"
        f"  labelling    {labelling.engine} {labelling.xc}, {labelling.cutoff_eV:g} eV, at most "
        f"{sampling.n_samples} frames + {n_elements} isolated "
        f"{'atom' if n_elements == 1 else 'atoms'}\n"
        f"  training     MACE from {campaign.training.start_from}"
    )
