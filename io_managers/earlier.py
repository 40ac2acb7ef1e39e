"""What earlier runs have stored that a campaign builds on: labelled frames, and the axes of a map."""

# No `from __future__ import annotations` here: Dagster reads ResourceDependency from the class body.

import dagster as dg
from ase import Atoms

from io_managers.label_database import LabelDatabaseIOManager
from io_managers.parquet import DescriptorIOManager, EmbeddingIOManager
from io_managers.storage import Storage
from mlip_assets.campaign import Campaign, CampaignError
from mlip_assets.sampling import PrincipalAxes


class EarlierRuns(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Reads what ``sampling.beyond`` and ``sampling.axes_from`` name, of any campaign.

    A campaign may name itself: what its own last run has stored, which is nothing the first time.
    """

    storage: dg.ResourceDependency[Storage]

    def check(self, campaign: Campaign) -> None:
        """Find out before anything is computed whether all that is named can be used.

        Raises
        ------
        CampaignError
            As :meth:`labelled_frames` and :meth:`axes`.
        """
        self.labelled_frames(campaign)
        self.axes(campaign)

    def labelled_frames(self, campaign: Campaign) -> list[Atoms]:
        """Frames that are labelled in the campaigns of ``sampling.beyond``, in that order.

        Raises
        ------
        CampaignError
            A campaign has no labels, or its frames hold elements that this one lacks.
        """
        return [
            atoms
            for name in dict.fromkeys(campaign.sampling.beyond)
            for atoms in self._labelled_in(name, campaign)
        ]

    def own_labelled_frames(self, campaign: Campaign) -> list[Atoms]:
        """Those of this campaign itself, where ``sampling.beyond`` names it."""
        named = campaign.name in campaign.sampling.beyond
        return self._labelled_in(campaign.name, campaign) if named else []

    def axes(self, campaign: Campaign) -> PrincipalAxes | None:
        """Axes of the campaign of ``sampling.axes_from``; None where new ones are to be fitted.

        Raises
        ------
        CampaignError
            That campaign has no map, or its frames were described in another way.
        """
        name = campaign.sampling.axes_from
        if name is None:
            return None
        where = f"{campaign.name}.yaml: sampling.axes_from: campaign '{name}'"
        maps = EmbeddingIOManager(storage=self.storage)
        path = maps.place("pca_embedding", name)
        if not path.exists():
            if name == campaign.name:
                return None
            raise CampaignError(
                f"{where} has no map ({path} is not there); run its job exploration first, or leave "
                "axes_from out"
            )
        matrices = DescriptorIOManager(storage=self.storage)
        theirs = matrices.read(matrices.place("descriptor_matrix", name)).settings
        ours = {**campaign.descriptors.model_dump(), "species": list(campaign.elements)}
        differing = [key for key in ours if ours[key] != theirs.get(key)]
        if differing:
            raise CampaignError(
                f"{where} was described with {_listed(theirs, differing)}, this one is with "
                f"{_listed(ours, differing)}; make them equal, or leave axes_from out"
            )
        return maps.read_axes(path)

    def _labelled_in(self, name: str, campaign: Campaign) -> list[Atoms]:
        where = f"{campaign.name}.yaml: sampling.beyond: campaign '{name}'"
        databases = LabelDatabaseIOManager(storage=self.storage)
        path = databases.place("labelled_db", name)
        if not (path / databases.commit_file).exists():
            if name == campaign.name:
                return []
            raise CampaignError(
                f"{where} has no labels ({path} is not there); run it first (make run "
                f"CAMPAIGN={name}), or take it out of the list"
            )
        frames: list[Atoms] = databases.read(path).labelled
        foreign = {symbol for atoms in frames for symbol in atoms.symbols} - set(campaign.elements)
        if foreign:
            raise CampaignError(
                f"{where} holds {', '.join(sorted(foreign))}, which the composition "
                f"{campaign.composition} lacks; take it out of the list"
            )
        return frames


def _listed(settings: dict[str, object], keys: list[str]) -> str:
    return ", ".join(f"{key} = {settings.get(key)}" for key in keys)
